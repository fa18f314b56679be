#!/bin/sh
# firmware/probe.sh BOARD FILE: puts the image on a board, and FILE where its settings
# stand; what stood there is erased first. Then the board starts.
set -eu
cd "$(dirname "$0")/.."
board=$1
file=$2

case "$board" in
nrf52840-dk)
    chip=nRF52840_xxAA
    settings_at=0xFF000
    ;;
*)
    echo "probe: $board can't be flashed; it is emulated (make terminal)" >&2
    exit 2
    ;;
esac

image=$(firmware/build.sh "$board")
command -v probe-rs >/dev/null 2>&1 || {
    echo "probe: installing probe-rs"
    ${CARGO:-cargo} install probe-rs-tools --locked
}
probe-rs download --chip $chip "$image"
probe-rs download --chip $chip --binary-format bin --base-address $settings_at "$file"
probe-rs reset --chip $chip
