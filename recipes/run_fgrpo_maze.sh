#!/usr/bin/env bash
# GRPO against F-GRPO on mazes with one solution each (arXiv 2602.06717, section 5.2), on a laptop without a GPU.
#   bash recipes/run_fgrpo_maze.sh            SMOKE=1 bash recipes/run_fgrpo_maze.sh     everything in miniature
# Makes .venv, mazes and a start model; trains both arms with verl's own trainer; samples held-out mazes; writes a report.
# Killed at any point and started again, it continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh

# ---- user-adjustable ----
SMOKE=${SMOKE:-0}                             # 1: everything in miniature, too short to show an effect
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
DEVICE=${DEVICE:-cpu}                         # cpu | cuda
OUT=${OUT:-outputs/maze/$METHOD-size$MAZE_SIZE-n$GROUP_SIZE-gamma$FOCAL_GAMMA-seed$SEED-steps$STEPS${SUFFIX:-}}
DATA=${DATA:-outputs/maze/data-size$MAZE_SIZE-seed$SEED${SUFFIX:-}}
# -------------------------

case $METHOD in grpo | dapo | cispo) ;; *) die "METHOD is '$METHOD', but it must be grpo, dapo or cispo" ;; esac
[[ $FOCAL_GAMMA =~ ^[0-9]*\.?[0-9]+$ ]] || die "FOCAL_GAMMA is '$FOCAL_GAMMA', but it must be a number of at least 0, e.g. 0.5"
for name in GROUP_SIZE MAZE_SIZE STEPS PROMPTS_PER_STEP SFT_STEPS TRAIN_MAZES HELDOUT_MAZES NUM_SAMPLES SUBSAMPLE SAVE_FREQ; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "$name is '${!name}', but it must be a whole number of at least 1"
done
[ "$GROUP_SIZE" -ge 2 ] || die "GROUP_SIZE is '$GROUP_SIZE', but a group needs at least 2 rollouts to compare; the paper uses 8"
[ "$SUBSAMPLE" -le "$NUM_SAMPLES" ] || die "SUBSAMPLE is '$SUBSAMPLE', but it must be at most NUM_SAMPLES=$NUM_SAMPLES"
[[ $SEED =~ ^[0-9]+$ ]] || die "SEED is '$SEED', but it must be a whole number of at least 0"
case $DEVICE in cpu | cuda) ;; *) die "DEVICE is '$DEVICE', but it must be cpu or cuda" ;; esac
setup_env
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg PYTHONUNBUFFERED=1
export RAY_DEDUP_LOGS=0 RAY_USAGE_STATS_ENABLED=0 HF_HUB_DISABLE_PROGRESS_BARS=1
if [ "$DEVICE" = cpu ]; then
    export VERL_PLATFORM=cpu
    PLATFORM=(+platform=cpu)
else
    PLATFORM=(trainer.n_gpus_per_node=1 actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.gpu_memory_utilization=0.2)
fi
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
BASE=$METHOD
FOCAL=f_$METHOD

say "1/4 mazes and start model: $DATA"
"$PYTHON" scripts/prepare_maze.py --out "$DATA" --size "$MAZE_SIZE" --train "$TRAIN_MAZES" --heldout "$HELDOUT_MAZES" \
    --sft-steps "$SFT_STEPS" --seed "$SEED" --device "$DEVICE"
DATA=$(cd "$DATA" && pwd)
PROMPT_TOKENS=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["prompt_tokens"])' "$DATA/manifest.json")
RESPONSE_TOKENS=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["response_limit"])' "$DATA/manifest.json")

