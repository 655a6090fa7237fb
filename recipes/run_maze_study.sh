#!/usr/bin/env bash
# What does F-GRPO do to pass@1 and pass@64 when training goes on, and at which group size? Mazes, a CPU, verl's trainer.
#   bash recipes/run_maze_study.sh            PLAN=1 bash recipes/run_maze_study.sh    what is left, and its cost
# Part "long": GRPO, gamma 0.5, gamma 1, GRPO at the learning rate of equal update scale, gamma 1 with weights divided by
# their mean. Part "size": N at an equal budget.
# Every finished (part, arm, seed) becomes a row of docs/results/maze_study/ and is never trained again.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/maze.sh

# ---- user-adjustable ----
PARTS=${PARTS:-long size}                     # long | size
SEEDS=${SEEDS:-1 2}                           # of part long, each with mazes, start model and training of its own
SIZE_SEEDS=${SIZE_SEEDS:-1}                   # of part size
ARMS=${ARMS:-grpo gamma0.5 gamma1 grpo_low_lr gamma1_normalized}  # of part long
SIZES=${SIZES:-4 8 16}                        # N of part size, each with gamma 0 and 1
STEPS=${STEPS:-150}                           # ours: paper 20,000
ROLLOUTS_PER_STEP=${ROLLOUTS_PER_STEP:-256}   # ours: prompts a step = ROLLOUTS_PER_STEP / N
MAZE_SIZE=${MAZE_SIZE:-7}                     # as run_fgrpo_maze.sh, and all that follow
BASE_LEARNING_RATE=${LEARNING_RATE:-1e-4}
SFT_STEPS=${SFT_STEPS:-700}
TRAIN_MAZES=${TRAIN_MAZES:-5000}
HELDOUT_MAZES=${HELDOUT_MAZES:-256}
NUM_SAMPLES=${NUM_SAMPLES:-128}
SUBSAMPLE=${SUBSAMPLE:-64}
SAVE_FREQ=${SAVE_FREQ:-50}
SIDE_BY_SIDE=${SIDE_BY_SIDE:-2}
DEVICE=${DEVICE:-cpu}
OUT=${OUT:-outputs/maze/study}
DATA_PREFIX=${DATA_PREFIX:-outputs/maze/data-size$MAZE_SIZE-seed}
RESULTS=${RESULTS:-docs/results/maze_study}   # committed; one file a finished run
PLAN=${PLAN:-0}                               # 1: say what is left and what it costs, train nothing
# -------------------------

GROUP_SIZE=8 PROMPTS_PER_STEP=32 FOCAL_GAMMA=1 SEED=1 LEARNING_RATE=$BASE_LEARNING_RATE
EXTRA=("$@")
check_names "${BASH_SOURCE[0]}" scripts/setup_env.sh
check_switch PLAN
check_list PARTS SEEDS SIZE_SEEDS ARMS SIZES
check_whole 1 ROLLOUTS_PER_STEP
check_maze_settings
end_checks
choose_python
set_maze_environment
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# Settings of a run, by the name of its folder: grpo, gamma0.5, grpo_low_lr, n4-gamma1, ...
arm() {
    local name=$1
    PRESET=grpo GAMMA=0 GROUP_SIZE=8 LEARNING_RATE=$BASE_LEARNING_RATE
    if [[ $name =~ ^n([1-9][0-9]*)-(.*)$ ]]; then GROUP_SIZE=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]}; fi
    PROMPTS_PER_STEP=$((ROLLOUTS_PER_STEP / GROUP_SIZE))
    OVERRIDES=("trainer.rollout_data_dir=$OUT/seed$SEED/$1/rollouts")
    if [[ $name == *_normalized ]]; then name=${name%_normalized} OVERRIDES+=(+algorithm.focal_normalize=True); fi
    case $name in
        grpo) ;;
        grpo_low_lr) LEARNING_RATE=$("$PYTHON" -c 'import sys; from verl_fgrpo.core.focal import update_scale; print(float(sys.argv[1]) * update_scale(1.0))' "$BASE_LEARNING_RATE") ;;
        gamma*) GAMMA=${name#gamma} && check_number 'x >= 0' 0.5 GAMMA ;;
        *) die "an arm is '$1', but it must be grpo, grpo_low_lr, gammaG, gammaG_normalized or nN- and one of these" ;;
    esac
}

plan() { # sets part_seeds and part_arms of a part
    case $1 in
        long) part_seeds=$SEEDS part_arms=$ARMS ;;
        size) part_seeds=$SIZE_SEEDS part_arms=$(for n in $SIZES; do [ "$n" = 8 ] && echo "grpo gamma1" || echo "n$n-grpo n$n-gamma1"; done) ;;
        *) die "PARTS has '$1', but it knows long and size" ;;
    esac
}
[[ $PARTS =~ [a-z] ]] || die "PARTS is '$PARTS', but it must name long, size or both"
for part in $PARTS; do # all of it, before mazes are made
    plan "$part"
    for SEED in $part_seeds; do check_whole 0 SEED; done
    [[ $part_arms =~ [^[:space:]] && $part_seeds =~ [0-9] ]] || fault "part $part has arms '$part_arms' and seeds '$part_seeds', but it needs one of each"
    for name in $part_arms; do
        arm "$name"
        check_whole 2 GROUP_SIZE
        [ "$PROMPTS_PER_STEP" -ge 1 ] || fault "ROLLOUTS_PER_STEP is '$ROLLOUTS_PER_STEP', but $name needs at least a group of $GROUP_SIZE"
    done
done
end_checks
[ "$PLAN" = 1 ] || { DATA=$DATA_PREFIX$SEED && check_configuration "$OUT/seed$SEED/$name"; }

for part in $PARTS; do
    plan "$part"
    for SEED in $part_seeds; do
        # shellcheck disable=SC2086  # lists of words
        left=$("$PYTHON" scripts/maze_study.py left --results "$RESULTS" --seed "$SEED" $part_arms)
        say "part $part, seed $SEED, not recorded yet: ${left:-nothing}"
        [ -n "$left" ] || continue
        if [ "$PLAN" = 1 ]; then
            say "   about $(($(wc -w <<<"$left") * STEPS * 4 / 60)) minutes of one core at 4 s a step, and 3 an arm for sampling"
            continue
        fi
        DATA=$DATA_PREFIX$SEED
        prepare_mazes
        RUNS=()
        for name in $left; do RUNS+=("$OUT/seed$SEED/$name"); done
        train_all "${RUNS[@]}"
        for run in "${RUNS[@]}"; do save_configuration "$run" "$RESULTS/configs/$(basename "$run").yaml"; done
        "$PYTHON" scripts/maze_study.py record --results "$RESULTS" --seed "$SEED" --data "$DATA" --num-samples "$NUM_SAMPLES" \
            --mazes "$HELDOUT_MAZES" --jobs "$SIDE_BY_SIDE" "${RUNS[@]}"
    done
done
[ "$PLAN" = 1 ] || "$PYTHON" scripts/maze_study.py report --results "$RESULTS"
