#!/usr/bin/env bash
# Makes the embedded weights anew, all of them or those named: assets/embed.sh [ssd-nano retinanet-nano …].
# On the same kind of processor the same bits come out. Up to 15 minutes of two cores each; ssd-nano 26.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# train NAME OUT DATA ITERATIONS SEED [SETTING…]
train() {
    local name=$1 out=$2 data=$3 iterations=$4 seed=$5
    shift 5
    target/release/boxwright train --model "$name" --data "$data" --set iterations="$iterations" --set seed="$seed" \
        --set vertical_flip=0.5 --set iou_crop=0 --out "$runs/$name-$seed" --embed "$out" "$@"
}

once() {
    train "$1" "assets/$1.safetensors" shapes:train=12000,seed=21 "$2" 7
}

# A first phase from random weights, and a second on other scenes.
twice() {
    local name=$1 first=$2 second=$3 rate=$4
    train "$name" "$runs/$name.safetensors" shapes:train=12000,seed=21 "$first" 7
    train "$name" "assets/$name.safetensors" shapes:train=20000,seed=31 "$second" 8 \
        --weights "$runs/$name.safetensors" --set learning_rate="$rate"
}

# From the body of a trained relative.
after() {
    local name=$1 relative=$2 iterations=$3
    train "$name" "assets/$name.safetensors" shapes:train=20000,seed=31 "$iterations" 8 \
        --backbone "assets/$relative.safetensors" --set learning_rate=0.002
}

ssd() {
    train ssd-nano "$runs/first.safetensors" shapes:train=20000 4000 1 --until 2600 \
        --set 'min_sizes=[10.0,24.0,48.0,84.0,130.0,190.0]' --set 'max_sizes=[24.0,48.0,84.0,130.0,190.0,240.0]'
    local last="$runs/ssd-nano-1/weights/weights.safetensors"
    local phase
    for phase in "5 1900 2" "9 1300 3" "13 1500 4"; do
        read -r scenes iterations seed <<<"$phase"
        train ssd-nano assets/ssd-nano.safetensors "shapes:train=20000,seed=$scenes" "$iterations" "$seed" \
            --weights "$last" --set learning_rate=0.0015
        last="$runs/ssd-nano-$seed/weights/weights.safetensors"
    done
}

[ $# -gt 0 ] || set -- ssd-nano cascade-nano faster-nano mask-nano retinanet-nano fcos-nano yolov3-nano refinedet-nano m2det-nano
for name in "$@"; do
    case $name in
    ssd-nano) ssd ;;
    cascade-nano) twice cascade-nano 1800 3600 0.0015 ;;
    faster-nano) after faster-nano cascade-nano 3600 ;;
    mask-nano) after mask-nano faster-nano 1800 ;;
    retinanet-nano) twice retinanet-nano 1500 3500 0.0015 ;;
    fcos-nano) after fcos-nano retinanet-nano 3300 ;;
    yolov3-nano) once yolov3-nano 3000 ;;
    refinedet-nano) once refinedet-nano 1200 ;;
    m2det-nano) once m2det-nano 1100 ;;
    *) echo "no embedded weights of this name: $name" >&2; exit 2 ;;
    esac
done
