"""Unbiased pass@k among verl's validation metrics: by hand, failed sessions, and inside verl's own trainers."""

import logging
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

pytest.importorskip("transfer_queue")

import verl.trainer.ppo.v1 as v1  # noqa: E402
from verl.trainer.ppo.ray_trainer import RayPPOTrainer  # noqa: E402
from verl.trainer.ppo.v1 import trainer_base  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from verl_fgrpo.host.val_metrics import METHOD, validation_pass_at_k  # noqa: E402
from verl_fgrpo.host.validation import read_counts  # noqa: E402
from verl_fgrpo.methods.settings import FocalConfig  # noqa: E402

#: c of n = 4: 1 and 3 in amc, 0 in aime
CORRECT = {("amc", "a"): [0, 1, 0, 0], ("amc", "b"): [1, 1, 0, 1], ("aime", "c"): [0, 0, 0, 0]}
BY_HAND = {
    "val-passk/amc/pass@1": (1 / 4 + 3 / 4) / 2,
    "val-passk/amc/pass@2": ((1 - 3 / 6) + (1 - 0 / 6)) / 2,  # C(3, 2) = 3 and C(1, 2) = 0 of C(4, 2) = 6 pairs miss
    "val-passk/amc/pass@4": 1.0,  # both have a correct one among all four
    "val-passk/aime/pass@1": 0.0,
    "val-passk/aime/pass@2": 0.0,
    "val-passk/aime/pass@4": 0.0,
    "val-passk/average/pass@1": 0.25,
    "val-passk/average/pass@2": 0.375,
    "val-passk/average/pass@4": 0.5,
}


def columns(correct=CORRECT):
    """data_sources, uids and rewards as verl collects them."""
    rows = [(source, uid, float(c)) for (source, uid), cs in correct.items() for c in cs]
    return [list(column) for column in zip(*rows, strict=True)]


def trainer_of(kind, **algorithm):
    """One of verl's trainers as far as its validation metrics go."""
    return SimpleNamespace(config=OmegaConf.create({"algorithm": algorithm})), getattr(kind, METHOD)


@pytest.mark.parametrize("kind", [trainer_base.PPOTrainer, RayPPOTrainer])
@pytest.mark.parametrize("with_acc", [True, False])
def test_verls_own_trainers_log_it_beside_their_metrics_which_stay_bit_for_bit(kind, with_acc):
    sources, uids, rewards = columns()
    infos = {"reward": rewards} | ({"acc": rewards, "note": ["x"] * 12} if with_acc else {})
    turns = [np.ones(12)] if kind is RayPPOTrainer else [1] * 12
    trainer, update = trainer_of(kind)
    metrics = update(trainer, np.array(sources, dtype=object), uids, infos, turns)
    own = update.__wrapped__(trainer, np.array(sources, dtype=object), uids, infos, turns)
    assert {name: metrics.pop(name) for name in BY_HAND} == pytest.approx(BY_HAND)
    assert metrics == own and len(own) > 10
    core = "acc" if with_acc else "reward"
    assert own[f"val-core/amc/{core}/mean@4"] == BY_HAND["val-passk/amc/pass@1"]


def test_sessions_that_failed_count_as_wrong_as_in_verls_own_accuracy():
    sources, uids, rewards = columns()
    kept = [0, 1, 2, 4, 5, 6, 7]  # a lost a wrong one, all of aime failed
    sources, uids, rewards = ([column[row] for row in kept] for column in (sources, uids, rewards))
    trainer, update = trainer_of(trainer_base.PPOTrainer)
    metrics = update(
        trainer, sources, uids, {"reward": rewards, "acc": rewards}, [], expected_acc_counts=dict.fromkeys(CORRECT, 4)
    )
    assert {name: value for name, value in metrics.items() if "passk" in name} == pytest.approx(BY_HAND)
    assert metrics["val-core/amc/acc/mean@4"] == BY_HAND["val-passk/amc/pass@1"]


@pytest.mark.parametrize("rows", [[None, 1, 0, True], [0, 1.0, None, np.bool_(True)], [0, 1, 0, 1]])
def test_acc_decides_over_the_reward_and_a_sample_without_one_is_wrong_as_for_verl(rows):
    infos = {"reward": [1.0, -0.4, 0.9, 0.1], "acc": rows}
    metrics = validation_pass_at_k(["m"] * 4, ["a"] * 4, infos)
    assert metrics == pytest.approx({"val-passk/m/pass@1": 0.5, "val-passk/m/pass@2": 5 / 6, "val-passk/m/pass@4": 1.0})


def test_thresholds_of_the_run_and_the_bare_number_before_the_penalty():
    """-1/1 rewards with an overlong penalty: verl stores the bare number as acc."""
    infos = {"reward": [-1.5, 0.5, 0.9, 0.9], "acc": [-1.0, 1.0, 0.9, 0.9]}
    settings = FocalConfig(success_threshold=0.0, threshold_by_source={"code": 0.99})
    metrics = validation_pass_at_k(["m", "m", "code", "code"], ["a", "a", "b", "b"], infos, None, settings)
    assert (metrics["val-passk/m/pass@1"], metrics["val-passk/code/pass@1"]) == (0.5, 0.0)
    trainer, update = trainer_of(trainer_base.PPOTrainer, focal_success_threshold=2.0)
    assert update(trainer, ["m"], ["a"], {"reward": [1.0]}, [])["val-passk/m/pass@1"] == 0.0
    trainer, update = trainer_of(trainer_base.PPOTrainer, f_grpo_gamma=1.0, f_grpo_reward_correct=2.0)  # middle: 1
    assert update(trainer, ["m"] * 2, ["a"] * 2, {"reward": [0.9, 1.1]}, [])["val-passk/m/pass@1"] == 0.5


