#!/usr/bin/env bash
# Tests and times the program on a machine with an NVIDIA GPU.
#
#   tests/gpu.sh [--json FILE] [MODEL…]
#
# Builds with the features cuda and cudnn, compares every operation and every recorded network on the GPU, and prints one
# table of times, beside PyTorch where $PYTHON (python3) has it. MODELs are those to time. Needs cargo, a CUDA toolkit with
# nvcc and cuDNN 9. Exits with 0 when all is well, 1 when something differed, 2 when something needed is missing.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
missing=()
for tool in nvidia-smi nvcc cargo "$python"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ ${#missing[@]} = 0 ] || { printf 'missing: %s\n' "${missing[@]}" >&2; exit 2; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 2

failed=()
cargo build --release --locked --features cuda,cudnn || exit 2
boxwright=${CARGO_TARGET_DIR:-target}/release/boxwright
"$boxwright" models --device cuda:0 >/dev/null || exit 2

# With cuDNN, and with the kernels that stand in for it.
for features in cuda,cudnn cuda; do
    cargo test --release --locked --features "$features" --test suite -- on_a_gpu --nocapture ||
        failed+=("operations with $features")
done

for fixture in tests/fixtures/*_*.json; do
    case $fixture in */eval_*) continue ;; esac
    # Its weights are published ones, which the fixture does not carry.
    if [[ $fixture = */darknet_* && -z ${BOXWRIGHT_WEIGHTS:-} ]]; then
        echo "skipped: $fixture (BOXWRIGHT_WEIGHTS names no folder with its weights)"
        continue
    fi
    "$boxwright" parity --device cuda:0 "$fixture" || failed+=("$fixture")
done

"$python" tests/benches/peer_gpu.py "$boxwright" "$@" || failed+=("times")
[ ${#failed[@]} = 0 ] || { printf 'failed: %s\n' "${failed[@]}" >&2; exit 1; }
