#!/bin/sh
# tests/lane.sh LANE EXECUTABLE [ARGUMENT...]: what cargo runs a test through when
# tests/run.sh runs two lanes at once. Runs the executable if it belongs to the lane,
# in the package's directory, where cargo starts it; else nothing.
#
#   waiting    tests with real processes, most of whose time is waiting
#   computing  tests that keep a processor busy
set -eu
lane=$1
shift
name=$(basename "$1" | sed 's/-[0-9a-f]*$//')
case "$name" in
crash_images | io_errors | nested_cuts) belongs=computing ;;
*)
    case "$PWD" in
    */tests) belongs=waiting ;;
    *) belongs=computing ;;
    esac
    ;;
esac
[ "$belongs" = "$lane" ] || exit 0
echo "lane $lane: $name"
exec "$@"
