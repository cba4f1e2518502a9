#!/bin/sh
# Builds the release program and times it beside its peers: see the head of peers.py, which gets all arguments.
#
#   tests/benches/peers.sh [SECTION…] [--rounds N] [--json FILE] …
#
# BOXWRIGHT_PEER_PYTHON names a Python with torch, torchvision, onnx and onnxruntime. Without it a virtual environment is
# made beside the build and filled by pip; BOXWRIGHT_PEER_INDEX may name a package index with builds of torch for the CPU
# alone (https://download.pytorch.org/whl/cpu), which are a tenth of the size.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
python=${BOXWRIGHT_PEER_PYTHON:-}
if [ -z "$python" ]; then
    python=$target/peers/bin/python
    if ! "$python" -c 'import onnx, onnxruntime, torch, torchvision' 2>/dev/null; then
        python3 -m venv "$target/peers"
        "$python" -m pip install --quiet ${BOXWRIGHT_PEER_INDEX:+--extra-index-url "$BOXWRIGHT_PEER_INDEX"} \
            torch torchvision onnx onnxruntime numpy
    fi
fi
cargo build --release --quiet
exec "$python" tests/benches/peers.py "$target/release/boxwright" "$@"
