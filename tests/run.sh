#!/bin/sh
# Every test of the workspace; ends with one line that counts them all.
set -eu
cd "$(dirname "$0")/.."
log=target/test.log
mkdir -p target

ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
status=0
{
    cargo test --workspace --locked --doc
    cargo test --workspace --locked --all-targets --no-fail-fast
} 2>&1 | tee "$log" || true

awk '
    /^test result:/ { passed += $4; failed += $6; skipped += $8 }
    /^error: could not compile|^error: [0-9]+ target|^error: test failed|^error:/ { broken = 1 }
    /^test .* \.\.\. FAILED$/ { print }
    END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit (failed > 0 || broken || passed == 0)
    }
' "$log" || status=$?
exit $status
