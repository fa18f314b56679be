#!/bin/sh
# Every test of the workspace, and a minute of fuzzing for each parser; ends with
# one line that counts them all. Two lanes at once (tests/lane.sh): what waits for
# processes, and, behind it in priority, what computes.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
logs=target/test
rm -rf "$logs"
mkdir -p "$logs"

host=$(rustc -vV | sed -n 's/^host: //p')
runner=CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER

lane() { # lane NAME [COMMAND BEFORE IT...]
    name=$1
    shift
    env "$runner=$root/tests/lane.sh $name" \
        "$@" cargo test --workspace --locked --all-targets --no-fail-fast
}

ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
status=0
{
    cargo test --workspace --locked --all-targets --no-run
    cargo test --workspace --locked --doc
} 2>&1 | tee "$logs/build.log" || true
lane waiting 2>&1 | tee "$logs/waiting.log" &
{
    lane computing nice || true
    tests/fuzz.sh smoke
} 2>&1 | tee "$logs/computing.log" &
wait

awk '
    /^test result:/ { passed += $4; failed += $6; skipped += $8 }
    /^error: could not compile|^error: [0-9]+ target|^error: test failed|^error:/ { broken = 1 }
    /^test .* \.\.\. FAILED$/ { print }
    END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit (failed > 0 || broken || passed == 0)
    }
' "$logs"/*.log || status=$?
exit $status
