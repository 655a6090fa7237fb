#!/usr/bin/env bash
# GRPO against F-GRPO on Qwen2.5-1.5B and MATH, with the low-learning-rate control: one 80 GB GPU, about a day.
#   bash recipes/run_fgrpo_qwen1_5b.sh              everything: training, evaluation, comparison, one report
#   STAGE=train | eval | compare                    one part; rerun to resume
#   DRY_RUN=1, PREFLIGHT_ONLY=1                     configuration and cost of one arm; what would stop it
#   SMOKE=1                                         the same script in miniature, on a CPU, with a tiny model
# Expected cost and the smallest effect it can show: README.md. Further arguments go to verl. Not run on a GPU by us.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/checks.sh

# ---- user-adjustable; those of shared/train_math.sh too ----
STAGE=${STAGE:-all}                           # all | train | eval | compare
SMOKE=${SMOKE:-0}
check_switch SMOKE
if [ "$SMOKE" = 1 ]; then
    setup_env
    DEVICE=cpu TOTAL_STEPS=${TOTAL_STEPS:-2} TRAIN_BATCH_SIZE=8 MINI_BATCH_SIZE=4 SAVE_FREQ=1 TEST_FREQ=-1 VAL_BEFORE_TRAIN=0
    MAX_PROMPT_LENGTH=320 MAX_RESPONSE_LENGTH=48 LOGGER=[console,file] EVAL_SAMPLES=${EVAL_SAMPLES:-8} SUBSAMPLE=${SUBSAMPLE:-4}
    LEARNING_RATE=${LEARNING_RATE:-1e-4} OUT=$(absolute "${OUT:-outputs/math/qwen1_5b-smoke}") MODEL_PATH=${MODEL_PATH:-$OUT/tiny/model}
    DATA_DIR=${DATA_DIR:-$OUT/tiny/data} PROBLEMS=${PROBLEMS:-$OUT/tiny/data/math.jsonl}
fi
ARMS=${ARMS:-grpo f_grpo grpo_low_lr}         # grpo is the reference; each is trained, sampled and compared with it
FOCAL_GAMMA=${FOCAL_GAMMA:-1.0}               # ours: the larger of the paper's choices, for a short run must show something
SEED=${SEED:-1}                               # three seeds before a claim
TOTAL_STEPS=${TOTAL_STEPS:-300}               # ours: 5 epochs of MATH
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-128}     # ours: paper 256
MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-32}        # ours: paper 64; four optimiser steps a batch, as there
LEARNING_RATE=${LEARNING_RATE:-2e-6}          # ours: paper 1e-6; fewer steps of a smaller model
SAVE_FREQ=${SAVE_FREQ:-50} TEST_FREQ=${TEST_FREQ:-50} VAL_N=${VAL_N:-8}
ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.45} ROLLOUT_SEQS=${ROLLOUT_SEQS:-512}   # ours: optimiser and parameters stay on the GPU
TOKENS_PER_GPU=${TOKENS_PER_GPU:-24576}       # ours: eight full rollouts a micro-batch
REWARD_WORKERS=${REWARD_WORKERS:-4}           # ours: one GPU makes rollouts more slowly than eight
GPUS_PER_NODE=${GPUS_PER_NODE:-1}
EVAL_SAMPLES=${EVAL_SAMPLES:-128}             # ours: paper 1,024
SUBSAMPLE=${SUBSAMPLE:-64}                    # ours: m of the paired test and the largest k; paper 256
DEVICE=${DEVICE:-cuda}
OUT=${OUT:-outputs/math/qwen1_5b-seed$SEED}
DATA_DIR=${DATA_DIR:-data/math-qwen2.5}       # made from MATH_TRAIN and PROBLEMS if it is not there
MATH_TRAIN=${MATH_TRAIN:-${VERL_FGRPO_DATA:+$VERL_FGRPO_DATA/benchmarks/math_train.parquet}}   # 7,500 problems of MATH, with answers
PROBLEMS=${PROBLEMS:-data/benchmarks/math500.jsonl data/benchmarks/aime24.jsonl data/benchmarks/minerva.jsonl data/benchmarks/olympiadbench.jsonl}
PYTHON=${PYTHON:-python3}
DRY_RUN=${DRY_RUN:-0} PREFLIGHT_ONLY=${PREFLIGHT_ONLY:-0} PRINT_ARGUMENTS=${PRINT_ARGUMENTS:-0}
# -------------------------

check_names "${BASH_SOURCE[0]}" scripts/setup_env.sh recipes/shared/train_math.sh recipes/shared/model_qwen1_5b.sh
check_list ARMS PROBLEMS
check_choice STAGE all train eval compare
check_switch DRY_RUN PREFLIGHT_ONLY PRINT_ARGUMENTS
check_number 'x > 0' '1.0; the reference arm has 0' FOCAL_GAMMA
check_whole 2 EVAL_SAMPLES SUBSAMPLE
check_whole 1 TOTAL_STEPS
[[ " $ARMS " == *" grpo "* ]] || fault "ARMS is '$ARMS', but grpo, which the others are compared with, must be among them"
for arm in $ARMS; do case $arm in grpo | f_grpo | grpo_low_lr) ;; *) fault "ARMS has '$arm', but it knows grpo, f_grpo and grpo_low_lr" ;; esac; done
[ "$UNSOUND" = 1 ] || [ "$SUBSAMPLE" -le "$EVAL_SAMPLES" ] || fault "SUBSAMPLE is '$SUBSAMPLE', but it must be at most EVAL_SAMPLES=$EVAL_SAMPLES"
end_checks
unset CONTROL
OUT=$(absolute "$OUT")
DATA_DIR=$(absolute "$DATA_DIR")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
verl_fgrpo() { "$PYTHON" -m verl_fgrpo.cli "$@"; }

