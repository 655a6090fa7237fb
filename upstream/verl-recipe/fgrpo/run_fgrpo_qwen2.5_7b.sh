#!/usr/bin/env bash
# F-GRPO on Qwen2.5-7B with the settings of arXiv 2602.06717 (Table 5, App. B): FSDP2, vLLM, 2 nodes x 8 GPUs of 80 GB.
#   bash recipe/fgrpo/run_fgrpo_qwen2.5_7b.sh                   F-GRPO, gamma 0.5
#   FOCAL_GAMMA=0 bash recipe/fgrpo/run_fgrpo_qwen2.5_7b.sh     the GRPO baseline, bit for bit verl's own estimator
#   METHOD=dapo (or cispo) bash recipe/fgrpo/run_fgrpo_qwen2.5_7b.sh
set -xeuo pipefail

METHOD=${METHOD:-grpo}                       # grpo, dapo, cispo: clip bounds and aggregation of the preset
FOCAL_GAMMA=${FOCAL_GAMMA:-0.5}
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B}
TRAIN_FILE=${TRAIN_FILE:-data/deepscaler-qwen2.5/train.parquet}
VAL_FILE=${VAL_FILE:-data/deepscaler-qwen2.5/val.parquet}
NNODES=${NNODES:-2}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
OUT=${OUT:-outputs/fgrpo/$METHOD-gamma$FOCAL_GAMMA}

python3 -m verl.trainer.main_ppo \
    +focal="$METHOD" \
    algorithm.focal_gamma="$FOCAL_GAMMA" \
    data.train_files="$TRAIN_FILE" \
    data.val_files="$VAL_FILE" \
    data.train_batch_size=256 \
    data.max_prompt_length=1024 \
    data.max_response_length=8192 \
    data.truncation=error \
    actor_rollout_ref.model.path="$MODEL_PATH" \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.fsdp_config.strategy=fsdp2 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.optim.lr_warmup_steps=15 \
    actor_rollout_ref.actor.optim.weight_decay=0.01 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=18432 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.val_kwargs.do_sample=True \
    actor_rollout_ref.rollout.val_kwargs.n=4 \
    reward.custom_reward_function.path=pkg://verl_fgrpo.rewards \
    reward.custom_reward_function.name=compute_score \
    trainer.total_epochs=10 \
    trainer.save_freq=153 \
    trainer.test_freq=153 \
    trainer.nnodes="$NNODES" \
    trainer.n_gpus_per_node="$GPUS_PER_NODE" \
    trainer.default_local_dir="$OUT" \
    trainer.validation_data_dir="$OUT/validation" \
    trainer.project_name=f-grpo \
    trainer.experiment_name="$METHOD-gamma$FOCAL_GAMMA" \
    trainer.logger='[console,tensorboard]' \
    "$@"
