#!/usr/bin/env bash
# A real Apache Kafka (KRaft, one node) from Maven Central's artefacts alone.
#
#   kafka.sh fetch                       download the broker once (later runs need no network)
#   kafka.sh start DIR PORT [CONTROLLER_PORT]
#                                        run a broker in the foreground on 127.0.0.1:PORT with its
#                                        data in DIR (formatted if new). The process *is* the broker
#                                        (exec): SIGTERM stops it cleanly, SIGKILL is a power cut.
#                                        CONTROLLER_PORT defaults to PORT+1.
#   kafka.sh topics BOOTSTRAP ARGS...    Kafka's own topic tool, e.g. --list, --describe
#   kafka.sh tool CLASS ARGS...          any other main class, e.g.
#                                        org.apache.kafka.tools.TransactionsCommand
#
# Environment of `start`:
#   KAFKA_EXTRA   a properties file appended to server.properties.in (the last value wins)
#   KAFKA_SCRAM   space-separated --add-scram values for a new DIR, e.g.
#                 'SCRAM-SHA-512=[name=gateway,password=secret]'
#   KAFKA_HEAP_MB heap, default 384
#   JAVA          the java to run (17 or later), default: java on the PATH
#
# It never touches anything outside DIR and its own target/.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
libs="$here/target/libs"
java="${JAVA:-java}"

die() { echo "kafka.sh: $*" >&2; exit 1; }

fetch() {
  # The stamp names the exact pom.xml, so that a version change fetches anew.
  local want; want="$(cksum < "$here/pom.xml")"
  if [ "$(cat "$libs/.fetched" 2>/dev/null || true)" = "$want" ]; then return 0; fi
  command -v mvn >/dev/null || die "Maven is missing; install it (Debian: apt-get install maven openjdk-17-jre-headless)"
  mkdir -p "$here/target"
  # Several tests may ask at once: one fetches, the others wait and find the stamp.
  exec 9> "$here/target/fetch.lock"
  flock 9
  if [ "$(cat "$libs/.fetched" 2>/dev/null || true)" = "$want" ]; then return 0; fi
  rm -rf "$libs" "$libs.part"
  mvn -q -B -f "$here/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$libs.part" \
    || die "Maven could not fetch Apache Kafka; it needs repo.maven.apache.org (or a mirror in ~/.m2/settings.xml) once"
  echo "$want" > "$libs.part/.fetched"
  mv "$libs.part" "$libs"
  exec 9>&-
}

# The classpath wildcard is expanded by java, not by the shell: keep it quoted.
run() { "$java" -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
  "-Dlog4j2.configurationFile=file:$here/log4j2.properties" -cp "$libs/*" "$@"; }

start() {
  [ $# -ge 2 ] || die "usage: kafka.sh start DIR PORT [CONTROLLER_PORT]"
  local dir port controller_port
  mkdir -p "$1"; dir="$(cd "$1" && pwd)"; port="$2"; controller_port="${3:-$((port + 1))}"
  fetch
  sed -e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$controller_port|g" \
    "$here/server.properties.in" > "$dir/server.properties"
  if [ -n "${KAFKA_EXTRA:-}" ]; then cat "$KAFKA_EXTRA" >> "$dir/server.properties"; fi
  if [ ! -f "$dir/log/meta.properties" ]; then
    local scram=() each
    for each in ${KAFKA_SCRAM:-}; do scram+=(--add-scram "$each"); done
    # The cluster id needs to be unique only among clusters that could meet.
    local id; id="$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c1-22)"
    run kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" \
      ${scram[@]+"${scram[@]}"} > "$dir/format.log" 2>&1 \
      || { cat "$dir/format.log" >&2; die "formatting $dir failed"; }
  fi
  # C1 only: a broker that starts in seconds matters more here than its peak rate.
  exec "$java" -Xms64m "-Xmx${KAFKA_HEAP_MB:-384}m" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
    "-Dlog4j2.configurationFile=file:$here/log4j2.properties" ${KAFKA_JVM:-} -cp "$libs/*" \
    kafka.Kafka "$dir/server.properties"
}

case "${1:-}" in
  fetch) fetch ;;
  start) shift; start "$@" ;;
  topics) [ $# -ge 2 ] || die "usage: kafka.sh topics BOOTSTRAP ARGS..."
    bootstrap="$2"; shift 2; fetch
    run org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" "$@" ;;
  tool) [ $# -ge 2 ] || die "usage: kafka.sh tool CLASS ARGS..."
    shift; fetch; run "$@" ;;
  *) sed -n '2,25p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
esac
