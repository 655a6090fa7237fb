"""verl's own trainer on CPU: two data-parallel workers, checkpoint, resume, validation, reference model, dumps."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy_task as toy

pytestmark = pytest.mark.full


def train(folder: Path, steps: int, overrides: list[str]) -> list[dict[str, Any]]:
    """Run the trainer under a time limit (a hang must fail) and return what it logged: step and data."""
    metrics = folder / f"metrics-{steps}.jsonl"
    env = os.environ | {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "VERL_FILE_LOGGER_PATH": str(metrics)}
    arguments = [
        *(sys.executable, "-m", "verl.trainer.main_ppo", "+platform=cpu", "algorithm.adv_estimator=grpo"),
        f"actor_rollout_ref.model.path={folder}/model",
        f"actor_rollout_ref.model.tokenizer_path={folder}/model/tokenizer",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/train.parquet",
        "data.train_batch_size=8",
        "data.max_prompt_length=24",
        "data.max_response_length=8",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "actor_rollout_ref.actor.optim.lr=1e-4",
        f"reward.custom_reward_function.path={toy.__file__}",
        "reward.custom_reward_function.name=compute_score",
        *("trainer.logger=[file]", "trainer.val_before_train=False", "trainer.resume_mode=auto"),
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"trainer.total_training_steps={steps}",
        f"trainer.total_epochs={steps}",
        *overrides,
    ]
    done = subprocess.run(arguments, env=env, cwd=folder, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def test_two_workers_checkpoint_resume_validate(tmp_path: Path) -> None:
    # 37 ids beyond the tokenizer, as real models have: sampling one would crash verl.
    toy.write_model(tmp_path / "model", hidden=32, layers=2, extra_vocab=37)
    toy.write_data(tmp_path / "train.parquet", rows=32, prompt_words=6)
    overrides = [
        "trainer.n_gpus_per_node=2",
        "trainer.save_freq=1",
        "trainer.test_freq=2",
        "actor_rollout_ref.rollout.val_kwargs.n=3",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "algorithm.rollout_correction.bypass_mode=False",  # so that verl compares rollout and actor log-probs
        f"trainer.rollout_data_dir={tmp_path / 'rollouts'}",
    ]
    first = train(tmp_path, 2, overrides)
    assert [row["step"] for row in first] == [1, 2]
    assert all(row["data"]["training/rollout_probs_diff_max"] < 1e-6 for row in first)
    assert first[0]["data"]["actor/kl_loss"] == pytest.approx(0, abs=1e-6)  # policy and reference start equal
    assert first[1]["data"]["actor/kl_loss"] > 1e-6
    assert "val-core/toy/acc/mean@3" in first[1]["data"]

    second = train(tmp_path, 3, overrides)
    assert [row["step"] for row in second] == [3]
    assert second[0]["data"]["actor/kl_loss"] > 1e-6  # weights of step 2, not the start model's
    assert second[0]["data"]["training/rollout_probs_diff_max"] < 1e-6
    rollouts = [json.loads(line) for line in (tmp_path / "rollouts" / "3.jsonl").read_text().splitlines()]
    assert len(rollouts) == 8 * 4
    assert sum(row["score"] for row in rollouts) / len(rollouts) == pytest.approx(
        second[0]["data"]["critic/score/mean"], abs=1e-6
    )
