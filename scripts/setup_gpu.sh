#!/usr/bin/env bash
# A Python environment for GPU runs: bash scripts/setup_gpu.sh        (about 10 GB, Linux x86-64, driver 580 or later)
# Installs requirements/gpu-py312.lock, then flash-attn, then this checkout, and ends with a check of all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/checks.sh

# ---- user-adjustable ----
VENV=${VENV:-.venv-gpu}              # made if it is not there; an active environment is not touched
BASE_PYTHON=${BASE_PYTHON:-python3.12}
# The wheel that verl's installation page names for CUDA 13, torch 2.11 and Python 3.12; no release of flash-attn has one.
# source: build it (needs nvcc, half an hour). none: leave it out, and run with sdpa (docs/gpu.md).
FLASH_ATTN=${FLASH_ATTN:-https://github.com/mjun0812/flash-attention-prebuild-wheels/releases/download/v0.9.4/flash_attn-2.8.3+cu130torch2.11-cp312-cp312-linux_x86_64.whl}
# -------------------------

[ "$(uname -sm)" = "Linux x86_64" ] || die "this is $(uname -sm), but the locked versions are for Linux x86_64; install verl by its own page"
command -v "$BASE_PYTHON" >/dev/null || die "BASE_PYTHON is '$BASE_PYTHON', which is not here; vllm's and flash-attn's wheels need Python 3.12: install it, or name it"
[ "$("$BASE_PYTHON" -c 'import sys; print(sys.version_info[:2] == (3, 12))')" = True ] || die "BASE_PYTHON is $("$BASE_PYTHON" --version 2>&1), but the locked versions are for Python 3.12"
[ -x "$VENV/bin/python" ] || "$BASE_PYTHON" -m venv "$VENV"
PYTHON=$VENV/bin/python

say "1/3 requirements/gpu-py312.lock"
"$PYTHON" -m pip install -q --upgrade "pip>=24" "setuptools>=77" wheel
"$PYTHON" -m pip install -q -r requirements/gpu-py312.lock
say "2/3 flash-attn: $FLASH_ATTN"
case $FLASH_ATTN in
    none) ;;
    source) MAX_JOBS=${MAX_JOBS:-8} "$PYTHON" -m pip install flash-attn==2.8.3 --no-build-isolation ;;
    *) "$PYTHON" -m pip install -q --no-deps "$FLASH_ATTN" ||
        die "the wheel could not be installed; download it elsewhere and give FLASH_ATTN=FILE, or FLASH_ATTN=source, or FLASH_ATTN=none" ;;
esac
say "3/3 this checkout, and the check"
"$PYTHON" -m pip install -q --no-deps --no-build-isolation -e .
"$PYTHON" scripts/check_env.py . requirements/gpu-py312.lock || die "the environment differs from the lock; make it anew with another VENV"
imports=(torch vllm transformers ray transfer_queue tensordict math_verify verl verl_fgrpo)
[ "$FLASH_ATTN" = none ] || imports+=(flash_attn)
"$PYTHON" -m verl_fgrpo.runs.machine "${imports[@]}"
say "done: source $VENV/bin/activate, then PREFLIGHT_ONLY=1 bash recipes/run_fgrpo_qwen7b.sh"