def test_k_goes_to_the_smallest_n_and_n_itself_is_there():
    correct = {("m", "a"): [1, 0, 0, 0, 0, 0], ("m", "b"): [0] * 5}
    sources, uids, rewards = columns(correct)
    metrics = validation_pass_at_k(sources, uids, {"reward": rewards})
    # of a's six samples one is correct: pass@k = k / 6
    assert metrics == pytest.approx({f"val-passk/m/pass@{k}": k / 12 for k in (1, 2, 4, 5)})


def test_a_nan_reward_is_no_wrong_answer():
    infos = {"reward": [math.nan, 1.0, 1.0]}
    metrics = validation_pass_at_k(["m", "m", "x"], ["a", "a", "b"], infos)
    assert math.isnan(metrics["val-passk/m/pass@1"]) and metrics["val-passk/x/pass@1"] == 1.0


def test_what_ours_cannot_read_does_not_end_somebody_elses_run(caplog):
    trainer, update = trainer_of(trainer_base.PPOTrainer)
    infos = {"reward": [1.0, 0.0], "acc": ["yes", "no"]}
    with caplog.at_level(logging.ERROR, "verl_fgrpo"):
        metrics = update(trainer, ["m", "m"], ["a", "a"], infos, [])
    assert metrics == update.__wrapped__(trainer, ["m", "m"], ["a", "a"], infos, [])
    assert "could not compute pass@k" in caplog.text


class Queue:
    """TransferQueue as far as a validation goes: every session of every prompt is there, but for those that failed."""

    #: prompt -> acc of each session; None: it failed; a list: it gave several outputs
    SESSIONS = (("amc", (0.0, 1.0, None, 0.0)), ("amc", (1.0, [0.0, 1.0], 0.0, 1.0)), ("aime", (None,) * 4))

    def __init__(self):
        self.rows = {}

    def kv_batch_put(self, keys, partition_id, tags):
        for number, (uid, (source, sessions)) in enumerate(zip(keys, self.SESSIONS, strict=True)):
            for session, outputs in enumerate(sessions):
                for index, acc in enumerate(outputs if isinstance(outputs, list) else [outputs]):
                    if acc is not None:
                        self.rows[f"{uid}_{session}_{index}"] = row_of(uid, source, number, acc)

    def sample(self, global_steps, partition_id, batch_size):
        return SimpleNamespace(keys=list(self.rows), partition_id=partition_id), {}

    def kv_batch_get(self, keys, partition_id, select_fields):
        return list_of_dict_to_tensordict([{name: self.rows[key][name] for name in select_fields} for key in keys])

    def kv_clear(self, keys, partition_id):
        self.rows.clear()


def row_of(uid, source, number, acc):
    """Lengths differ, as verl's nested tensors need them to."""
    response = torch.arange(1 + int(acc))
    return {
        "uid": uid, "data_source": source, "prompts": torch.arange(2 + number), "responses": response,
        "rm_scores": torch.full(response.shape, (acc - 0.4) / len(response)), "num_turns": 1,
        "reward_model": {"ground_truth": str(number)},
        "extra_fields": {"reward_extra_info": {"score": acc, "acc": acc}},
    }  # fmt: skip


def test_a_validation_of_verls_own_trainer_and_its_dump_agree(tmp_path, monkeypatch):
    """verl's _validate with four samples a prompt: one session failed, one gave two outputs, a prompt failed wholly."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        overrides = ["actor_rollout_ref.rollout.val_kwargs.n=4", f"trainer.validation_data_dir={tmp_path}"]
        config = compose("ppo_trainer", overrides=overrides)
    trainer, queue = v1.get_trainer_cls("sync")(config), Queue()
    monkeypatch.setattr(trainer_base, "tq", queue)
    sources = np.array([source for source, _ in queue.SESSIONS], dtype=object)
    trainer.val_dataloader = [{"raw_prompt": np.array(["a", "b", "c"], dtype=object), "data_source": sources}]
    trainer.tokenizer = SimpleNamespace(pad_token_id=0, decode=lambda ids, skip_special_tokens: str(ids.tolist()))
    trainer.agent_loop_manager = SimpleNamespace(generate_sequences=lambda batch: None)
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[1])
    trainer.replay_buffer, trainer.global_steps = queue, 5
    trainer._init_dump_executor()
    metrics = trainer._validate()
    trainer._shutdown_dump_executor()
    assert {name: value for name, value in metrics.items() if "passk" in name} == pytest.approx(BY_HAND)
    assert metrics["val-core/amc/acc/mean@4"] == BY_HAND["val-passk/amc/pass@1"]
    counts = read_counts(tmp_path / "5.jsonl")  # which has no row of what failed
    assert sorted(zip(counts.num_samples.tolist(), counts.num_correct.tolist(), strict=True)) == [(3, 1), (4, 3)]


def test_nothing_of_verls_trainers_is_imported_for_it():
    code = "import sys, verl; assert not any(name.startswith('verl.trainer.ppo.v1') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
