#!/bin/sh
# Mutation check of the cores: each small fault that is put into the code must be
# noticed by its tests. What is not noticed stands with its reason in
# tests/mutants/survivors.txt; anything else is an error. cargo-mutants says which
# faults there are; tests/mutants/together.py tries them all in one build.
#
#   tests/mutants.sh                 every core
#   tests/mutants.sh wire mqtt       these
#   tests/mutants.sh --list          what there is
#
#   RISITI_MUTANTS_SHARD=0/4         every fourth only, from the first on
#   RISITI_MUTANTS_QUICK=1           only the tests that take no time
#   RISITI_MUTANTS_APART=1           also those that need a build each (constants,
#                                    `const fn`, `impl Trait`): by cargo-mutants, slow
#   RISITI_MUTANTS_RECORD=1          writes tests/mutants/RESULTS.md
#   RISITI_MUTANTS_OUT=dir           where the changed copy lies and what became of each:
#                                    two runs at once need two
#   TMPDIR=/dev/shm                  where there is memory: the tests of the store sync
set -eu
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/mutants-build}"
# Every mutant runs the tests: enough for each fault that a small number shows.
export RISITI_RUNS="${RISITI_RUNS:-3000}"

# core | package | files | tests that are asked first, for they take no time | all that are to notice
cores='
wire|risiti-wire|firmware/wire/src/**|--lib --tests|--lib --tests
topics|risiti-topics|config/topics/src/**|--lib --tests|--lib --tests
mqtt|risiti-mqtt|gateway/mqtt/src/**|--lib --test shell --test message --test wire_cases -- --skip flipped --skip control_|--lib --tests
journal|risiti-store|bridge/store/src/journal/core.rs bridge/store/src/journal/dedup.rs bridge/store/src/journal/index.rs bridge/store/src/journal/positions.rs bridge/store/src/journal/pack.rs bridge/store/src/journal/tail.rs bridge/store/src/journal/generation.rs bridge/store/src/journal/clients.rs|--lib -- journal::|--lib --test resends --test backlog --test budget --test damage
forwarder|risiti-bridge|bridge/src/forwarder/core.rs bridge/src/forwarder/machine/** bridge/src/forwarder/pace.rs bridge/src/route.rs bridge/src/position.rs bridge/src/headers.rs bridge/src/epochs.rs|--lib -- forwarder:: route:: position:: headers:: epochs::|--lib; --test forwarder_mock
settlement|risiti-bridge|bridge/src/settlement/core.rs bridge/src/settlement/memory.rs bridge/src/settlement/judge.rs bridge/src/settlement/changelog.rs bridge/src/settlement/verify.rs bridge/src/settlement/enrolled.rs bridge/src/settlement/machine/**|--lib -- settlement::; --test settlement_core|--lib --test settlement_core
outbox|risiti-bridge|bridge/src/receipts/ledger.rs bridge/src/receipts/rows.rs bridge/src/receipts/poll.rs bridge/src/receipts/intake.rs bridge/src/receipts/course.rs bridge/src/receipts/early.rs bridge/src/receipts/event.rs|--lib -- receipts::|--lib --test receipts_outbox
delivery|risiti-gateway|gateway/src/outgoing.rs gateway/src/receipts/** gateway/src/subscriptions.rs gateway/src/identifiers.rs gateway/src/retained.rs gateway/src/rows.rs|--lib -- outgoing:: receipts:: subscriptions:: identifiers:: retained:: rows::|--lib
access|risiti-gateway|gateway/src/access/**|--lib -- access::|--lib -- access::
flash|risiti-terminal|firmware/terminal/src/store/** firmware/terminal/src/check.rs|--lib --test store -- basics:: slots:: pages:: reading:: refusals:: damage:: check:: notes --skip no_single_flipped --skip damage_anywhere|--lib --test store
vault|risiti-terminal|firmware/terminal/src/vault.rs|--lib --test vault|--lib --test vault
terminal|risiti-terminal|firmware/terminal/src/mqtt/** firmware/terminal/src/connection/schedule.rs firmware/terminal/src/connection/visit.rs firmware/terminal/src/application/**|--lib --test connection_codec --test connection_client --test connection_schedule --test application|--lib --test connection --test connection_codec --test connection_client --test connection_schedule --test application
'

if [ "${1:-}" = --list ]; then
    echo "$cores" | awk -F'|' 'NF { printf "%-12s %s\n", $1, $3 }'
    exit
fi
command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked
out="${RISITI_MUTANTS_OUT:-$PWD/target/mutants}"
tree="$out/tree"
mkdir -p "$tree"
# A copy to be changed; what is the same as last time keeps its date. Dates say nothing
# here: what a run puts back is younger than an edit made meanwhile.
export tree
git ls-files -z | xargs -0 sh -c 'for file; do
    [ ! -e "$file" ] || cmp -s "$file" "$tree/$file" || printf "%s\0" "$file"; done' sh |
    xargs -0r cp --parents -t "$tree"
status=0
for core in ${*:-$(echo "$cores" | cut -d'|' -f1)}; do
    line=$(echo "$cores" | grep "^$core|") || { echo "no core $core: tests/mutants.sh --list" >&2; exit 2; }
    package=$(echo "$line" | cut -d'|' -f2)
    files=$(echo "$line" | cut -d'|' -f3)
    quick=$(echo "$line" | cut -d'|' -f4)
    tests=$(echo "$line" | cut -d'|' -f5)
    # Only what the quick ones missed is tried with all of them.
    try() {
        python3 tests/mutants/together.py "$core" "$package" "$files" "$1" "$tree" "$out" \
            --sample "${RISITI_MUTANTS_SHARD:-0/1}" --timeout "${TIMEOUT_S:-0}" \
            --again "$2" --apart "$3"
    }
    try "$quick" 0 0 || { status=1; continue; }
    if [ "${RISITI_MUTANTS_QUICK:-0}" = 0 ] && [ "$quick" != "$tests" ]; then
        try "$tests" 1 "${RISITI_MUTANTS_APART:-0}" || { status=1; continue; }
    fi
    python3 tests/mutants/judge.py "$core" "$out/$core.tsv" \
        "$(git rev-parse --short HEAD)$([ "${RISITI_MUTANTS_QUICK:-0}" = 0 ] || echo " quick")" "${RISITI_MUTANTS_RECORD:-0}" || status=1
done
exit $status
