#!/bin/sh
# Erases all that a terminal keeps: settings with token and keys, records, receipts.
#
#   firmware/wipe.sh BOARD TERMINAL [--even-unfinished]
#
# A payment without receipt, or a receipt that is not printed, keeps everything from
# being erased: set the terminal up again (make flash), let it finish, and come back.
# With --even-unfinished they are lost. TERMINAL is for whoever does it: the one on
# the probe, or the emulated one of `make terminal`.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 2 ] && [ -n "$2" ] || {
    echo "wipe: which terminal? make wipe TERMINAL=t17" >&2
    exit 2
}
board=$1
terminal=$2
shift 2

tool() {
    ${CARGO:-cargo} run --quiet --locked -p risiti-sim --bin terminal -- wipe "$@"
}

case "$board" in
mps2-an386)
    tool --image "$(firmware/build.sh "$board")" --dir "target/terminal-$terminal" "$@"
    rm -f "target/terminal-$terminal/settings"
    ;;
*)
    mkdir -p target/firmware
    tool --out target/firmware/wipe.bin "$@"
    firmware/probe.sh "$board" target/firmware/wipe.bin
    rm -f "target/firmware/settings-$terminal.bin"
    echo "wipe: the display of $terminal says WIPED when all is blank, in some two minutes"
    ;;
esac
echo "wipe: let nobody in as $terminal any more (risiti terminal revoke $terminal), or give it"
echo "wipe: the next keys before it is set up again (risiti terminal rotate $terminal): its"
echo "wipe: numbers begin anew, and the old keys have sealed them before"
