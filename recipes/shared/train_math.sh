# The math runs of arXiv 2602.06717 (Table 5, L.1-L.3). Sourced by the recipes after METHOD, FOCAL_GAMMA and
# a model; trains with verl's own main_ppo. Values are the paper's ("paper ...") or chosen by us ("ours: why").

# ---- user-adjustable ----
CONTROL=${CONTROL:-none}                      # none | low_lr | entropy | kl: the paper's control runs of the base method
GROUP_SIZE=${GROUP_SIZE:-8}                   # paper Table 5: N; its sweep: 2 4 8 16 32
SEED=${SEED:-1}                               # ours: the paper names none; order of the prompts, sampling
LEARNING_RATE=${LEARNING_RATE:-1e-6}          # paper Table 5
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}     # paper Table 5: prompts per step
MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-64}        # paper Table 5: prompts per optimiser step
EPOCHS=${EPOCHS:-10}                          # paper Table 5
TOTAL_STEPS=${TOTAL_STEPS:-}                  # ours: empty for all EPOCHS, else stop after so many steps
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-1024}  # paper Table 5: tokens
SAVE_FREQ=${SAVE_FREQ:-auto}                  # ours: steps between full states, of which the newest is kept; auto: 17, a ninth of an epoch
WEIGHTS_FREQ=${WEIGHTS_FREQ:-auto}            # paper L.3: steps between weights that are kept; auto: an epoch, or SAVE_FREQ if that is set
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-newest}  # ours: newest, and the weights above; null: every full state; a number: the newest so many, no weights
TEST_FREQ=${TEST_FREQ:-epoch}                 # paper L.3: checkpoints are compared by average math pass@1; -1: never
VAL_BEFORE_TRAIN=${VAL_BEFORE_TRAIN:-1}       # ours: the model before training is the reference point
VAL_N=${VAL_N:-4}                             # ours: samples per problem at a validation, so pass@k for k up to it; the paper's n=1024 is for the end
FILTER_GROUPS=${FILTER_GROUPS:-0}             # paper: none; 1: verl's filter_groups on acc
OVERLONG=${OVERLONG:-0}                       # paper: none; 1: verl's penalty in the last part of the limit
STOP_AT_TURN_END=${STOP_AT_TURN_END:-0}       # paper: not said; 1: Qwen base models also stop at <|im_end|> (a deviation)
DUMP_ROLLOUTS=${DUMP_ROLLOUTS:-0}             # ours: 1 writes every rollout to OUT/rollouts (about 20 GB a run of Qwen2.5-7B)
ROLLOUT=${ROLLOUT:-vllm}                      # ours: vllm | sglang (paper L.1: sglang; docs/gpu.md says what it needs)
NNODES=${NNODES:-1}                           # ours: paper L.1 uses 16 GPUs, NNODES=2 (docs/gpu.md)
GPUS_PER_NODE=${GPUS_PER_NODE:-8}             # ours: the usual node
ROLLOUT_TP=${ROLLOUT_TP:-1}                   # ours: weights of up to 8B in bf16 (16 GB) fit on one 80 GB card
ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.6}         # ours: 48 of 80 GB for weights and cache, beside 12 GB of state (docs/gpu.md)
ROLLOUT_SEQS=${ROLLOUT_SEQS:-256}             # ours: verl's default; sequences that an engine generates at a time
TOKENS_PER_GPU=${TOKENS_PER_GPU:-auto}        # ours: tokens of a micro-batch; auto: two full rollouts
REWARD_WORKERS=${REWARD_WORKERS:-16}          # ours: verl has 8, but long responses end together and cost up to a second each
OFFLOAD=${OFFLOAD:-0}                         # ours: 1 moves parameters and optimiser to the host between phases
DEVICE=${DEVICE:-cuda}                        # cuda | cpu: cpu only for tiny models and tests
LOGGER=${LOGGER:-[console,tensorboard,file]}  # ours: nothing leaves the machine; [console,wandb] works too
DATA_DIR=${DATA_DIR:-data/deepscaler-$PROMPT_PRESET}
TRAIN_FILE=${TRAIN_FILE:-$DATA_DIR/train.parquet}
VAL_FILE=${VAL_FILE:-$DATA_DIR/val.parquet}
PYTHON=${PYTHON:-python3}
DRY_RUN=${DRY_RUN:-0}                         # 1: the resolved configuration and what it would cost; starts nothing
PREFLIGHT_ONLY=${PREFLIGHT_ONLY:-0}           # 1: everything that would stop the run; starts nothing
PRINT_ARGUMENTS=${PRINT_ARGUMENTS:-0}         # 1: the arguments for verl, one a line
# -------------------------

