#!/usr/bin/env bash
# "Rewarding the Unlikely" (arXiv 2506.02355): DeepSeek-Prover-V1.5-SFT learns Lean 4 proofs with Mathlib. 4 GPUs, up to 36 h.
#   CONDITION=unlikeliness2 bash recipes/run_unlikeliness_prover7b.sh
#   DRY_RUN=1 bash recipes/run_unlikeliness_prover7b.sh       the resolved configuration and what it would cost; starts nothing
# Paper, pass@1/8/32/128/512 on 200 unseen theorems: SFT 52.5 72.1 78.3 83.1 86.0; default 71.0 77.4 79.1 81.1 83.0; high_kl 68.1
# 76.5 80.8 84.6 87.0; unlikeliness1 66.3 78.2 83.3 87.2 90.0; unlikeliness2 65.5 79.1 84.3 88.8 91.0.
# Needs Lean 4 with Mathlib (LEAN_PROJECT) and leanprover-community/repl (LEAN_REPL); data: docs/proofs.md. Not run by us.
set -euo pipefail

# ---- user-adjustable ----
CONDITION=${CONDITION:-default}               # default | high_kl | epochs2 | unlikeliness1 | unlikeliness2
FOCAL_GAMMA=${FOCAL_GAMMA:-0}                 # ours: the paper has no focal weight; above 0: F-GRPO or F-unlikeliness
MODEL_PATH=${MODEL_PATH:-deepseek-ai/DeepSeek-Prover-V1.5-SFT}
GROUP_SIZE=${GROUP_SIZE:-32}                  # paper
PROBLEMS_PER_STEP=${PROBLEMS_PER_STEP:-16}    # paper
MINI_BATCH=${MINI_BATCH:-8}                   # paper: 256 samples an update; here problems, 8 x 32. verl keeps samples of zero advantage, the paper skips them
LEARNING_RATE=${LEARNING_RATE:-1e-6}          # paper
EPOCHS=${EPOCHS:-1}                           # paper: over the 9,878 theorems
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}   # paper
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-512} # paper
GPUS=${GPUS:-4}                               # paper: L40S
SEED=${SEED:-1}                               # of the order of the theorems and all sampling
TRAIN_FILE=${TRAIN_FILE:-data/prover/train.parquet}   # verl-fgrpo proofs mathlib convert --source mff-lwb-10k-seen.parquet ...
VAL_FILE=${VAL_FILE:-data/prover/unseen.parquet}      # ... --source mff-lwb-unseen-200.parquet
OUT=${OUT:-outputs/prover/$CONDITION-gamma$FOCAL_GAMMA-seed$SEED}
PYTHON=${PYTHON:-python3}
DRY_RUN=${DRY_RUN:-0}
PREFLIGHT_ONLY=${PREFLIGHT_ONLY:-0}
PRINT_ARGUMENTS=${PRINT_ARGUMENTS:-0}
# -------------------------

source "$(dirname "${BASH_SOURCE[0]}")/shared/checks.sh"
check_names "${BASH_SOURCE[0]}"
check_switch DRY_RUN PREFLIGHT_ONLY PRINT_ARGUMENTS
check_number 'x >= 0' 0.5 FOCAL_GAMMA
check_number 'x > 0 && x < 1' 1e-6 LEARNING_RATE
check_whole 0 SEED
check_whole 1 PROBLEMS_PER_STEP MINI_BATCH EPOCHS MAX_PROMPT_LENGTH MAX_RESPONSE_LENGTH GPUS
check_whole 2 GROUP_SIZE # a group needs two rollouts to compare
[ "$UNSOUND" = 0 ] || end_checks
export RAY_ADDRESS=${RAY_ADDRESS:-local} # a Ray of its own, also where another cluster runs on the machine
PRESET=grpo PPO_EPOCHS=1 KL=0.02 BETA=()
case $CONDITION in # paper: PPO epochs, KL coefficient, beta
    default) ;;
    high_kl) KL=0.10 ;;
    epochs2) PPO_EPOCHS=2 KL=0.10 ;;
    unlikeliness1) PRESET=unlikeliness KL=0.10 BETA=(algorithm.unlikeliness_beta=0.25) ;;
    unlikeliness2) PRESET=unlikeliness PPO_EPOCHS=2 KL=0.10 BETA=(algorithm.unlikeliness_beta=0.25) ;;
    *) fault "CONDITION is '$CONDITION', but it must be default, high_kl, epochs2, unlikeliness1 or unlikeliness2" ;;
esac
[ $((PROBLEMS_PER_STEP % MINI_BATCH)) -eq 0 ] || fault "MINI_BATCH is '$MINI_BATCH', but it must divide PROBLEMS_PER_STEP=$PROBLEMS_PER_STEP"
end_checks
OUT=$(absolute "$OUT") TRAIN_FILE=$(absolute "$TRAIN_FILE") VAL_FILE=$(absolute "$VAL_FILE")

