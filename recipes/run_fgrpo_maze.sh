#!/usr/bin/env bash
# GRPO against F-GRPO on mazes with one solution each (arXiv 2602.06717, section 5.2), on a laptop without a GPU.
#   bash recipes/run_fgrpo_maze.sh            SMOKE=1 bash recipes/run_fgrpo_maze.sh     everything in miniature
# Makes .venv, mazes and a start model; trains both arms with verl's own trainer; samples held-out mazes; writes a report.
# Killed at any point and started again, it continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/maze.sh

# ---- user-adjustable ----
SMOKE=${SMOKE:-0}                             # 1: everything in miniature, too short to show an effect
check_switch SMOKE
if [ "$SMOKE" = 1 ]; then
    STEPS=${STEPS:-2} PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-8} SAVE_FREQ=${SAVE_FREQ:-1}
    SFT_STEPS=${SFT_STEPS:-200} TRAIN_MAZES=${TRAIN_MAZES:-1500} HELDOUT_MAZES=${HELDOUT_MAZES:-16}
    NUM_SAMPLES=${NUM_SAMPLES:-16} SUBSAMPLE=${SUBSAMPLE:-8} SUFFIX=-smoke
fi
METHOD=${METHOD:-grpo}                        # grpo | dapo | cispo
FOCAL_GAMMA=${FOCAL_GAMMA:-1.0}               # paper Table 4: 0.5 and 1
GROUP_SIZE=${GROUP_SIZE:-8}                   # paper Table 4: 4 to 128
SEED=${SEED:-1}                               # of mazes, start model, order of prompts and sampling
MAZE_SIZE=${MAZE_SIZE:-7}                     # ours: paper 17; what a CPU trains in minutes
STEPS=${STEPS:-100}                           # ours: paper 20,000
PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-32}      # ours: paper 256
LEARNING_RATE=${LEARNING_RATE:-1e-4}          # paper App. K
SFT_STEPS=${SFT_STEPS:-700}                   # ours: paper 1,500
TRAIN_MAZES=${TRAIN_MAZES:-5000}              # ours: paper 1M
HELDOUT_MAZES=${HELDOUT_MAZES:-256}           # paper App. K
NUM_SAMPLES=${NUM_SAMPLES:-128}               # samples per held-out maze
SUBSAMPLE=${SUBSAMPLE:-64}                    # m of the paired test, and the largest k
SAVE_FREQ=${SAVE_FREQ:-25}                    # steps between checkpoints
SIDE_BY_SIDE=${SIDE_BY_SIDE:-2}               # runs trained at the same time, one core each
DEVICE=${DEVICE:-cpu}                         # cpu | cuda
OUT=${OUT:-outputs/maze/$METHOD-size$MAZE_SIZE-n$GROUP_SIZE-gamma$FOCAL_GAMMA-seed$SEED-steps$STEPS${SUFFIX:-}}
DATA=${DATA:-outputs/maze/data-size$MAZE_SIZE-seed$SEED${SUFFIX:-}}
# -------------------------

check_names "${BASH_SOURCE[0]}" scripts/setup_env.sh
check_choice METHOD grpo dapo cispo
check_maze_settings
end_checks
BASE=$METHOD
FOCAL=f_$METHOD
EXTRA=("$@")

# What a run is trained with: the two differ in algorithm.focal_gamma alone; gamma 0 is the base method bit for bit.
arm() {
    PRESET=$METHOD OVERRIDES=()
    case $1 in "$BASE") GAMMA=0 ;; "$FOCAL") GAMMA=$FOCAL_GAMMA ;; esac
}

choose_python
set_maze_environment
check_configuration "$FOCAL"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

say "1/4 mazes and start model: $DATA"
prepare_mazes

say "2/4 training $STEPS steps of $PROMPTS_PER_STEP prompts x $GROUP_SIZE rollouts: $BASE and $FOCAL (gamma $FOCAL_GAMMA)"
say "verl and Ray take about a minute to start; logs: $OUT/*/logs"
train_all "$OUT/$BASE" "$OUT/$FOCAL"

say "3/4 sampling $HELDOUT_MAZES held-out mazes, $NUM_SAMPLES samples each; 4/4 report"
"$PYTHON" scripts/eval_maze.py --out "$OUT" --data "$DATA" --base "$BASE" --focal "$FOCAL" --num-samples "$NUM_SAMPLES" \
    --mazes "$HELDOUT_MAZES" --m "$SUBSAMPLE" --seed "$SEED" \
    method="$METHOD" gamma="$FOCAL_GAMMA" group_size="$GROUP_SIZE" maze_size="$MAZE_SIZE" seed="$SEED" steps="$STEPS"
say "report: $OUT/report/report.md"