# MATH's training problems, and the problems of the evaluation as validation file
prepare_data() {
    [ ! -f "$DATA_DIR/train.parquet" ] || [ ! -f "$DATA_DIR/val.parquet" ] || return 0
    say "data: $DATA_DIR"
    if [ "$SMOKE" = 1 ]; then "$PYTHON" tests/tiny_math.py "$MODEL_PATH" "$DATA_DIR"; return; fi
    [ -f "${MATH_TRAIN:-}" ] || die "MATH_TRAIN is '${MATH_TRAIN:-}', but it must name the training problems of MATH with answers (.parquet or .jsonl, columns problem and answer)"
    local folder=data/benchmarks local_files=()
    if [ ! -f "$folder/math500.jsonl" ]; then
        [ -z "${VERL_FGRPO_DATA:-}" ] || local_files=(--local "math500=$VERL_FGRPO_DATA/benchmarks/math.json" "aime24=$VERL_FGRPO_DATA/benchmarks/aime.json"
            "minerva=$VERL_FGRPO_DATA/benchmarks/minerva.json" "olympiadbench=$VERL_FGRPO_DATA/benchmarks/olympiad_bench.json")
        verl_fgrpo data benchmarks --out "$folder" --only math500 aime24 minerva olympiadbench "${local_files[@]}"
    fi
    # shellcheck disable=SC2086  # a list of words
    verl_fgrpo data train --model "${MODEL_PATH:-Qwen/Qwen2.5-1.5B}" --preset qwen2.5 --source "$MATH_TRAIN" --out "$DATA_DIR" --validation $PROBLEMS
}

# One arm by the math recipes' own script, in a shell of its own: grpo has gamma 0, the control its learning rate times m(gamma).
train() (
    arm=$1
    shift
    METHOD=grpo PAPER_GAMMA=$FOCAL_GAMMA OUT=$OUT/$arm EPOCHS=1000
    case $arm in
        grpo) FOCAL_GAMMA=0 ;;
        grpo_low_lr) CONTROL=low_lr FOCAL_GAMMA=0 ;;
    esac
    source recipes/shared/model_qwen1_5b.sh
    source recipes/shared/train_math.sh
)

if [ "$STAGE" = all ] || [ "$STAGE" = train ]; then
    if [[ $DRY_RUN$PREFLIGHT_ONLY$PRINT_ARGUMENTS == *1* ]]; then train "${ARMS%% *}" "$@"; exit; fi
    prepare_data
    for arm in $ARMS; do
        verl_fgrpo run-folder stop-leftovers "$OUT/$arm"
        if [ "$(verl_fgrpo run-folder last-step "$OUT/$arm")" -ge "$TOTAL_STEPS" ]; then say "$arm: all steps are done"; continue; fi
        say "training $arm"
        train "$arm" "$@"
    done
fi
if [ "$STAGE" = all ] || [ "$STAGE" = eval ]; then
    backend=(--backend vllm)
    [ "$DEVICE" = cuda ] || backend=(--backend transformers)
    export RAY_ADDRESS=${RAY_ADDRESS:-local}
    for arm in start $ARMS; do
        # the last checkpoint, not the best: a choice could favour an arm
        model=$OUT/$arm/global_step_$TOTAL_STEPS/actor/huggingface
        [ "$arm" != start ] || model=${MODEL_PATH:-Qwen/Qwen2.5-1.5B}
        [ "$arm" = start ] || [ -d "$model" ] || die "$model is not there; STAGE=train first"
        say "sampling $arm"
        # shellcheck disable=SC2086  # a list of words
        verl_fgrpo eval sample --run "$OUT/eval/$arm" --model "$model" --problems $PROBLEMS --num-samples "$EVAL_SAMPLES" \
            --max-tokens "${MAX_RESPONSE_LENGTH:-2048}" --preset qwen2.5 --seed "$SEED" "${backend[@]}"
        verl_fgrpo eval grade --run "$OUT/eval/$arm"
    done
fi
if [ "$STAGE" = all ] || [ "$STAGE" = compare ]; then
    others=()
    for arm in $ARMS; do [ "$arm" = grpo ] || others+=("$arm=$OUT/eval/$arm"); done
    verl_fgrpo eval compare --base "grpo=$OUT/eval/grpo" --focal "${others[@]}" --extra "start=$OUT/eval/start" \
        --ks 1 "$SUBSAMPLE" --m "$SUBSAMPLE" --seed "$SEED" --out "$OUT/compare" --html "$OUT/report.html" \
        --title "Qwen2.5-1.5B, MATH, $TOTAL_STEPS steps, gamma $FOCAL_GAMMA, seed $SEED"
    say "report: $OUT/report.html, $OUT/compare/compare.md"
fi
