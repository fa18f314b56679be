#!/bin/sh
# Flashes a terminal: the image, and what this one is provisioned with.
#
#   firmware/flash.sh BOARD ID.terminal [settings options...]
#   firmware/flash.sh BOARD TERMINAL GATEWAY [settings options...]
#
# The first takes what `risiti terminal add --out ID.terminal` wrote; the second sets up
# one without token and keys, to try things out. The options are those of `terminal settings` (--apn, --title, --token-file, …).
# The flash with records and receipts is not touched: a terminal can be flashed
# again in the field and loses nothing.
set -eu
cd "$(dirname "$0")/.."
usage() {
    echo "flash: which terminal? make flash TERMINAL=t17.terminal (risiti terminal add t17 --out t17.terminal), or TERMINAL=t17 GATEWAY=pay.example.org:1883" >&2
    exit 2
}
[ $# -ge 2 ] || usage
board=$1
terminal=$2
shift 2
if [ -f "$terminal" ]; then
    id=$(basename "$terminal" .terminal)
    set -- --package "$terminal" "$@"
else
    [ $# -ge 1 ] || usage
    id=$terminal
    gateway=$1
    shift
    set -- --id "$id" --gateway "$gateway" "$@"
fi

settings=$PWD/target/firmware/settings-$id.bin
mkdir -p target/firmware
${CARGO:-cargo} run --quiet --locked -p risiti-sim --bin terminal -- \
    settings --out "$settings" "$@"
firmware/probe.sh "$board" "$settings"
echo "flash: $id is on its board"
