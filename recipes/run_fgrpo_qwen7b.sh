#!/usr/bin/env bash
# F-GRPO on Qwen2.5-7B (arXiv 2602.06717). Paper's average over the math benchmarks: pass@1/pass@256 38.6/70.3, baseline 37.3/64.1.
#   bash recipes/run_fgrpo_qwen7b.sh                  the focal run
#   FOCAL_GAMMA=0 bash recipes/run_fgrpo_qwen7b.sh    the baseline
#   DRY_RUN=1 bash recipes/run_fgrpo_qwen7b.sh        the resolved configuration and what it would cost; starts nothing
# All variables: the first block of shared/train_math.sh. Further arguments go to verl and win.
set -xeuo pipefail

METHOD=grpo
PAPER_GAMMA=0.5    # paper Table 5; FOCAL_GAMMA overrides it
source "$(dirname "${BASH_SOURCE[0]}")/shared/model_qwen7b.sh"
source "$(dirname "${BASH_SOURCE[0]}")/shared/train_math.sh"
