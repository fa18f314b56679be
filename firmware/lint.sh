#!/bin/sh
# Formatting, build, clippy and documentation of boards and images, warnings
# denied. Without rustup's target there is no clippy for it, only the rest.
set -eu
cd "$(dirname "$0")/images"
target=thumbv7em-none-eabihf
out=$(cd ../.. && pwd)/target/firmware
cargo=${CARGO:-cargo}

rustfmt --check --edition 2024 src/lib.rs src/bin/*.rs ../../hw/boards/*/build.rs ../../hw/boards/*/src/*.rs

for lib in "$(rustc --print target-libdir --target $target 2>/dev/null)"/libcore-*.rlib; do
    [ -e "$lib" ] || exec ../build.sh --strict
done
../build.sh --strict
for board in mps2-an386 nrf52840-dk; do
    $cargo clippy --quiet --locked --release --target $target --target-dir "$out" \
        -p risiti-images -p risiti-idle -p "risiti-$board" \
        --bin "$board" --lib --features "$board" -- -D warnings
    RUSTDOCFLAGS="-D warnings" $cargo doc --quiet --no-deps --locked \
        --target $target --target-dir "$out" -p risiti-idle -p "risiti-$board"
done
