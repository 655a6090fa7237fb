# The math runs of arXiv 2602.06717 (Table 5, L.1-L.3). Sourced by the recipes after METHOD, FOCAL_GAMMA and
# a model; trains with verl's own main_ppo. Values are the paper's ("paper ...") or chosen by us ("ours: why").

# ---- user-adjustable ----
CONTROL=${CONTROL:-none}                      # none | low_lr | entropy | kl: the paper's control runs of the base method
GROUP_SIZE=${GROUP_SIZE:-8}                   # paper Table 5: N; its sweep: 2 4 8 16 32
SEED=${SEED:-1}                               # ours: the paper names none; order of the prompts
LEARNING_RATE=${LEARNING_RATE:-1e-6}          # paper Table 5
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}     # paper Table 5: prompts per step
MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-64}        # paper Table 5: prompts per optimiser step
EPOCHS=${EPOCHS:-10}                          # paper Table 5
TOTAL_STEPS=${TOTAL_STEPS:-}                  # ours: empty for all EPOCHS, else stop after so many steps
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-1024}  # paper Table 5: tokens
SAVE_FREQ=${SAVE_FREQ:-epoch}                 # paper L.3: a checkpoint per epoch; a number: every so many steps
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-null}    # paper L.3: all of them, the best is chosen afterwards
TEST_FREQ=${TEST_FREQ:-epoch}                 # paper L.3: checkpoints are compared by average math pass@1; -1: never
VAL_BEFORE_TRAIN=${VAL_BEFORE_TRAIN:-True}    # ours: the model before training is the reference point
VAL_N=${VAL_N:-4}                             # ours: samples per problem at a validation, so pass@k for k up to it; the paper's n=1024 is for the end
FILTER_GROUPS=${FILTER_GROUPS:-0}             # paper: none; 1: verl's filter_groups on acc
OVERLONG=${OVERLONG:-0}                       # paper: none; 1: verl's penalty in the last part of the limit
DUMP_ROLLOUTS=${DUMP_ROLLOUTS:-0}             # ours: 1 writes every rollout to OUT/rollouts (about 20 GB a run of Qwen2.5-7B)
ROLLOUT=${ROLLOUT:-vllm}                      # ours: vllm | sglang (paper L.1: sglang)
NNODES=${NNODES:-1}                           # ours: paper L.1 uses 16 GPUs, NNODES=2
GPUS_PER_NODE=${GPUS_PER_NODE:-8}             # ours: the usual node
ROLLOUT_TP=${ROLLOUT_TP:-1}                   # ours: weights of up to 8B in bf16 (16 GB) fit on one 80 GB card
ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.6}         # ours: 48 of 80 GB for weights and cache, beside 12 GB of state (README.md)
OFFLOAD=${OFFLOAD:-False}                     # ours: True moves parameters and optimiser to the host between phases
DEVICE=${DEVICE:-cuda}                        # cuda | cpu: cpu only for tiny models and tests
LOGGER=${LOGGER:-[console,tensorboard,file]}  # ours: nothing leaves the machine; [console,wandb] works too
DATA_DIR=${DATA_DIR:-data/deepscaler-$PROMPT_PRESET}
TRAIN_FILE=${TRAIN_FILE:-$DATA_DIR/train.parquet}
VAL_FILE=${VAL_FILE:-$DATA_DIR/val.parquet}
PYTHON=${PYTHON:-python3}
# -------------------------

