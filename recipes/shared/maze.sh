# What the maze recipes share: mazes and start model, one verl run per arm, several side by side. Sourced after the
# adjustable block and setup_env; the recipe defines arm RUN, which sets PRESET, GAMMA and OVERRIDES of a run.

check_maze_settings() {
    local name
    [[ $FOCAL_GAMMA =~ ^[0-9]*\.?[0-9]+$ ]] || die "FOCAL_GAMMA is '$FOCAL_GAMMA', but it must be a number of at least 0, e.g. 0.5"
    for name in GROUP_SIZE MAZE_SIZE STEPS PROMPTS_PER_STEP SFT_STEPS TRAIN_MAZES HELDOUT_MAZES NUM_SAMPLES SUBSAMPLE SAVE_FREQ SIDE_BY_SIDE; do
        [[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "$name is '${!name}', but it must be a whole number of at least 1"
    done
    [ "$GROUP_SIZE" -ge 2 ] || die "GROUP_SIZE is '$GROUP_SIZE', but a group needs at least 2 rollouts to compare; the paper uses 8"
    [ "$SUBSAMPLE" -le "$NUM_SAMPLES" ] || die "SUBSAMPLE is '$SUBSAMPLE', but it must be at most NUM_SAMPLES=$NUM_SAMPLES"
    [[ $SEED =~ ^[0-9]+$ ]] || die "SEED is '$SEED', but it must be a whole number of at least 0"
    case $DEVICE in cpu | cuda) ;; *) die "DEVICE is '$DEVICE', but it must be cpu or cuda" ;; esac
}

# Quiet libraries, one thread per process (the arms share the cores), and verl's platform.
set_maze_environment() {
    export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg PYTHONUNBUFFERED=1
    export RAY_DEDUP_LOGS=0 RAY_USAGE_STATS_ENABLED=0 HF_HUB_DISABLE_PROGRESS_BARS=1
    if [ "$DEVICE" = cpu ]; then
        export VERL_PLATFORM=cpu
        PLATFORM=(+platform=cpu)
    else
        PLATFORM=(trainer.n_gpus_per_node=1 actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.gpu_memory_utilization=0.2)
    fi
}

prepare_mazes() {
    "$PYTHON" scripts/prepare_maze.py --out "$DATA" --size "$MAZE_SIZE" --train "$TRAIN_MAZES" --heldout "$HELDOUT_MAZES" \
        --sft-steps "$SFT_STEPS" --seed "$SEED" --device "$DEVICE"
    DATA=$(cd "$DATA" && pwd)
    read_lengths
}

# PROMPT_TOKENS and RESPONSE_TOKENS of the prepared folder DATA
read_lengths() {
    PROMPT_TOKENS=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["prompt_tokens"])' "$DATA/manifest.json")
    RESPONSE_TOKENS=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["response_limit"])' "$DATA/manifest.json")
}

# One arm: verl's own trainer. Further arguments of the recipe come last and win.
train() {
    local run=$1
    local log
    log=$run/logs/$(date +%Y%m%d-%H%M%S)
    export VERL_FILE_LOGGER_PATH=$log.jsonl
    exec >"$log.log" 2>&1
    set -x # the log begins with the exact command
    exec "$PYTHON" -m verl.trainer.main_ppo \
        +focal="$PRESET" "${PLATFORM[@]}" \
        algorithm.focal_gamma="$GAMMA" \
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
        reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.maze.rewards \
        reward.custom_reward_function.name=compute_score \
        trainer.total_training_steps="$STEPS" trainer.total_epochs=1000 \
        trainer.save_freq="$SAVE_FREQ" trainer.test_freq=-1 trainer.val_before_train=False \
        trainer.resume_mode=auto "trainer.default_local_dir=$run" \
        trainer.project_name=maze trainer.experiment_name="$(basename "$run")" \
        "trainer.logger=[console,file]" \
        ${OVERRIDES[@]+"${OVERRIDES[@]}"} ${EXTRA[@]+"${EXTRA[@]}"}
}

PIDS=()
trap 'for pid in ${PIDS[@]+"${PIDS[@]}"}; do kill "$pid" 2>/dev/null || true; done' EXIT

# Trains what is missing of the runs (absolute folders), SIDE_BY_SIDE at a time; ends with an error if one fails.
train_all() {
    local run watched=()
    for run in "$@"; do # all of them first: a refusal costs no training
        arm "$(basename "$run")"
        "$PYTHON" scripts/training_run.py claim "$run" preset="$PRESET" focal_gamma="$GAMMA" group_size="$GROUP_SIZE" \
            seed="$SEED" prompts_per_step="$PROMPTS_PER_STEP" learning_rate="$LEARNING_RATE" maze_size="$MAZE_SIZE" \
            overrides="${OVERRIDES[*]-}" extra="${EXTRA[*]-}"
    done
    for run in "$@"; do
        arm "$(basename "$run")"
        "$PYTHON" scripts/training_run.py stop-leftovers "$run"
        if [ "$("$PYTHON" scripts/training_run.py last-step "$run")" -ge "$STEPS" ]; then
            say "$(basename "$run"): all steps are done"
            continue
        fi
        mkdir -p "$run/logs"
        train "$run" &
        PIDS+=("$!")
        watched+=("$run=$!")
        if [ "${#watched[@]}" -ge "$SIDE_BY_SIDE" ]; then
            "$PYTHON" scripts/training_run.py watch --steps "$STEPS" "${watched[@]}"
            watched=() PIDS=()
        fi
    done
    [ "${#watched[@]}" -eq 0 ] || "$PYTHON" scripts/training_run.py watch --steps "$STEPS" "${watched[@]}"
}
