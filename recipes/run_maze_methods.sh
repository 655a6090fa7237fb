#!/usr/bin/env bash
# Every method of the plugin on the same mazes, start models and budget: which trade pass@1 for pass@64, and how much?
#   bash recipes/run_maze_methods.sh          METHODS="grpo f_grpo f_maxrl" SEEDS="1 2" bash recipes/run_maze_methods.sh
# Trains METHODS x SEEDS with verl's own trainer, samples held-out mazes, writes a table and a figure.
# Killed at any point and started again, it continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/maze.sh
source recipes/shared/methods.sh

# ---- user-adjustable ----
METHODS=${METHODS:-grpo f_grpo unlikeliness ds_grpo maxrl w_reinforce nsr passk_training}   # also fade, gapo; or f_ and one of these
SEEDS=${SEEDS:-1 2 3}                         # each with mazes, start model and training of its own
FOCAL_GAMMA=${FOCAL_GAMMA:-1.0}               # of the f_ methods
PASSK_K=${PASSK_K:-4}                         # ours: k of passk_training, half a group
GROUP_SIZE=${GROUP_SIZE:-8}                   # as run_fgrpo_maze.sh, and all that follow
MAZE_SIZE=${MAZE_SIZE:-7}
STEPS=${STEPS:-50}                            # ours: half of run_fgrpo_maze.sh, there are many runs
PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-32}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
SFT_STEPS=${SFT_STEPS:-700}
TRAIN_MAZES=${TRAIN_MAZES:-5000}
HELDOUT_MAZES=${HELDOUT_MAZES:-256}
NUM_SAMPLES=${NUM_SAMPLES:-128}
SUBSAMPLE=${SUBSAMPLE:-64}                    # the k of pass@k beside 1
SAVE_FREQ=${SAVE_FREQ:-25}
SIDE_BY_SIDE=${SIDE_BY_SIDE:-2}               # runs trained at the same time, one core each
DEVICE=${DEVICE:-cpu}                         # cpu | cuda
OUT=${OUT:-outputs/maze/methods-size$MAZE_SIZE-n$GROUP_SIZE-gamma$FOCAL_GAMMA-steps$STEPS}
DATA_PREFIX=${DATA_PREFIX:-outputs/maze/data-size$MAZE_SIZE-seed}
# -------------------------

check_names "${BASH_SOURCE[0]}" scripts/setup_env.sh
check_list METHODS SEEDS
check_whole 2 PASSK_K
[[ " $METHODS " == *" grpo "* ]] || fault "METHODS is '$METHODS', but grpo, the reference of the table, must be among them"

arm() { method_arm "$1"; }
for method in $METHODS; do arm "$method"; done
[ "$PASSK_K" -le "$GROUP_SIZE" ] 2>/dev/null || fault "PASSK_K is '$PASSK_K', but it must be at most GROUP_SIZE=$GROUP_SIZE"
[[ $SEEDS =~ [0-9] ]] || fault "SEEDS is '$SEEDS', but it must name at least one seed, e.g. '1 2 3'"
for SEED in $SEEDS; do check_maze_settings; done
end_checks
choose_python
set_maze_environment
EXTRA=("$@")
DATA=$DATA_PREFIX$SEED
for method in $METHODS; do check_configuration "$method"; done
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

for SEED in $SEEDS; do
    DATA=$DATA_PREFIX$SEED
    say "seed $SEED: mazes and start model: $DATA"
    prepare_mazes
    say "seed $SEED: training $STEPS steps of $PROMPTS_PER_STEP prompts x $GROUP_SIZE rollouts: $METHODS"
    RUNS=()
    for method in $METHODS; do RUNS+=("$OUT/seed$SEED/$method"); done
    train_all "${RUNS[@]}"
done

say "sampling $HELDOUT_MAZES held-out mazes a seed, $NUM_SAMPLES samples each, and report"
# shellcheck disable=SC2086  # lists of words
"$PYTHON" scripts/compare_maze_methods.py --out "$OUT" --data "$DATA_PREFIX" --seeds $SEEDS --methods $METHODS --step "$STEPS" \
    --num-samples "$NUM_SAMPLES" --mazes "$HELDOUT_MAZES" --k "$SUBSAMPLE"
