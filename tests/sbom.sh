#!/bin/sh
# What is in the gateway and in the terminals' images, crate by crate, as CycloneDX 1.5:
# target/sbom/{risiti,mps2-an386,nrf52840-dk}.cdx.json. The same commit gives the same
# files but for their serial numbers.
set -eu
cd "$(dirname "$0")/.."
into=target/sbom
name=risiti-sbom
mkdir -p "$into"

# The tool writes beside each Cargo.toml of a workspace; only one of them is asked for.
sweep() {
    find . -name "$name.json" -not -path './target/*' -delete
}
trap sweep EXIT

bill() { # bill FOLDER OUTPUT [OPTION...]
    folder=$1
    output=$2
    shift 2
    cargo cyclonedx -q --manifest-path "$folder/Cargo.toml" --format json --spec-version 1.5 \
        --override-filename "$name" "$@"
    mv "$folder/$name.json" "$into/$output.cdx.json"
    sweep
    echo "$into/$output.cdx.json: $(grep -c '"bom-ref": "registry' "$into/$output.cdx.json") crates"
}

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
bill gateway risiti
for board in mps2-an386 nrf52840-dk; do
    bill firmware/images "$board" --target thumbv7em-none-eabihf --features "$board"
done
