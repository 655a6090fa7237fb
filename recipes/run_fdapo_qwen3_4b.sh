#!/usr/bin/env bash
# F-DAPO on Qwen3-4B-Base (arXiv 2602.06717). Paper's average over the math benchmarks: pass@256 76.4, baseline 76.1.
#   bash recipes/run_fdapo_qwen3_4b.sh                  the focal run
#   FOCAL_GAMMA=0 bash recipes/run_fdapo_qwen3_4b.sh    the baseline
#   DRY_RUN=1 bash recipes/run_fdapo_qwen3_4b.sh        the resolved configuration and what it would cost; starts nothing
# All variables: the first block of shared/train_math.sh. Further arguments go to verl and win.
set -xeuo pipefail

METHOD=dapo
PAPER_GAMMA=0.5    # paper Table 5; FOCAL_GAMMA overrides it
source "$(dirname "${BASH_SOURCE[0]}")/shared/model_qwen3_4b.sh"
source "$(dirname "${BASH_SOURCE[0]}")/shared/train_math.sh"
