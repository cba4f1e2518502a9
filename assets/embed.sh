#!/usr/bin/env bash
# Makes the embedded weights anew, all of them or those named: assets/embed.sh [ssd-nano retinanet-nano …].
# The recipes are in src/train/embedding.rs. One build makes the same bits each time on the same kind of processor.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# A network that starts from another's embedded weights comes after it, and each is built in before the next one.
[ $# -gt 0 ] || set -- ssd-nano cascade-nano faster-nano mask-nano retinanet-nano fcos-nano yolov3-nano refinedet-nano m2det-nano
for name in "$@"; do
    cargo run --release --locked -- train --preset embed --model "$name" --out "$runs/$name" \
        --embed "assets/$name.safetensors"
done
