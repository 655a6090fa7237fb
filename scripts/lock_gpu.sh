#!/usr/bin/env bash
# Resolve requirements/gpu.txt into requirements/gpu-py312.lock: bash scripts/lock_gpu.sh      (needs a network; no GPU)
# For Linux on x86-64 with Python 3.12, whatever this machine is. Installs uv into a temporary environment.
set -euo pipefail
cd "$(dirname "$0")/.."
TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
"${BASE_PYTHON:-python3}" -m venv "$TEMPORARY"
"$TEMPORARY/bin/python" -m pip install -q uv==0.13.9
LOCK=requirements/gpu-py312.lock
"$TEMPORARY/bin/uv" pip compile requirements/gpu.txt --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
    --no-annotate --no-header --quiet -o "$TEMPORARY/lock"
{
    echo "# requirements/gpu.txt resolved for Linux x86-64, Python 3.12, CUDA 13 by scripts/lock_gpu.sh; $(grep -c == "$TEMPORARY/lock") packages."
    cat "$TEMPORARY/lock"
} >"$LOCK"
grep -E '^#|^(torch|vllm|transformers|verl|ray|tensordict|transferqueue)==' "$LOCK"
