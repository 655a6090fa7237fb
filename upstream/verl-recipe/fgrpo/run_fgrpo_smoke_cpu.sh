#!/usr/bin/env bash
# Does it work here? Two steps of F-GRPO on a CPU: mazes, a model of 0.4M parameters, nothing to download.
#   bash recipe/fgrpo/run_fgrpo_smoke_cpu.sh [verl overrides]
set -xeuo pipefail

DATA=${DATA:-$PWD/outputs/fgrpo/mazes}
OUT=${OUT:-$PWD/outputs/fgrpo/smoke}

verl-fgrpo maze prepare --out "$DATA" --size 7 --train 1500 --heldout 8 --sft-steps 250 --seed 3
length() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$DATA/manifest.json" "$1"; }
export VERL_PLATFORM=cpu
python3 -m verl.trainer.main_ppo \
    +platform=cpu \
    +focal=grpo \
    algorithm.focal_gamma=1.0 \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/val.parquet" \
    data.train_batch_size=8 \
    data.max_prompt_length="$(length prompt_tokens)" \
    data.max_response_length="$(length response_limit)" \
    actor_rollout_ref.model.path="$DATA/start_model" \
    actor_rollout_ref.actor.optim.lr=1e-4 \
    actor_rollout_ref.actor.ppo_mini_batch_size=8 \
    actor_rollout_ref.rollout.n=8 \
    reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.maze.rewards \
    reward.custom_reward_function.name=compute_score \
    trainer.total_training_steps=2 \
    trainer.val_before_train=False \
    trainer.test_freq=-1 \
    trainer.save_freq=-1 \
    trainer.default_local_dir="$OUT" \
    trainer.rollout_data_dir="$OUT/rollouts" \
    trainer.logger='[console]' \
    "$@"
