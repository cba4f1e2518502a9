#!/usr/bin/env bash
# Tests and times the program on a machine with an NVIDIA GPU.
#
#   tests/gpu.sh [--batches 1,8] [--precisions f32,tf32,f16,bf16] [--runs N] [--json FILE] [MODEL…]
#
# Builds with the features cuda and cudnn, compares every operation and every recorded network on the GPU, and prints
# one table of times, beside PyTorch where $PYTHON (python3) has it. MODELs are those to time. Needs cargo, a CUDA
# toolkit with nvcc and cuDNN 9. Or builds nothing: BOXWRIGHT and BOXWRIGHT_SUITE then name the program and its tests
# (`cargo test --no-run` tells the file), built with both features elsewhere, and the libraries that PyTorch brings do.
# Exits with 0 when all is well, 1 when something differed or could not be timed, 2 when something needed is missing.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} boxwright=${BOXWRIGHT:-} suite=${BOXWRIGHT_SUITE:-}
if [ -z "$boxwright$suite" ]; then
    builders=(nvcc cargo)
else
    builders=("${boxwright:-BOXWRIGHT}" "${suite:-BOXWRIGHT_SUITE}")
fi
missing=()
for tool in nvidia-smi "$python" "${builders[@]}"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ ${#missing[@]} = 0 ] || { printf 'missing: %s\n' "${missing[@]}" >&2; exit 2; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 2

# The libraries that PyTorch brings, where it is installed: both then run on the same.
find_libraries='import glob, os, torch
print(":".join(glob.glob(os.path.join(os.path.dirname(torch.__path__[0]), "nvidia", "*", "lib"))))'
libraries=$("$python" -c "$find_libraries" 2>/dev/null)
[ -z "$libraries" ] || export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

if [ -z "$boxwright" ]; then
    cargo build --release --locked --features cuda,cudnn || exit 2
    boxwright=${CARGO_TARGET_DIR:-target}/release/boxwright
fi
"$boxwright" models --device cuda:0 >/dev/null || exit 2

failed=()
if [ -n "$suite" ]; then
    "$suite" on_a_gpu --nocapture || failed+=("operations")
else
    # With cuDNN, and with the kernels that stand in for it.
    for features in cuda,cudnn cuda; do
        cargo test --release --locked --features "$features" --test suite -- on_a_gpu --nocapture ||
            failed+=("operations with $features")
    done
    # The second build took the program's place.
    cargo build --release --locked --features cuda,cudnn || exit 2
fi

for fixture in tests/fixtures/*_*.json; do
    case $fixture in */eval_*) continue ;; esac
    # Its weights are published ones, which the fixture does not carry.
    if [[ $fixture = */darknet_* && -z ${BOXWRIGHT_WEIGHTS:-} ]]; then
        echo "skipped: $fixture (BOXWRIGHT_WEIGHTS names no folder with its weights)"
        continue
    fi
    # cuDNN's algorithms round as freely as the quick ones of the CPU.
    "$boxwright" parity --quick --device cuda:0 "$fixture" || failed+=("$fixture")
done

"$python" tests/benches/peer_gpu.py "$boxwright" "$@" || failed+=("times")
[ ${#failed[@]} = 0 ] || { printf 'failed: %s\n' "${failed[@]}" >&2; exit 1; }
