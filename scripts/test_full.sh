#!/usr/bin/env bash
# Every test, also the long ones (marker `full`): bash scripts/test_full.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg
"$PYTHON" -m pytest "$@"
