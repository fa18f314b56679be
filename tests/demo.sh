#!/bin/sh
# The demo on the embedded Kafka, or on a real one that lives as long as it.
#   tests/demo.sh embedded|real|HOST:PORT [arguments of `risiti demo`]
set -eu
cd "$(dirname "$0")/.."
kafka="$1"
shift
risiti=target/release/risiti

case "$kafka" in
embedded) exec "$risiti" demo "$@" ;;
*:*) exec "$risiti" demo --kafka "$kafka" "$@" ;;
real) ;;
*)
    echo "demo: KAFKA is embedded, real, or the HOST:PORT of a cluster, not $kafka" >&2
    exit 2
    ;;
esac

tests/setup.sh kafka
dir=$(mktemp -d)
port="${KAFKA_PORT:-19392}"
tests/kafka/kafka.sh start "$dir" "$port" >"$dir.log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true; rm -rf "$dir"' EXIT INT TERM

echo "waiting for Apache Kafka on 127.0.0.1:$port (log: $dir.log)"
n=0
until grep -q "Kafka Server started" "$dir.log"; do
    n=$((n + 1))
    if [ $n -gt 120 ] || ! kill -0 $pid 2>/dev/null; then
        echo "demo: Kafka does not start:" >&2
        tail -20 "$dir.log" >&2
        exit 1
    fi
    sleep 0.5
done
"$risiti" demo --kafka "127.0.0.1:$port" "$@"