ARGUMENTS=(
    +focal="$PRESET" algorithm.focal_gamma="$FOCAL_GAMMA" ${BETA[@]+"${BETA[@]}"}
    data.train_files="$TRAIN_FILE" data.val_files="$VAL_FILE" data.seed="$SEED"
    data.train_batch_size="$PROBLEMS_PER_STEP" data.max_prompt_length="$MAX_PROMPT_LENGTH" data.max_response_length="$MAX_RESPONSE_LENGTH"
    data.filter_overlong_prompts=True
    actor_rollout_ref.model.path="$MODEL_PATH"
    # the prompt is the text itself, without turns of a chat
    "actor_rollout_ref.model.custom_chat_template='{% for message in messages %}{{ message[\"content\"] }}{% endfor %}'"
    actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.actor.fsdp_config.strategy=fsdp2
    actor_rollout_ref.actor.optim.lr="$LEARNING_RATE" actor_rollout_ref.actor.optim.lr_warmup_steps=0 # paper
    actor_rollout_ref.actor.optim.weight_decay=0.01                                                   # paper
    actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH" actor_rollout_ref.actor.ppo_epochs="$PPO_EPOCHS"
    actor_rollout_ref.actor.clip_ratio=0.2                                                            # paper
    actor_rollout_ref.actor.use_kl_loss=True actor_rollout_ref.actor.kl_loss_coef="$KL" actor_rollout_ref.actor.kl_loss_type=low_var_kl # paper
    actor_rollout_ref.actor.use_dynamic_bsz=True actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]"
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n="$GROUP_SIZE" actor_rollout_ref.rollout.temperature=1.0
    actor_rollout_ref.rollout.seed=$((1000 * SEED)) actor_rollout_ref.actor.data_loader_seed="$SEED" actor_rollout_ref.actor.fsdp_config.seed="$SEED"
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 actor_rollout_ref.rollout.gpu_memory_utilization=0.5
    reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.proofs.mathlib reward.custom_reward_function.name=compute_score
    reward.num_workers=1 # one pool of LEAN_WORKERS Lean processes
    trainer.total_epochs="$EPOCHS" trainer.save_freq=100 trainer.test_freq=-1 trainer.val_before_train=False
    trainer.nnodes=1 trainer.n_gpus_per_node="$GPUS" trainer.resume_mode=auto trainer.default_local_dir="$OUT"
    trainer.rollout_data_dir="$OUT/rollouts" trainer.project_name=prover trainer.experiment_name="$(basename "$OUT")"
    "trainer.logger=[console,tensorboard,file]"
)
quote_paths
ARGUMENTS+=("$@")
MODEL_BILLIONS=6.9 # from the model card; for the estimates only
if [ "$PRINT_ARGUMENTS" = 1 ]; then
    printf '%s\n' "${ARGUMENTS[@]}"
    exit
fi
if [ "$DRY_RUN" = 1 ]; then
    exec "$PYTHON" -m verl_fgrpo.cli preflight --billions "$MODEL_BILLIONS" dry-run "${ARGUMENTS[@]}"
fi
if [ "$PREFLIGHT_ONLY" = 1 ]; then
    exec "$PYTHON" -m verl_fgrpo.cli preflight --billions "$MODEL_BILLIONS" check "${ARGUMENTS[@]}"
fi
"$PYTHON" -m verl_fgrpo.cli proofs mathlib check # the toolchain, with one theorem
"$PYTHON" -m verl_fgrpo.cli preflight --billions "$MODEL_BILLIONS" start "${ARGUMENTS[@]}"
LOG=$OUT/logs/$(date +%Y%m%d-%H%M%S)
mkdir -p "$OUT/logs"
export VERL_FILE_LOGGER_PATH=$LOG.jsonl TENSORBOARD_DIR=${TENSORBOARD_DIR:-$OUT/tensorboard} PYTHONUNBUFFERED=1
"$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}" 2>&1 | tee "$LOG.log"

# pass@N from 512 samples of the unseen theorems, as in the paper
STEP=$("$PYTHON" -m verl_fgrpo.cli run-folder last-step "$OUT")
"$PYTHON" -m verl_fgrpo.cli eval sample --run "$OUT/eval" --model "$OUT/global_step_$STEP" --problems "${VAL_FILE%.parquet}.jsonl" \
    --num-samples 512 --max-tokens "$MAX_RESPONSE_LENGTH" --seed "$SEED" --preset none --backend vllm
LEAN_WORKERS=1 "$PYTHON" -m verl_fgrpo.cli eval grade --run "$OUT/eval" --workers 16 --seconds 400 --memory-mib 32768 --allow-code-execution
"$PYTHON" -m verl_fgrpo.cli eval report --runs "$CONDITION=$OUT/eval" --ks 1 8 32 128 512 --out "$OUT/report"
