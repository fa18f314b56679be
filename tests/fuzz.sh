#!/bin/sh
# Coverage-guided fuzzing of every parser, on the stable tool chain.
#
#   tests/fuzz.sh run [TARGET...]      fuzzes, and ends with a table
#   tests/fuzz.sh smoke                the same, short, with the corpora, every old
#                                      crash and the negative controls, as tests
#   tests/fuzz.sh controls [NAME...]   the negative controls alone
#   tests/fuzz.sh replay TARGET FILE   one input
#   tests/fuzz.sh seeds                writes the corpora anew: tests/fuzz/corpus
#   tests/fuzz.sh build                builds only
#
# RISITI_FUZZ_SECONDS  how long a target runs: 600, in smoke 60
# RISITI_FUZZ_JOBS     how many run at once: as many as there are processors
# RISITI_FUZZ_SEED     what libFuzzer's draws begin with: in smoke the same, else
#                      another each time
#
# Everything that is found is kept in target/fuzz: corpus/TARGET grows from run to
# run, artifacts/TARGET has what crashed, logs/TARGET.log what was said. An input
# that showed a bug is kept for good in tests/fuzz/regressions/TARGET.
#
# libFuzzer is built from the crate libfuzzer-sys; the compiler's counters are
# switched on by its LLVM passes, as `cargo fuzz` does on a nightly tool chain
# (`cargo fuzz run --fuzz-dir tests/fuzz TARGET` works there, with AddressSanitizer).
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
out=$root/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
bin=$out/$host/release
targets=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' tests/fuzz/Cargo.toml | sort)

# What a target breaks in itself, and so has to be found: target, name.
controls="admin_http admin-payload
config config-line
escpos escpos-verdict
flash flash-damage
kafka_in kafka-again
modem modem-lost
mqtt_client client-window
mqtt_session mqtt-settled
store_files store-damage
topics topics-dollar
wire wire-resend"

build() {
    flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table"
    flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares"
    flags="$flags --cfg fuzzing -Cdebug-assertions -Coverflow-checks"
    # With a target named, build scripts and macros are spared the counters.
    (cd tests/fuzz && RUSTFLAGS=$flags RUSTC_WRAPPER=$root/tests/fuzz/rustc.sh \
        ${CARGO:-cargo} build --quiet --release \
        --target "$host" --target-dir "$out" "$@")
    # A test run must not pick up what is built while it runs.
    mkdir -p "$out/corpus" "$out/artifacts" "$out/logs"
}

# How long one input may take, in seconds; what a machine under load takes, and no more.
timeout_of() {
    case "$1" in store_files) echo 120 ;; *) echo 20 ;; esac
}

# The longest input that libFuzzer makes, in bytes.
length_of() {
    case "$1" in
    store_files | flash) echo 64 ;;
    modem) echo 400 ;;
    admin_http | config) echo 2000 ;;
    *) echo 1000 ;;
    esac
}

guarantees_of() {
    case "$1" in
    admin_http | config | topics) echo "G9" ;;
    escpos) echo "G5" ;;
    flash) echo "G5 G6 G11" ;;
    kafka_in) echo "G2 G4 G7" ;;
    modem) echo "G7" ;;
    mqtt_client) echo "G4 G7" ;;
    mqtt_session) echo "G1 G3 G8 G9" ;;
    store_files) echo "G1 G11" ;;
    wire) echo "G10 G11" ;;
    esac
}

# The value of a statistic of libFuzzer in a log; 0 if it did not come so far.
stat_of() {
    awk -v name="stat::$2:" '$1 == name { value = $2 } END { print value + 0 }' "$out/logs/$1.log"
}

