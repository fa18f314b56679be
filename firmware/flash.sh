#!/bin/sh
# Flashes a terminal: the image, and what this one is provisioned with.
#
#   firmware/flash.sh BOARD TERMINAL GATEWAY [settings options...]
#
# The options are those of `terminal settings` (--apn, --title, --token-file, …).
# The flash with records and receipts is not touched: a terminal can be flashed
# again in the field and loses nothing.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 3 ] || {
    echo "flash: which BOARD, TERMINAL and GATEWAY? make flash TERMINAL=t17 GATEWAY=pay.example.org:1883" >&2
    exit 2
}
board=$1
id=$2
gateway=$3
shift 3

case "$board" in
nrf52840-dk)
    chip=nRF52840_xxAA
    settings_at=0xFF000
    ;;
*)
    echo "flash: $board can't be flashed; it is emulated (make terminal)" >&2
    exit 2
    ;;
esac

settings=$PWD/target/firmware/settings-$id.bin
mkdir -p target/firmware
${CARGO:-cargo} run --quiet --locked -p risiti-sim --bin terminal -- \
    settings --id "$id" --gateway "$gateway" --out "$settings" "$@"
image=$(firmware/build.sh "$board")

command -v probe-rs >/dev/null 2>&1 || {
    echo "flash: installing probe-rs"
    ${CARGO:-cargo} install probe-rs-tools --locked
}
probe-rs download --chip $chip "$image"
probe-rs download --chip $chip --binary-format bin --base-address $settings_at "$settings"
probe-rs reset --chip $chip
echo "flash: $id is on its board"