# One arm: verl's own trainer. The two arms differ in algorithm.focal_gamma alone; gamma 0 is the base method bit for bit.
train() {
    local run=$1 gamma=$2
    local log
    log=$run/logs/$(date +%Y%m%d-%H%M%S)
    export VERL_FILE_LOGGER_PATH=$log.jsonl
    exec >"$log.log" 2>&1
    set -x # the log begins with the exact command
    exec "$PYTHON" -m verl.trainer.main_ppo \
        +focal="$METHOD" "${PLATFORM[@]}" \
        algorithm.focal_gamma="$gamma" \
        data.train_files="$DATA/train.parquet" data.val_files="$DATA/val.parquet" \
        data.train_batch_size="$PROMPTS_PER_STEP" data.seed="$SEED" \
        data.max_prompt_length="$PROMPT_TOKENS" data.max_response_length="$RESPONSE_TOKENS" \
        actor_rollout_ref.model.path="$DATA/start_model" \
        actor_rollout_ref.actor.optim.lr="$LEARNING_RATE" \
        actor_rollout_ref.actor.ppo_mini_batch_size="$PROMPTS_PER_STEP" \
        actor_rollout_ref.actor.data_loader_seed="$SEED" \
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]" \
        actor_rollout_ref.rollout.n="$GROUP_SIZE" \
        actor_rollout_ref.rollout.temperature=1.0 actor_rollout_ref.rollout.top_p=1.0 actor_rollout_ref.rollout.top_k=-1 \
        reward.custom_reward_function.path=pkg://verl_fgrpo.maze.rewards \
        reward.custom_reward_function.name=compute_score \
        trainer.total_training_steps="$STEPS" trainer.total_epochs=1000 \
        trainer.save_freq="$SAVE_FREQ" trainer.test_freq=-1 trainer.val_before_train=False \
        trainer.resume_mode=auto "trainer.default_local_dir=$run" \
        trainer.project_name=maze trainer.experiment_name="$(basename "$run")" \
        "trainer.logger=[console,file]" \
        "${EXTRA[@]}"
}
EXTRA=("$@")

say "2/4 training $STEPS steps of $PROMPTS_PER_STEP prompts x $GROUP_SIZE rollouts: $BASE and $FOCAL (gamma $FOCAL_GAMMA)"
WATCHED=()
PIDS=()
trap 'for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done' EXIT
for run in "$OUT/$BASE" "$OUT/$FOCAL"; do
    gamma=0
    [ "$run" = "$OUT/$BASE" ] || gamma=$FOCAL_GAMMA
    "$PYTHON" scripts/training_run.py claim "$run" method="$METHOD" focal_gamma="$gamma" group_size="$GROUP_SIZE" \
        seed="$SEED" prompts_per_step="$PROMPTS_PER_STEP" learning_rate="$LEARNING_RATE" maze_size="$MAZE_SIZE" extra="$*"
    "$PYTHON" scripts/training_run.py stop-leftovers "$run"
    if [ "$("$PYTHON" scripts/training_run.py last-step "$run")" -ge "$STEPS" ]; then
        say "$(basename "$run"): all steps are done"
        continue
    fi
    mkdir -p "$run/logs"
    train "$run" "$gamma" &
    PIDS+=("$!")
    WATCHED+=("$run=$!")
done
if [ "${#WATCHED[@]}" -gt 0 ]; then
    say "verl and Ray take about a minute to start; logs: $OUT/*/logs"
    "$PYTHON" scripts/training_run.py watch --steps "$STEPS" "${WATCHED[@]}"
fi

say "3/4 sampling $HELDOUT_MAZES held-out mazes, $NUM_SAMPLES samples each; 4/4 report"
"$PYTHON" scripts/eval_maze.py --out "$OUT" --data "$DATA" --base "$BASE" --focal "$FOCAL" --num-samples "$NUM_SAMPLES" \
    --mazes "$HELDOUT_MAZES" --m "$SUBSAMPLE" --seed "$SEED" --device "$DEVICE" \
    method="$METHOD" gamma="$FOCAL_GAMMA" group_size="$GROUP_SIZE" maze_size="$MAZE_SIZE" seed="$SEED" steps="$STEPS"
