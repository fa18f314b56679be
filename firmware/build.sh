#!/bin/sh
# Builds the image of one board or of all, and prints the path of each.
#
#   firmware/build.sh [--strict] [--debian] [BOARD...]
#
# Optimised for size, in target/firmware. --strict fails on any warning.
# With rustup's toolchain if it has the target, else (or with --debian) with
# Debian's compiler, which builds core from its sources. tests/setup.sh firmware
# installs whichever can be had.
set -eu
cd "$(dirname "$0")/images"
target=thumbv7em-none-eabihf
out=$(cd ../.. && pwd)/target/firmware

strict=""
debian=""
while [ $# -gt 0 ]; do
    case "$1" in
    --strict) strict=yes ;;
    --debian) debian=yes ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- mps2-an386 nrf52840-dk

has_target() {
    for lib in "$(rustc --print target-libdir --target $target 2>/dev/null)"/libcore-*.rlib; do
        [ -e "$lib" ] && return
    done
    return 1
}

has_debian() {
    [ -e /usr/lib/rustlib/src/rust/library/core/Cargo.toml ] &&
        [ -x /usr/bin/rustc ] &&
        [ -x /usr/bin/cargo ] && command -v arm-none-eabi-ld >/dev/null
}

if [ -z "$debian" ] && has_target; then
    cargo=${CARGO:-cargo}
elif has_debian; then
    # Two compilers in one directory would undo one another's work.
    out=$out/debian
    cargo=/usr/bin/cargo
    RUSTC=/usr/bin/rustc
    RUSTC_BOOTSTRAP=1
    CARGO_UNSTABLE_BUILD_STD=core,alloc
    CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=arm-none-eabi-ld
    export RUSTC RUSTC_BOOTSTRAP CARGO_UNSTABLE_BUILD_STD
    export CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER
    unset RUSTUP_TOOLCHAIN CARGO RUSTC_WRAPPER
else
    echo "firmware: nothing here compiles for $target. One of these is needed:" >&2
    echo "  with rustup:         rustup target add $target" >&2
    echo "  Debian 12 or later:  tests/setup.sh firmware" >&2
    exit 1
fi
# Set by a cargo that runs a test that builds an image; not meant for this one.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR CARGO_BUILD_RUSTFLAGS

# Names of files are in the image, for panics: as short as can be, and the same
# wherever it is built.
root=$(cd ../.. && pwd)
remap="\"--remap-path-prefix=$root=\",\"--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=\""

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for board in "$@"; do
    status=0
    $cargo build --locked --release --target $target --target-dir "$out" \
        --bin "$board" --features "$board" \
        --config "target.$target.rustflags=[$remap]" 2>"$log" || status=$?
    if [ $status != 0 ]; then
        cat "$log" >&2
        exit $status
    fi
    grep -E '^(warning|error)' -A 12 "$log" >&2 || true
    if [ -n "$strict" ] && grep -q '^warning' "$log"; then
        echo "firmware: $board has warnings" >&2
        exit 1
    fi
    echo "$out/$target/release/$board"
done