{ set +x; } 2>/dev/null   # quiet, so that an error message is seen; the command itself is printed again
source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"

check_names "${BASH_SOURCE[@]}" "$(dirname "${BASH_SOURCE[0]}")"/model_*.sh
check_switch VAL_BEFORE_TRAIN FILTER_GROUPS OVERLONG STOP_AT_TURN_END DUMP_ROLLOUTS OFFLOAD DRY_RUN PREFLIGHT_ONLY PRINT_ARGUMENTS
check_choice METHOD grpo dapo cispo
check_choice CONTROL none low_lr entropy kl
check_choice ROLLOUT vllm sglang
check_choice DEVICE cuda cpu
if [ "$CONTROL" != none ]; then
    [ -z "${FOCAL_GAMMA:-}" ] || [[ $FOCAL_GAMMA =~ ^0*\.?0*$ ]] ||
        fault "FOCAL_GAMMA is '$FOCAL_GAMMA' and CONTROL is '$CONTROL', but a control is a run of the base method: unset one of them"
    FOCAL_GAMMA=0
fi
FOCAL_GAMMA=${FOCAL_GAMMA:-$PAPER_GAMMA}
check_number 'x >= 0' '0.5; 0 is the baseline' FOCAL_GAMMA
check_number 'x > 0 && x < 1' 1e-6 LEARNING_RATE
check_number 'x > 0 && x < 1' 0.6 ROLLOUT_MEMORY
check_whole 0 SEED
check_whole 1 TRAIN_BATCH_SIZE MINI_BATCH_SIZE EPOCHS MAX_PROMPT_LENGTH MAX_RESPONSE_LENGTH VAL_N NNODES GPUS_PER_NODE ROLLOUT_TP ROLLOUT_SEQS
check_whole 0 REWARD_WORKERS
check_whole 2 GROUP_SIZE   # a group needs two rollouts to compare
[ -z "$TOTAL_STEPS" ] || check_whole 1 TOTAL_STEPS
[ "$TEST_FREQ" = epoch ] || [ "$TEST_FREQ" = -1 ] || check_whole 1 TEST_FREQ
for name in SAVE_FREQ WEIGHTS_FREQ TOKENS_PER_GPU; do [ "${!name}" = auto ] || check_whole 1 "$name"; done
case $KEEP_CHECKPOINTS in newest | null) ;; *) check_whole 1 KEEP_CHECKPOINTS ;; esac
[ "$UNSOUND" = 0 ] || end_checks

WORLD_SIZE=$((NNODES * GPUS_PER_NODE))
[ "$SAVE_FREQ" = auto ] || [ "$WEIGHTS_FREQ" != auto ] || WEIGHTS_FREQ=$SAVE_FREQ
EPOCH_STEPS=$((39202 / TRAIN_BATCH_SIZE > 0 ? 39202 / TRAIN_BATCH_SIZE : 1))   # paper L.1: 39,202 problems, so 153 steps of 256
if [ "$SAVE_FREQ" = auto ]; then
    for parts in 9 10 8 7 6 5 4 3 2 1; do [ $((EPOCH_STEPS % parts)) -ne 0 ] || break; done
    SAVE_FREQ=$((EPOCH_STEPS / parts))
