#!/usr/bin/env bash
# Does RL forget rare proofs? Propositional theorems with many proofs each, checked by a real Lean 4 kernel, on a CPU.
#   bash recipes/run_fgrpo_proofs.sh          METHODS="grpo f_grpo unlikeliness f_unlikeliness" SEEDS="1 2" bash recipes/run_fgrpo_proofs.sh
#   SMOKE=1 bash recipes/run_fgrpo_proofs.sh  everything in miniature, too short to show an effect
# Makes theorems and a start model, trains METHODS x SEEDS with verl's own trainer, samples held-out theorems, reports.
# Killed at any point and started again, it continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/maze.sh
source recipes/shared/methods.sh

# ---- user-adjustable ----
SMOKE=${SMOKE:-0}                             # 1: everything in miniature
check_switch SMOKE
if [ "$SMOKE" = 1 ]; then
    STEPS=${STEPS:-2} PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-8} SAVE_FREQ=${SAVE_FREQ:-2} SFT_STEPS=${SFT_STEPS:-120}
    SUPERVISED=${SUPERVISED:-200} TRAIN=${TRAIN:-64} HELDOUT=${HELDOUT:-16} NUM_SAMPLES=${NUM_SAMPLES:-16} LARGE_K=${LARGE_K:-8}
    SUFFIX=-smoke
fi
METHODS=${METHODS:-grpo f_grpo}               # grpo unlikeliness ds_grpo maxrl w_reinforce nsr passk_training fade, f_ and one of these, gapo; with _epochs1 or _epochs2
SEEDS=${SEEDS:-1}                             # each with theorems, start model and training of its own
FOCAL_GAMMA=${FOCAL_GAMMA:-1.0}               # of the f_ methods
PASSK_K=${PASSK_K:-4}                         # ours: k of passk_training, half a group
GROUP_SIZE=${GROUP_SIZE:-8}                   # ours: arXiv 2506.02355 has 32
STEPS=${STEPS:-60}                            # all sizes are ours: what a CPU does in minutes
PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-32}
LEARNING_RATE=${LEARNING_RATE:-2e-4}
SUPERVISED=${SUPERVISED:-3000}                # theorems that the start model learns from
TRAIN=${TRAIN:-1000}                          # other theorems, for reinforcement learning
HELDOUT=${HELDOUT:-160}                       # and others still, for the report
SFT_STEPS=${SFT_STEPS:-1500}
NUM_SAMPLES=${NUM_SAMPLES:-64}                # samples per held-out theorem, at least 32 for the uplift by rank
LARGE_K=${LARGE_K:-32}                        # the k of pass@k beside 1
SAVE_FREQ=${SAVE_FREQ:-20}                    # steps between checkpoints
SIDE_BY_SIDE=${SIDE_BY_SIDE:-2}               # runs trained at the same time, one core each
DEVICE=${DEVICE:-cpu}                         # cpu | cuda
OUT=${OUT:-outputs/proofs/n$GROUP_SIZE-gamma$FOCAL_GAMMA-steps$STEPS${SUFFIX:-}}
DATA_PREFIX=${DATA_PREFIX:-outputs/proofs/data${SUFFIX:-}-seed}
RESULTS=${RESULTS:-$OUT/results}              # one file a finished (method, seed), which never runs again, and the report
# -------------------------

check_names "${BASH_SOURCE[0]}" scripts/setup_env.sh
check_list METHODS SEEDS
check_number 'x >= 0' 0.5 FOCAL_GAMMA
check_number 'x > 0 && x < 1' 1e-4 LEARNING_RATE
check_whole 1 STEPS PROMPTS_PER_STEP SUPERVISED TRAIN HELDOUT SFT_STEPS NUM_SAMPLES SAVE_FREQ SIDE_BY_SIDE
check_whole 2 GROUP_SIZE PASSK_K LARGE_K
check_choice DEVICE cpu cuda
[ "$UNSOUND" = 0 ] || end_checks
[[ " $METHODS " == *" grpo "* ]] || fault "METHODS is '$METHODS', but grpo, the reference of the report, must be among them"
[ "$LARGE_K" -le "$NUM_SAMPLES" ] || fault "LARGE_K is '$LARGE_K', but it must be at most NUM_SAMPLES=$NUM_SAMPLES"
[ "$PASSK_K" -le "$GROUP_SIZE" ] || fault "PASSK_K is '$PASSK_K', but it must be at most GROUP_SIZE=$GROUP_SIZE"
[ "$PROMPTS_PER_STEP" -le "$TRAIN" ] || fault "PROMPTS_PER_STEP is '$PROMPTS_PER_STEP', but it must be at most TRAIN=$TRAIN"
[[ $SEEDS =~ [0-9] ]] || fault "SEEDS is '$SEEDS', but it must name at least one seed, e.g. '1 2'"
for SEED in $SEEDS; do check_whole 0 SEED; done
for method in $METHODS; do method_arm "$method"; done
end_checks

TASK=proofs
task_setting() { printf 'theorems=%s-%s-%s' "$SUPERVISED" "$TRAIN" "$HELDOUT"; }
arm() {
    method_arm "$1"
    OVERRIDES+=(trainer.rollout_data_dir="$OUT/seed$SEED/$1/rollouts")
}
choose_python
"$PYTHON" -m verl_fgrpo.cli proofs check >&2 # a kernel, before time is spent
set_maze_environment
EXTRA=("$@")
DATA=$DATA_PREFIX$SEED
for method in $METHODS; do check_configuration "$method"; done
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

for SEED in $SEEDS; do
    DATA=$DATA_PREFIX$SEED
    # shellcheck disable=SC2086  # lists of words
    left=$("$PYTHON" -m verl_fgrpo.cli proofs report left --results "$RESULTS" --seed "$SEED" $METHODS)
    say "seed $SEED: not recorded yet: ${left:-nothing}"
    [ -n "$left" ] || continue
    say "seed $SEED: theorems and start model: $DATA"
    "$PYTHON" -m verl_fgrpo.cli proofs prepare --out "$DATA" --supervised "$SUPERVISED" --train "$TRAIN" --heldout "$HELDOUT" \
        --sft-steps "$SFT_STEPS" --seed "$SEED" --device "$DEVICE"
    DATA=$(cd "$DATA" && pwd)
    read_lengths
    say "seed $SEED: training $STEPS steps of $PROMPTS_PER_STEP theorems x $GROUP_SIZE rollouts: $left"
    RUNS=()
    for method in $left; do RUNS+=("$OUT/seed$SEED/$method"); done
    train_all "${RUNS[@]}"
    for run in "${RUNS[@]}"; do save_configuration "$run" "$RESULTS/configs/$(basename "$run").yaml"; done
    say "seed $SEED: sampling $HELDOUT held-out theorems, $NUM_SAMPLES samples each"
    "$PYTHON" -m verl_fgrpo.cli proofs report record --results "$RESULTS" --seed "$SEED" --data "$DATA" --step "$STEPS" \
        --num-samples "$NUM_SAMPLES" --theorems "$HELDOUT" --jobs "$SIDE_BY_SIDE" "${RUNS[@]}"
done

# shellcheck disable=SC2086  # lists of words
"$PYTHON" -m verl_fgrpo.cli proofs report write --results "$RESULTS" --k "$LARGE_K" $METHODS
