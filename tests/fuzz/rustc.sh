#!/bin/sh
# Stands between cargo and rustc (RUSTC_WRAPPER): where compares are not worth being
# traced one by one, they are not. The simulated machines compare far more than what
# they surround, and a flash is compared with checksums that no draw fulfils; there
# the calls took up to half of the time. Coverage is counted as everywhere.
name=
for word; do
    [ "$name" != next ] || break
    [ "$word" != --crate-name ] || name=next
done
case "$word" in
escpos | flash | risiti_sim)
    for word; do
        shift
        [ "$word" = -Cllvm-args=-sanitizer-coverage-trace-compares ] || set -- "$@" "$word"
    done
    ;;
esac
exec "$@"
