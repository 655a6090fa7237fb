# What recipes of small tasks share: mazes and start model, one verl run per arm, several side by side. Sourced after the
# adjustable block and setup_env; the recipe defines arm RUN, which sets PRESET, GAMMA and OVERRIDES of a run. A recipe of
# another task than mazes sets TASK (a folder of verl_fgrpo/tasks) and task_setting (noted with every run).
TASK=maze
task_setting() { printf 'maze_size=%s' "$MAZE_SIZE"; }

source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"

check_maze_settings() {
    check_number 'x >= 0' 0.5 FOCAL_GAMMA
    check_number 'x > 0 && x < 1' 1e-4 LEARNING_RATE
    check_whole 0 SEED
    check_whole 1 STEPS PROMPTS_PER_STEP SFT_STEPS TRAIN_MAZES HELDOUT_MAZES NUM_SAMPLES SUBSAMPLE SAVE_FREQ SIDE_BY_SIDE
    check_whole 2 GROUP_SIZE # a group needs two rollouts to compare
    check_choice DEVICE cpu cuda
    [[ $MAZE_SIZE =~ ^([3579]|[1-5][13579]|6[13])$ ]] || fault "MAZE_SIZE is '$MAZE_SIZE', but it must be odd and at most 63 (and at least 3), for cells and walls alternate; the paper has 17"
    [[ ! $SUBSAMPLE:$NUM_SAMPLES =~ ^[0-9]{1,12}:[0-9]{1,12}$ ]] || [ "$SUBSAMPLE" -le "$NUM_SAMPLES" ] || fault "SUBSAMPLE is '$SUBSAMPLE', but it must be at most NUM_SAMPLES=$NUM_SAMPLES"
}

# On a GPU the environment is the user's (scripts/setup_gpu.sh): nothing is installed into it.
choose_python() { if [ "$DEVICE" = cuda ]; then export PYTHON=${PYTHON:-python3}; else setup_env; fi; }

# Quiet libraries, one thread per process (the arms share the cores), verl's platform, and absolute paths.
set_maze_environment() {
    local name
    for name in OUT DATA DATA_PREFIX RESULTS MODEL; do [ -z "${!name:-}" ] || printf -v "$name" %s "$(absolute "${!name}")"; done
    export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg PYTHONUNBUFFERED=1
    export RAY_DEDUP_LOGS=0 RAY_USAGE_STATS_ENABLED=0 HF_HUB_DISABLE_PROGRESS_BARS=1
    export RAY_ADDRESS=${RAY_ADDRESS:-local} # a Ray of its own, also where another cluster runs on the machine
    if [ "$DEVICE" = cpu ]; then
        export VERL_PLATFORM=cpu
        PLATFORM=(+platform=cpu)
    else
        PLATFORM=(+platform=one_gpu)
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

# ARGUMENTS of an arm for verl's own trainer. Further arguments of the recipe come last and win.
set_arguments() {
    local run=$1
    ARGUMENTS=(
        +focal="$PRESET" "${PLATFORM[@]}"
        algorithm.focal_gamma="$GAMMA"
        data.train_files="$DATA/train.parquet" data.val_files="$DATA/val.parquet"
        data.train_batch_size="$PROMPTS_PER_STEP" data.seed="$SEED"
        data.max_prompt_length="$PROMPT_TOKENS" data.max_response_length="$RESPONSE_TOKENS"
        actor_rollout_ref.model.path="$DATA/start_model"
        actor_rollout_ref.actor.optim.lr="$LEARNING_RATE"
        actor_rollout_ref.actor.ppo_mini_batch_size="$PROMPTS_PER_STEP"
        actor_rollout_ref.actor.data_loader_seed="$SEED" actor_rollout_ref.actor.fsdp_config.seed="$SEED"
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]"
        actor_rollout_ref.rollout.n="$GROUP_SIZE" actor_rollout_ref.rollout.seed="$SEED"
        actor_rollout_ref.rollout.temperature=1.0 actor_rollout_ref.rollout.top_p=1.0 actor_rollout_ref.rollout.top_k=-1
        reward.custom_reward_function.path="pkg://verl_fgrpo.tasks.$TASK.rewards"
        reward.custom_reward_function.name=compute_score
        trainer.total_training_steps="$STEPS" trainer.total_epochs=1000
        trainer.save_freq="$SAVE_FREQ" trainer.test_freq=-1 trainer.val_before_train=False
        trainer.resume_mode=auto "trainer.default_local_dir=$run"
        trainer.project_name="$TASK" trainer.experiment_name="$(basename "$run")"
        "trainer.logger=[console,file]"
        ${OVERRIDES[@]+"${OVERRIDES[@]}"}
    )
    quote_paths
    ARGUMENTS+=(${EXTRA[@]+"${EXTRA[@]}"})
}

# What verl's configuration refuses, or what cannot be meant, before mazes are made: check_configuration RUN
check_configuration() {
    local PROMPT_TOKENS=1 RESPONSE_TOKENS=1 # of mazes that are not made yet
    arm "$(basename "$1")"
    set_arguments "$1"
    "$PYTHON" -m verl_fgrpo.cli preflight compose "${ARGUMENTS[@]}"
}

train() {
    local run=$1
    local log
    log=$run/logs/$(date +%Y%m%d-%H%M%S)
    export VERL_FILE_LOGGER_PATH=$log.jsonl
    exec >"$log.log" 2>&1
    set_arguments "$run"
    set -x # the log begins with the exact command
    exec "$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}"
}

# The resolved configuration of an arm, as Hydra prints it, in a file that is committed: save_configuration RUN FILE
save_configuration() {
    [ ! -e "$2" ] || return 0
    arm "$(basename "$1")"
    set_arguments "$1"
    mkdir -p "$(dirname "$2")"
    configuration=$("$PYTHON" -m verl.trainer.main_ppo "${ARGUMENTS[@]}" --cfg job --resolve 2>/dev/null)
    printf '%s\n' "${configuration//"$PWD/"/}" >"$2.part"
    mv "$2.part" "$2"
}

PIDS=()
trap 'for pid in ${PIDS[@]+"${PIDS[@]}"}; do kill "$pid" 2>/dev/null || true; done' EXIT

# Trains what is missing of the runs (absolute folders), SIDE_BY_SIDE at a time; ends with an error if one fails.
train_all() {
    local run watched=()
    for run in "$@"; do # all of them first: a refusal costs no training
        arm "$(basename "$run")"
        "$PYTHON" scripts/training_run.py claim "$run" preset="$PRESET" focal_gamma="$GAMMA" group_size="$GROUP_SIZE" \
            seed="$SEED" prompts_per_step="$PROMPTS_PER_STEP" learning_rate="$LEARNING_RATE" "$(task_setting)" \
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