fi
[ "$WEIGHTS_FREQ" != auto ] || WEIGHTS_FREQ=$EPOCH_STEPS
[ "$TEST_FREQ" != epoch ] || TEST_FREQ=$EPOCH_STEPS
[ "$TOKENS_PER_GPU" != auto ] || TOKENS_PER_GPU=$((2 * (MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH)))
[ $((WEIGHTS_FREQ % SAVE_FREQ)) -eq 0 ] || fault "WEIGHTS_FREQ=$WEIGHTS_FREQ must be a multiple of SAVE_FREQ=$SAVE_FREQ, for weights are those of a checkpoint"
[ $((TRAIN_BATCH_SIZE % MINI_BATCH_SIZE)) -eq 0 ] || fault "TRAIN_BATCH_SIZE=$TRAIN_BATCH_SIZE must be a multiple of MINI_BATCH_SIZE=$MINI_BATCH_SIZE; the paper uses 256 and 64"
[ $((WORLD_SIZE % ROLLOUT_TP)) -eq 0 ] || fault "NNODES * GPUS_PER_NODE = $WORLD_SIZE must be a multiple of ROLLOUT_TP=$ROLLOUT_TP"
if [ "$DEVICE" = cuda ]; then
    [ $((MINI_BATCH_SIZE * GROUP_SIZE % WORLD_SIZE)) -eq 0 ] ||
        fault "MINI_BATCH_SIZE * GROUP_SIZE = $((MINI_BATCH_SIZE * GROUP_SIZE)) rollouts must be a multiple of NNODES * GPUS_PER_NODE = $WORLD_SIZE; change one of the four"
    [ "$TOKENS_PER_GPU" -ge $((MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH)) ] ||
        fault "TOKENS_PER_GPU is '$TOKENS_PER_GPU', but a micro-batch must hold a full rollout of MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH = $((MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH)) tokens"
    [ "$NNODES" = 1 ] || [ -n "${RAY_ADDRESS:-}" ] || [ "$DRY_RUN$PRINT_ARGUMENTS" != 00 ] ||
        fault "NNODES is '$NNODES', but RAY_ADDRESS names no cluster; start Ray on every node and set it (docs/gpu.md, More than one machine)"
else
    GPUS_PER_NODE=1
    [ "$FILTER_GROUPS" = 0 ] || fault "FILTER_GROUPS is '1', but DEVICE=cpu uses a sampler without group filtering; use DEVICE=cuda"
fi
[ "$STOP_AT_TURN_END" = 0 ] || [[ $MODEL_NAME == qwen* && $ROLLOUT == vllm ]] ||
    fault "STOP_AT_TURN_END is '1', but it is made for Qwen models and ROLLOUT=vllm; unset it"
end_checks
export RAY_ADDRESS=${RAY_ADDRESS:-local}      # a Ray of its own, also where another cluster runs on the machine

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
    actor_rollout_ref.actor.fsdp_config.seed="$SEED"
    actor_rollout_ref.actor.entropy_from_logits_with_chunking=True   # ours: else the entropy's copies of the logits are the peak of memory
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
    actor_rollout_ref.rollout.seed=$((1000 * SEED))               # ours: each engine adds its rank
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
    trainer.save_freq="$SAVE_FREQ"
    trainer.test_freq="$TEST_FREQ"                                # paper L.3
    trainer.val_before_train="$(python_bool "$VAL_BEFORE_TRAIN")"
    trainer.resume_mode=auto                                      # ours: rerun to resume
    trainer.default_local_dir="$OUT"
    trainer.validation_data_dir="$OUT/validation"
    trainer.project_name=f-grpo
    trainer.experiment_name="$RUN_NAME"
    trainer.logger="$LOGGER"
)
if [ "$KEEP_CHECKPOINTS" = newest ]; then
    TRAINER+=(
        trainer.checkpoint_callback_class=verl_fgrpo.runs.checkpoints.KeepNewestState
        +trainer.keep_weights_every="$WEIGHTS_FREQ"               # paper L.3: a checkpoint per epoch, the best is chosen afterwards
        trainer.max_actor_ckpt_to_keep=null
    )
else
    TRAINER+=(trainer.max_actor_ckpt_to_keep="$KEEP_CHECKPOINTS")
fi
[ "$DUMP_ROLLOUTS" = 0 ] || TRAINER+=(trainer.rollout_data_dir="$OUT/rollouts")
if [ "$DEVICE" = cpu ]; then
    PLATFORM=(+platform=cpu trainer.nnodes="$NNODES" +ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM=cpu)
    export VERL_PLATFORM=cpu
    if [ "$RAY_ADDRESS" != local ]; then   # a cluster has resources of its own
        PLATFORM+=(ray_kwargs.ray_init.{num_cpus,num_gpus,object_store_memory,_system_config}=null)
    fi