{ set +x; } 2>/dev/null   # quiet, so that an error message is seen; the command itself is printed again
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# Ray workers have working directories of their own, so files are named by absolute paths.
absolute() { case $1 in /* | *://*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }

case $METHOD in grpo | dapo | cispo) ;; *) die "METHOD is '$METHOD', but it must be grpo, dapo or cispo" ;; esac
case $CONTROL in none | low_lr | entropy | kl) ;; *) die "CONTROL is '$CONTROL', but it must be none, low_lr, entropy or kl" ;; esac
if [ "$CONTROL" != none ]; then
    [ -z "${FOCAL_GAMMA:-}" ] || [[ $FOCAL_GAMMA =~ ^0*\.?0*$ ]] ||
        die "FOCAL_GAMMA is '$FOCAL_GAMMA' and CONTROL is '$CONTROL', but a control is a run of the base method: unset one of them"
    FOCAL_GAMMA=0
fi
FOCAL_GAMMA=${FOCAL_GAMMA:-$PAPER_GAMMA}
[[ $FOCAL_GAMMA =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)$ ]] || die "FOCAL_GAMMA is '$FOCAL_GAMMA', but it must be a number of at least 0, e.g. 0.5; 0 is the baseline"
for name in GROUP_SIZE TRAIN_BATCH_SIZE MINI_BATCH_SIZE EPOCHS MAX_PROMPT_LENGTH MAX_RESPONSE_LENGTH VAL_N NNODES GPUS_PER_NODE ROLLOUT_TP; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "$name is '${!name}', but it must be a whole number of at least 1"
done
[[ $TOTAL_STEPS =~ ^([1-9][0-9]*)?$ ]] || die "TOTAL_STEPS is '$TOTAL_STEPS', but it must be empty or a whole number of at least 1"
[ "$SAVE_FREQ" != epoch ] || SAVE_FREQ=$((39202 / TRAIN_BATCH_SIZE > 0 ? 39202 / TRAIN_BATCH_SIZE : 1))   # paper L.1: 39,202 problems, so 153 steps of 256
[ "$TEST_FREQ" != epoch ] || TEST_FREQ=$((39202 / TRAIN_BATCH_SIZE > 0 ? 39202 / TRAIN_BATCH_SIZE : 1))
[[ $SAVE_FREQ =~ ^[1-9][0-9]*$ ]] || die "SAVE_FREQ is '$SAVE_FREQ', but it must be epoch or a whole number of at least 1"
[[ $TEST_FREQ =~ ^(-1|[1-9][0-9]*)$ ]] || die "TEST_FREQ is '$TEST_FREQ', but it must be epoch, -1 (never) or a whole number of at least 1"
[[ $KEEP_CHECKPOINTS =~ ^(null|[1-9][0-9]*)$ ]] || die "KEEP_CHECKPOINTS is '$KEEP_CHECKPOINTS', but it must be null (all) or a whole number of at least 1"
[[ $SEED =~ ^[0-9]+$ ]] || die "SEED is '$SEED', but it must be a whole number of at least 0"
[[ $LEARNING_RATE =~ ^[0-9]*\.?[0-9]+([eE]-?[0-9]+)?$ ]] || die "LEARNING_RATE is '$LEARNING_RATE', but it must be a positive number, e.g. 1e-6"
[[ $ROLLOUT_MEMORY =~ ^0?\.[0-9]+$ ]] || die "ROLLOUT_MEMORY is '$ROLLOUT_MEMORY', but it must be a share of the GPU's memory between 0 and 1, e.g. 0.6"
[ "$GROUP_SIZE" -ge 2 ] || die "GROUP_SIZE is '$GROUP_SIZE', but a group needs at least 2 rollouts to compare; the paper uses 8"
[ $((TRAIN_BATCH_SIZE % MINI_BATCH_SIZE)) -eq 0 ] || die "TRAIN_BATCH_SIZE=$TRAIN_BATCH_SIZE must be a multiple of MINI_BATCH_SIZE=$MINI_BATCH_SIZE; the paper uses 256 and 64"
[ $((GPUS_PER_NODE * NNODES % ROLLOUT_TP)) -eq 0 ] || die "NNODES * GPUS_PER_NODE = $((GPUS_PER_NODE * NNODES)) must be a multiple of ROLLOUT_TP=$ROLLOUT_TP"
for name in FILTER_GROUPS OVERLONG DUMP_ROLLOUTS; do
    case ${!name} in 0 | 1) ;; *) die "$name is '${!name}', but it must be 0 or 1" ;; esac
done
for name in OFFLOAD VAL_BEFORE_TRAIN; do
    case ${!name} in True | False) ;; *) die "$name is '${!name}', but it must be True or False" ;; esac
done
case $ROLLOUT in vllm | sglang) ;; *) die "ROLLOUT is '$ROLLOUT', but it must be vllm or sglang" ;; esac
case $DEVICE in cuda | cpu) ;; *) die "DEVICE is '$DEVICE', but it must be cuda or cpu" ;; esac
[ "$DEVICE" = cuda ] || [ "$FILTER_GROUPS" = 0 ] || die "FILTER_GROUPS is '1', but DEVICE=cpu uses a sampler without group filtering; use DEVICE=cuda"

RUN_NAME=$MODEL_NAME-$METHOD-n$GROUP_SIZE-gamma$FOCAL_GAMMA-$CONTROL-seed$SEED
OUT=$(absolute "${OUT:-outputs/math/$RUN_NAME}")
TRAIN_FILE=$(absolute "$TRAIN_FILE")
VAL_FILE=$(absolute "$VAL_FILE")
ENTROPY_COEFF=0                               # paper App. B
KL_LOSS=False                                 # paper App. B
SUCCESS_THRESHOLD=0.5                         # ours: between the paper's rewards 0.0 and 1.0
case $CONTROL in
    low_lr)   # paper App. N: the learning rate times the average focal weight m(gamma) of the run it is compared with; 6.8e-7
        LEARNING_RATE=$("$PYTHON" -c 'import sys; from verl_fgrpo.core.focal import update_scale; print(f"{float(sys.argv[1]) * update_scale(float(sys.argv[2])):.2g}")' "$LEARNING_RATE" "$PAPER_GAMMA") ;;
    entropy) ENTROPY_COEFF=0.001 ;;           # paper: its entropy control
    kl) KL_LOSS=True ;;                       # paper: its KL control; coefficient below
esac

ALGORITHM=(
    +focal="$METHOD"                                              # paper App. B: clip bounds, aggregation, no KL
    algorithm.focal_gamma="$FOCAL_GAMMA"                          # paper Table 5
)
DATA=(
    data.train_files="$TRAIN_FILE"
    data.val_files="$VAL_FILE"
    data.train_batch_size="$TRAIN_BATCH_SIZE"                     # paper Table 5
    data.max_prompt_length="$MAX_PROMPT_LENGTH"                   # paper Table 5
    data.max_response_length="$MAX_RESPONSE_LENGTH"               # paper Table 5
    data.filter_overlong_prompts=False                            # ours: scripts/prepare_data.py has done it once
    data.truncation=error                                         # ours: a prompt over the limit is a mistake in the data
    data.shuffle=True                                             # ours: the paper does not say
    data.seed="$SEED"
    ${CHAT_TEMPLATE[@]+"${CHAT_TEMPLATE[@]}"}                     # paper Table 9
)
MODEL=(
    actor_rollout_ref.model.path="$MODEL_PATH"                    # paper Table 5
)
ACTOR=(
    actor_rollout_ref.actor.strategy=fsdp2                        # paper L.1
    actor_rollout_ref.actor.fsdp_config.strategy=fsdp2            # paper L.1
    actor_rollout_ref.actor.optim.lr="$LEARNING_RATE"             # paper Table 5
    actor_rollout_ref.actor.optim.lr_scheduler_type=constant      # paper Table 5
    actor_rollout_ref.actor.optim.lr_warmup_steps=15              # paper Table 5
    actor_rollout_ref.actor.optim.betas='[0.9,0.999]'             # paper Table 5
    actor_rollout_ref.actor.optim.weight_decay=0.01               # paper Table 5
    actor_rollout_ref.actor.optim.clip_grad=1.0                   # paper Table 5
    actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH_SIZE"   # paper Table 5
    actor_rollout_ref.actor.data_loader_seed="$SEED"
    actor_rollout_ref.actor.entropy_coeff="$ENTROPY_COEFF"        # paper App. B
    actor_rollout_ref.actor.use_kl_loss="$KL_LOSS"                # paper App. B
    actor_rollout_ref.actor.use_dynamic_bsz=True                  # ours: micro-batches by tokens, no padding
    actor_rollout_ref.actor.checkpoint.save_contents='[model,optimizer,extra,hf_model]'   # ours: hf_model is what the evaluation loads
)
if [ "$CONTROL" = kl ]; then
    ACTOR+=(
        actor_rollout_ref.actor.kl_loss_coef=0.001                # paper: its KL control
        actor_rollout_ref.actor.kl_loss_type=low_var_kl           # ours: verl's default; the paper does not say
    )
fi
ROLLOUTS=(
    actor_rollout_ref.rollout.n="$GROUP_SIZE"                     # paper Table 5
    actor_rollout_ref.rollout.temperature=1.0                     # paper Table 5
    actor_rollout_ref.rollout.top_p=1.0                           # paper Table 5
    actor_rollout_ref.rollout.top_k=-1                            # paper Table 5
    actor_rollout_ref.rollout.val_kwargs.do_sample=True           # paper L.4
    actor_rollout_ref.rollout.val_kwargs.temperature=1.0          # paper L.4
    actor_rollout_ref.rollout.val_kwargs.top_p=1.0                # paper L.4
    actor_rollout_ref.rollout.val_kwargs.top_k=-1                 # paper L.4
    actor_rollout_ref.rollout.val_kwargs.n="$VAL_N"
)
REWARD=(
    reward.custom_reward_function.path=pkg://verl_fgrpo.rewards   # paper L.1: math-verify, 1.0 / 0.0
    reward.custom_reward_function.name=compute_score
)
if [ "$OVERLONG" = 1 ]; then
    SUCCESS_THRESHOLD=0.0                     # ours: with the penalty, correct answers score above 0 and wrong ones at most 0
    REWARD+=(
        reward.reward_manager.name=dapo
        +reward.reward_kwargs.max_resp_len="$MAX_RESPONSE_LENGTH"
        +reward.reward_kwargs.overlong_buffer_cfg.enable=True
        +reward.reward_kwargs.overlong_buffer_cfg.len=$((MAX_RESPONSE_LENGTH / 4))   # ours: DAPO (arXiv 2503.14476) takes a fifth
        +reward.reward_kwargs.overlong_buffer_cfg.penalty_factor=1.0                 # ours: as DAPO
        +reward.reward_kwargs.overlong_buffer_cfg.log=True
    )
fi
ALGORITHM+=(algorithm.focal_success_threshold="$SUCCESS_THRESHOLD")
if [ "$FILTER_GROUPS" = 1 ]; then
    ALGORITHM+=(
        algorithm.filter_groups.enable=True
        algorithm.filter_groups.metric=acc                        # ours: acc tells success, also with overlong shaping
    )
fi
TRAINER=(
    trainer.total_epochs="$EPOCHS"                                # paper Table 5
    trainer.total_training_steps="${TOTAL_STEPS:-null}"
    trainer.save_freq="$SAVE_FREQ"                                # paper L.3
    trainer.test_freq="$TEST_FREQ"                                # paper L.3
    trainer.val_before_train="$VAL_BEFORE_TRAIN"
    trainer.max_actor_ckpt_to_keep="$KEEP_CHECKPOINTS"
    trainer.resume_mode=auto
    trainer.default_local_dir="$OUT"
    trainer.validation_data_dir="$OUT/validation"
    trainer.project_name=f-grpo
    trainer.experiment_name="$RUN_NAME"
    trainer.logger="$LOGGER"
)
[ "$DUMP_ROLLOUTS" = 0 ] || TRAINER+=(trainer.rollout_data_dir="$OUT/rollouts")
if [ "$DEVICE" = cpu ]; then
    PLATFORM=(+platform=cpu)
    export VERL_PLATFORM=cpu
else
    TOKENS_PER_GPU=$((2 * (MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH)))   # ours: two full rollouts a micro-batch
    PLATFORM=(
        trainer.nnodes="$NNODES"
        trainer.n_gpus_per_node="$GPUS_PER_NODE"
        actor_rollout_ref.model.use_remove_padding=True
        actor_rollout_ref.model.enable_gradient_checkpointing=True          # ours: activations of 18k tokens would not fit
        actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$TOKENS_PER_GPU"
        actor_rollout_ref.actor.fsdp_config.param_offload="$OFFLOAD"
        actor_rollout_ref.actor.fsdp_config.optimizer_offload="$OFFLOAD"
        actor_rollout_ref.ref.fsdp_config.param_offload=True                # ours: only the KL control has a reference model
        actor_rollout_ref.rollout.name="$ROLLOUT"
        actor_rollout_ref.rollout.tensor_model_parallel_size="$ROLLOUT_TP"
        actor_rollout_ref.rollout.gpu_memory_utilization="$ROLLOUT_MEMORY"
        actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=$((2 * TOKENS_PER_GPU))   # ours: no gradients, twice the tokens
    )
fi
# later arguments win, so those of the command line come last
ARGUMENTS=("${ALGORITHM[@]}" "${DATA[@]}" "${MODEL[@]}" "${ACTOR[@]}" "${ROLLOUTS[@]}" "${REWARD[@]}" "${TRAINER[@]}" "${PLATFORM[@]}" "$@")

if [ "${PRINT_ARGUMENTS:-0}" = 1 ]; then
    printf '%s\n' "${ARGUMENTS[@]}"
    exit
fi
if [ "${DRY_RUN:-0}" = 1 ]; then
    exec "$PYTHON" -m verl_fgrpo.cli preflight --billions "$MODEL_BILLIONS" dry-run "${ARGUMENTS[@]}"
fi
"$PYTHON" -m verl_fgrpo.cli preflight --billions "$MODEL_BILLIONS" start "${ARGUMENTS[@]}"
LOG=$OUT/logs/$(date +%Y%m%d-%H%M%S)
mkdir -p "$OUT/logs"
export VERL_FILE_LOGGER_PATH=$LOG.jsonl
export TENSORBOARD_DIR=${TENSORBOARD_DIR:-$OUT/tensorboard}
export PYTHONUNBUFFERED=1
{ set -x; "$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}"; } 2>&1 | tee "$LOG.log"
if [ "$TEST_FREQ" != -1 ] || [ "$VAL_BEFORE_TRAIN" = True ]; then
    # with intervals, to OUT/passk.csv; while it trains, verl's own log has val-passk/BENCHMARK/pass@K
    "$PYTHON" -m verl_fgrpo.cli val-passk "$OUT" 2>&1 | tee -a "$LOG.log" || true
fi
