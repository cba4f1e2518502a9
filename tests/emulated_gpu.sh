#!/usr/bin/env bash
# Runs a command with NVIDIA GPUs that are made of the processor: see tests/emulated_gpu/lib.rs.
#
#   tests/emulated_gpu.sh COMMAND…
#
#   tests/emulated_gpu.sh target/debug/boxwright train --model ssd-nano --data shapes --device cuda:0
#   tests/emulated_gpu.sh cargo test --features cudnn,nccl --test suite -- on_a_gpu
#
# The command's program must be built with the feature cuda. EMULATED_GPUS says how many GPUs there are (2),
# EMULATED_GPU_MIB how many mebibytes each has (12288), and EMULATED_GPU_LOG=1 lists launches and copies on stderr. Needs
# rustc and what compiles the kernels: NVIDIA's libnvrtc.so.13, if NVRTC is its path, else nvcc, which knows more names.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
[ -n "${NVRTC:-}" ] || command -v nvcc >/dev/null || {
    echo "nvcc is missing: it compiles the kernels that the emulated GPU runs" >&2
    exit 2
}

folder=${CARGO_TARGET_DIR:-$root/target}/emulated_gpu
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
library=$folder/libemulated_gpu.so
if [ -n "$(find "$root/tests/emulated_gpu" -name '*.rs' -newer "$library" 2>/dev/null || echo none)" ]; then
    rustc --edition 2024 --crate-name emulated_gpu --crate-type cdylib -C opt-level=3 -C panic=abort -D warnings \
        "$root/tests/emulated_gpu/lib.rs" -o "$library.$$"
    mv "$library.$$" "$library"
fi
for name in cuda.so.1 cublas.so.13 curand.so.10 nvrtc.so.13 cudnn.so.9 nccl.so.2 nvidia-ml.so.1; do
    ln -sf libemulated_gpu.so "$folder/lib$name"
done
rm -f "$folder"/libnvrtc-builtins.*
if [ -n "${NVRTC:-}" ]; then
    nvrtc=$(realpath -e "$NVRTC")
    ln -sf "$nvrtc" "$folder/libnvrtc.so.13"
    for builtins in "$(dirname "$nvrtc")"/libnvrtc-builtins.so.*; do
        ln -sf "$builtins" "$folder/$(basename "$builtins")"
    done
fi
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" EMULATED_GPUS=${EMULATED_GPUS:-2}
exec "$@"