else
    PLATFORM=(
        trainer.nnodes="$NNODES"
        trainer.n_gpus_per_node="$GPUS_PER_NODE"
        actor_rollout_ref.model.use_remove_padding=True                     # ours: no compute on padding
        actor_rollout_ref.model.enable_gradient_checkpointing=True          # ours: activations of 18k tokens would not fit
        actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$TOKENS_PER_GPU"
        actor_rollout_ref.actor.fsdp_config.param_offload="$(python_bool "$OFFLOAD")"
        actor_rollout_ref.actor.fsdp_config.optimizer_offload="$(python_bool "$OFFLOAD")"
        actor_rollout_ref.ref.fsdp_config.param_offload=True                # ours: only the KL control has a reference model
        actor_rollout_ref.rollout.name="$ROLLOUT"
        actor_rollout_ref.rollout.tensor_model_parallel_size="$ROLLOUT_TP"
        actor_rollout_ref.rollout.gpu_memory_utilization="$ROLLOUT_MEMORY"
        actor_rollout_ref.rollout.max_model_len=$((MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH))   # ours: else the model's 131,072, one sequence of which the cache must hold
        actor_rollout_ref.rollout.max_num_seqs="$ROLLOUT_SEQS"
        actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=4096      # ours: fp32 embeddings of 152,064 x 3,584 exceed verl's 2,048
        reward.num_workers="$REWARD_WORKERS"
        actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=$((2 * TOKENS_PER_GPU))   # ours: no gradients, twice the tokens
    )
fi
if [ "$STOP_AT_TURN_END" = 1 ]; then
    # vLLM stops at the ids of the generation_config.json that it is given: <|endoftext|> and <|im_end|>
    PLATFORM+=(+actor_rollout_ref.rollout.engine_kwargs.vllm.generation_config="$OUT/stop")
fi
# Ray's workers log where the user looks, also those of a cluster that was started elsewhere
LOG=$OUT/logs/$(date +%Y%m%d-%H%M%S)
TENSORBOARD_DIR=${TENSORBOARD_DIR:-$OUT/tensorboard}
WORKERS=(
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="$LOG.jsonl"
    +ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR="$TENSORBOARD_DIR"
)
# later arguments win, so those of the command line come last
ARGUMENTS=(
    "${ALGORITHM[@]}" "${DATA[@]}" "${MODEL[@]}" "${ACTOR[@]}" "${ROLLOUTS[@]}" "${REWARD[@]}" "${TRAINER[@]}" "${PLATFORM[@]}"
    "${WORKERS[@]}"
)
quote_paths
ARGUMENTS+=("$@")

if [ "$PRINT_ARGUMENTS" = 1 ]; then
    printf '%s\n' "${ARGUMENTS[@]}"
    exit
fi
preflight() {
    "$PYTHON" -m verl_fgrpo.cli preflight --billions "$MODEL_BILLIONS" --samples "${EVAL_SAMPLES:-1024}" "$1" "${ARGUMENTS[@]}"
}
if [ "$DRY_RUN" = 1 ]; then preflight dry-run; exit; fi
if [ "$PREFLIGHT_ONLY" = 1 ]; then preflight check; exit; fi
preflight start
mkdir -p "$OUT/logs"
if [ "$STOP_AT_TURN_END" = 1 ]; then
    mkdir -p "$OUT/stop"
    printf '{"eos_token_id": [151643, 151645]}\n' >"$OUT/stop/generation_config.json"
fi
export PYTHONUNBUFFERED=1
{ set -x; "$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}"; } 2>&1 | tee "$LOG.log"
if [ "$TEST_FREQ" != -1 ] || [ "$VAL_BEFORE_TRAIN" = 1 ]; then
    # with intervals, to OUT/passk.csv; while it trains, verl's own log has val-passk/BENCHMARK/pass@K
    "$PYTHON" -m verl_fgrpo.cli val-passk "$OUT" 2>&1 | tee -a "$LOG.log" || true
fi