# Runs one target; leaves its row of the table in logs/TARGET.row.
one() {
    target=$1
    corpus=$out/corpus/$target
    crashes=$out/artifacts/$target
    log=$out/logs/$target.log
    old=tests/fuzz/regressions/$target
    rm -rf "$crashes"
    mkdir -p "$corpus" "$crashes"
    set -- "$corpus" "tests/fuzz/corpus/$target"
    [ ! -d "$old" ] || set -- "$@" "$old"
    dictionary=tests/fuzz/dictionaries/$target.txt
    [ ! -e "$dictionary" ] || set -- "$@" "-dict=$dictionary"
    [ -z "${RISITI_FUZZ_SEED:-}" ] || set -- "$@" "-seed=$RISITI_FUZZ_SEED"
    began=$(date +%s)
    status=0
    nice "$bin/$target" "$@" -max_total_time="$seconds" -max_len="$(length_of "$target")" \
        -timeout="$(timeout_of "$target")" -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$crashes/" >"$log" 2>&1 || status=$?
    took=$(($(date +%s) - began))
    found=$(find "$crashes" -type f | wc -l)
    [ "$status" = 0 ] || [ "$found" -gt 0 ] || found=1
    runs=$(stat_of "$target" number_of_executed_units)
    coverage=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
    kept=$(find "$corpus" -type f | wc -l)
    seed=$(sed -n 's/^INFO: Seed: //p' "$log")
    echo "$target $runs $((runs / (took > 0 ? took : 1))) ${coverage:-0} $kept $found" \
        >"$out/logs/$target.row"
    echo "PROOF {\"what\":\"fuzz-$target\",\"guarantees\":\"$(guarantees_of "$target")\",\"runs\":$runs,\"failures\":$found,\"seed\":${seed:-0},\"seconds\":$took,\"extra\":{\"coverage\":${coverage:-0},\"corpus\":$kept}}"
    if [ "$found" -gt 0 ]; then
        grep -A 4 'panicked at\|ERROR: libFuzzer' "$log" | sed -n 1,10p
        for crash in "$crashes"/*; do
            [ ! -e "$crash" ] || echo "again: tests/fuzz.sh replay $target ${crash#"$root"/}"
        done
        echo "test fuzz::$target ... FAILED"
    else
        echo "test fuzz::$target ... ok"
    fi
}

# A broken target is convicted, by an input that the whole one takes.
control() {
    target=$1
    name=$2
    crashes=$out/artifacts/control-$name
    log=$out/logs/control-$name.log
    rm -rf "$crashes"
    mkdir -p "$crashes"
    status=0
    RISITI_FUZZ_CONTROL=$name nice "$bin/$target" "tests/fuzz/corpus/$target" \
        -max_total_time=120 -max_len="$(length_of "$target")" -seed=1 \
        -artifact_prefix="$crashes/" -print_final_stats=1 >"$log" 2>&1 || status=$?
    verdict=FAILED
    for crash in "$crashes"/crash-*; do
        [ -e "$crash" ] || break
        if [ "$status" != 0 ] && "$bin/$target" "$crash" >>"$log" 2>&1; then
            verdict=ok
        fi
    done
    echo "control $name: found after $(stat_of "control-$name" number_of_executed_units) executions"
    echo "test fuzz::control_$name ... $verdict"
}

# Runs a subcommand for each line of its input, some at once.
each() {
    xargs -L 1 -P "$jobs" "$root/tests/fuzz.sh" "$@"
}

table() {
    echo
    {
        echo "target executions exec/s coverage corpus crashes"
        for target in "$@"; do cat "$out/logs/$target.row"; done
        for target in "$@"; do cat "$out/logs/$target.row"; done |
            awk '{ runs += $2; crashes += $6 } END { print "all", runs, "-", "-", "-", crashes }'
    } | awk '{ printf "%-14s %14s %10s %10s %8s %8s\n", $1, $2, $3, $4, $5, $6 }'
}

jobs=${RISITI_FUZZ_JOBS:-$(getconf _NPROCESSORS_ONLN)}
what=${1:-run}
[ $# = 0 ] || shift
case "$what" in
build) build "$@" ;;
run)
    seconds=${RISITI_FUZZ_SECONDS:-600}
    [ $# -gt 0 ] || set -- $targets
    build
    export RISITI_FUZZ_SECONDS="$seconds"
    printf '%s\n' "$@" | each --one
    table "$@"
    awk '$6 > 0 { bad = 1 } END { exit bad }' $(printf "$out/logs/%s.row " "$@")
    ;;
smoke)
    # The same draws in every build, so that a red one is about what was changed;
    # `run` draws anew each time.
    RISITI_FUZZ_SECONDS=${RISITI_FUZZ_SECONDS:-60}
    RISITI_FUZZ_SEED=${RISITI_FUZZ_SEED:-1}
    export RISITI_FUZZ_SECONDS RISITI_FUZZ_SEED
    build
    results=$out/logs/smoke.txt
    {
        printf '%s\n' "$controls" | each --control
        printf '%s\n' $targets | each --one
    } | tee "$results"
    table $targets
    awk '
        / \.\.\. ok$/ { passed++ }
        / \.\.\. FAILED$/ { failed++ }
        END {
            printf "test result: %s. %d passed; %d failed; 0 ignored\n", \
                failed ? "FAILED" : "ok", passed, failed
            exit failed > 0 || passed == 0
        }
    ' "$results"
    ;;
controls)
    build
    for name in ${*:-$(printf '%s\n' "$controls" | cut -d' ' -f2)}; do
        printf '%s\n' "$controls" | grep " $name\$"
    done | each --control | tee "$out/logs/controls.txt"
    ! grep -q FAILED "$out/logs/controls.txt"
    ;;
replay)
    target=$1
    file=$2
    build
    "$bin/$target" "$file"
    ;;
seeds)
    build
    for target in $targets; do
        rm -rf "tests/fuzz/corpus/$target"
        mkdir -p "tests/fuzz/corpus/$target"
        RISITI_FUZZ_SEEDS=tests/fuzz/corpus/$target "$bin/$target" 2>/dev/null
    done
    ;;
--one)
    seconds=$RISITI_FUZZ_SECONDS
    one "$1"
    ;;
--control) control "$1" "$2" ;;
*)
    sed -n '2,/^set -eu/p' "$0" | sed '$d' | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
