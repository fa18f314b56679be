#!/bin/sh
# Installs what is missing, and says what it installs. Arguments: build, test,
# kafka, in any number. Debian and Ubuntu; elsewhere it names what is missing.
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # need COMMAND-OR-FILE PACKAGE
    case "$1" in
    /*) [ -e "$1" ] || missing="$missing $2" ;;
    *) command -v "$1" >/dev/null 2>&1 || missing="$missing $2" ;;
    esac
}

for what in "$@"; do
    case "$what" in
    build)
        command -v cargo >/dev/null 2>&1 || {
            echo "setup: Rust is missing: install it with rustup, 1.91 or later" >&2
            exit 1
        }
        need cc gcc
        need c++ g++
        need make make
        need pkg-config pkg-config
        need /usr/include/zlib.h zlib1g-dev
        need /usr/include/openssl/ssl.h libssl-dev
        ;;
    kafka)
        need java openjdk-17-jre-headless
        need mvn maven
        ;;
    test)
        need java openjdk-17-jre-headless
        need mvn maven
        need openssl openssl
        need mosquitto mosquitto
        need mosquitto_pub mosquitto-clients
        need kcat kcat
        need curl curl
        need python3 python3
        need /usr/share/doc/python3-venv python3-venv
        ;;
    *)
        echo "setup: what is $what?" >&2
        exit 2
        ;;
    esac
done

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: install these (Debian's names) and try again:$missing" >&2
        exit 1
    fi
    echo "setup: installing$missing"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    # Debian starts a mosquitto on port 1883 when it is installed; tests bring
    # their own.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

for what in "$@"; do
    case "$what" in
    kafka | test) tests/kafka/kafka.sh fetch ;;
    esac
done
