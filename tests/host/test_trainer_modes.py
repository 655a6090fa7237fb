"""The trainer modes: registered when verl's trainers are imported, verl's own class but for one step."""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("transfer_queue")

import verl.trainer.ppo.v1 as v1  # noqa: E402
from transfer_queue import KVBatchMeta  # noqa: E402
from verl.trainer.ppo.v1 import trainer_base  # noqa: E402
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from verl_fgrpo.host import trainer_modes  # noqa: E402
from verl_fgrpo.methods.context import handed_over  # noqa: E402

HOSTS = {
    "focal_sync": (v1.PPOTrainerSync, "sync", ReplayBuffer),
    "focal_colocate_async": (v1.PPOTrainerColocateAsync, "colocate_async", ReplayBufferAsync),
    "focal_separate_async": (v1.PPOTrainerSeparateAsync, "separate_async", ReplayBufferAsync),
}


def config(*overrides):
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        composed = compose("ppo_trainer", overrides=["algorithm.adv_estimator=f_grpo", *overrides])
    OmegaConf.resolve(composed)
    return composed


SEPARATE = (
    "data.train_batch_size=32",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
)


@pytest.mark.parametrize("mode", HOSTS)
def test_a_mode_is_found_by_name_and_is_verls_trainer_with_one_step_extended(mode):
    host, host_mode, _ = HOSTS[mode]
    trainer = v1.get_trainer_cls(mode)
    assert issubclass(trainer, host) and trainer is not host and v1.get_trainer_cls(host_mode) is host
    ours = {name for name in vars(trainer_modes.HandsOver) if not name.startswith("__")}
    assert {name for name in ours if hasattr(host, name)} == {"_compute_advantage"}


@pytest.mark.parametrize("mode", HOSTS)
def test_verl_sees_the_hosts_name_wherever_it_compares_it(mode):
    _, host_mode, buffer = HOSTS[mode]
    settings = config(f"trainer.v1.trainer_mode={mode}", *SEPARATE)
    trainer = v1.get_trainer_cls(mode)(settings)
    assert trainer.trainer_mode == host_mode
    assert type(trainer.replay_buffer) is buffer and trainer.replay_buffer.trainer_mode == host_mode
    assert trainer.parameter_sync_step == (4 if mode == "focal_separate_async" else 1)
    # what is logged as the run's config keeps the chosen name, and its section answers for the host's
    assert settings.trainer.v1.trainer_mode == mode
    assert settings.trainer.v1[mode] == settings.trainer.v1[host_mode]


def test_bad_settings_stop_the_run_before_workers_start():
    with pytest.raises(ValueError, match=r"algorithm\.focal_gamma is -1"):
        v1.get_trainer_cls("focal_sync")(config("trainer.v1.trainer_mode=focal_sync", "+algorithm.focal_gamma=-1"))


def test_registering_again_changes_nothing():
    before = dict(trainer_base.TRAINER_REGISTRY)
    trainer_modes.register_modes()
    assert before == trainer_base.TRAINER_REGISTRY


def python(code):
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


def test_importing_verl_loads_neither_its_trainers_nor_the_modes():
    python(
        """
        import sys, verl
        assert "verl_fgrpo.host.register" in sys.modules
        assert not {"verl.trainer.ppo.v1", "verl_fgrpo.host.trainer_modes"} & set(sys.modules)
        """
    )


def test_a_taken_name_is_loud_and_leaves_verls_own_modes_working():
    result = python(
        """
        import verl, verl_fgrpo
        from verl_fgrpo.host.import_hooks import when_imported

        def rival(module):
            class Rival(module.PPOTrainerSync):
                pass
            module.register_trainer("focal_sync")(Rival)

        import sys
        hooks = sys.meta_path[0].callbacks["verl.trainer.ppo.v1"]
        hooks.insert(0, rival)
        from verl.trainer.ppo.v1 import get_trainer_cls
        assert get_trainer_cls("sync").__name__ == "PPOTrainerSync"
        assert get_trainer_cls("focal_sync").__name__ == "Rival"
        assert "already registered to Rival" in verl_fgrpo.registration_error
        """
    )
    assert "ERROR" in result.stderr and "trainer modes are missing" in result.stderr


class Queue:
    """verl's TransferQueue in memory: rows of fields by key, as far as computing advantages uses it."""

    def __init__(self, rows):
        self.rows = rows

    def kv_batch_get(self, keys, partition_id, select_fields):
        rows = [self.rows[key] for key in keys]
        return list_of_dict_to_tensordict([{f: row[f] for f in select_fields if f in row} for row in rows])

    def kv_batch_put(self, keys, partition_id, fields):
        for name in fields.keys():  # noqa: SIM118 (a TensorDict)
            for key, value in zip(keys, fields[name].unbind(), strict=True):
                self.rows[key][name] = value
        return KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id=partition_id)


def step(monkeypatch, outputs, *overrides, colocated=False):
    """One call of a focal_sync trainer's `_compute_advantage`, verl's own code included.

    Args:
        outputs: key -> (score, reward_extra_info, response length); the padding row's key starts with "pad".

    Returns:
        the rows with their advantages, the metrics, and what an estimator saw.
    """
    rows, tags = {}, []
    for number, (key, (score, info, length)) in enumerate(outputs.items()):
        rewards = torch.zeros(length)
        rewards[-1] = score
        log_probs = -torch.arange(1.0, length + 1) - 10 * number
        rows[key] = {
            "uid": key.rsplit("_", 2)[0],
            "response_mask": torch.full((length,), int(not key.startswith("pad"))),
            "rm_scores": rewards,
            "old_log_probs": log_probs,
            "rollout_log_probs": log_probs,
            "ref_log_prob": log_probs - 0.5,
            "extra_fields": {"raw_prompt": [{"role": "user"}]} | ({} if colocated else {"reward_extra_info": info}),
        }
        if colocated:
            rows[key] |= {name: torch.tensor(value) for name, value in info.items()}
        tags.append({"is_padding": key.startswith("pad")})
    queue = Queue(rows)
    monkeypatch.setattr(trainer_base, "tq", queue)
    monkeypatch.setattr(trainer_modes, "tq", queue)
    trainer = v1.get_trainer_cls("focal_sync")(config("trainer.v1.trainer_mode=focal_sync", *overrides))
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=None if colocated else ["worker"])
    seen = []
    host = trainer_base.compute_advantage_for_multi_trajectories
    monkeypatch.setattr(
        trainer_base,
        "compute_advantage_for_multi_trajectories",
        lambda *args, **kwargs: (seen.append(handed_over()), host(*args, **kwargs))[1],
    )
    metrics = {}
    trainer._compute_advantage(KVBatchMeta(keys=list(outputs), tags=tags, partition_id="train"), metrics)
    assert handed_over() is None
    return rows, metrics, seen[0]


def info(correct):
    return {"score": 1.0 if correct else -1.0, "acc": bool(correct)}


# group a: 1 of 4 correct, group b: 2 of 4; one session of a with two outputs, one padding row copied from a correct one
OUTPUTS = {
    "a_0_1": (0.8, info(1), 3),
    "b_0_0": (0.9, info(1), 2),
    "a_1_0": (-1.2, info(0), 2),
    "a_0_0": (0.8, info(1), 1),
    "a_2_0": (-1.1, info(0), 3),
    "b_1_0": (0.7, info(1), 1),
    "b_2_0": (-1.3, info(0), 2),
    "a_3_0": (-1.4, info(0), 2),
    "b_3_0": (-1.0, info(0), 3),
    "pad7f3a_0_0": (0.0, info(1), 1),
}
GROUP_METRICS = {
    "focal/active_share": 1.0,
    "focal/all_correct_share": 0.0,
    "focal/all_wrong_share": 0.0,
    "focal/tail_miss_risk": (0.9 + 0.81) / 2,
    "focal/train_pass@1": 3 / 8,
    "focal/train_pass@2": (1 / 2 + 5 / 6) / 2,
    "focal/train_pass@4": 1.0,
    "focal/success_rate/p50": 3 / 8,
}


def expected_advantages(rewards, gamma=0.5):
    """Focal advantage per key from the reward of every session: (1 - mu)^gamma (R - mean) / (std + 1e-6)."""
    expected = {}
    for uid, mu in (("a", 1 / 4), ("b", 2 / 4)):
        finals = {key: value for key, value in rewards.items() if key[0] == uid and key != "a_0_0"}
        mean, std = np.mean(list(finals.values())), np.std(list(finals.values()), ddof=1)
        expected |= {key: (1 - mu) ** gamma * (value - mean) / (std + 1e-6) for key, value in finals.items()}
    return expected | {"a_0_0": expected["a_0_1"], "pad7f3a_0_0": 0.0}


def check_advantages(rows, expected):
    for key, value in expected.items():
        assert rows[key]["advantages"].tolist() == pytest.approx([value] * len(rows[key]["response_mask"]), rel=1e-5)


@pytest.mark.parametrize("colocated", [False, True])
def test_a_step_of_verls_own_trainer(monkeypatch, colocated):
    rows, metrics, handover = step(monkeypatch, OUTPUTS, colocated=colocated)
    check_advantages(rows, expected_advantages({key: score for key, (score, _, _) in OUTPUTS.items()}))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)
    assert metrics["focal/weight_mean"] == pytest.approx((0.75**0.5 + 0.5**0.5) / 2)
    assert 0.5**0.5 < metrics["focal/update_scale"] < 0.75**0.5
    assert handover.sessions[:4] == ["a_0", "b_0", "a_1", "a_0"]
    assert handover.final.tolist() == [True, True, True, False] + [True] * 6
    assert handover.padding.tolist() == [False] * 9 + [True]
    assert handover.accuracy.tolist() == [1, 1, 0, 1, 0, 1, 0, 0, 0, 1]
    assert handover.raw_scores.tolist() == pytest.approx([score for score, _, _ in OUTPUTS.values()])
    assert handover.log_probs.shape == (10, 3)
    assert handover.log_probs[:3].tolist() == [[-1, -2, -3], [-11, -12, 0], [-21, -22, 0]]


@pytest.mark.parametrize("bypass", [True, False])
def test_kl_in_the_reward_and_rollout_correction(monkeypatch, bypass):
    rows, metrics, _ = step(
        monkeypatch,
        OUTPUTS,
        "algorithm.use_kl_in_reward=True",
        "algorithm.kl_ctrl.kl_coef=1.0",
        f"algorithm.rollout_correction.bypass_mode={bypass}",
        "algorithm.rollout_correction.rollout_is=token",
    )
    # the k1 penalty of verl: 1.0 * (old - ref) = 0.5 for each token
    check_advantages(rows, expected_advantages({key: score - 0.5 * n for key, (score, _, n) in OUTPUTS.items()}))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)
    assert ("rollout_is_weights" in rows["a_0_1"]) == (not bypass)


def test_without_acc_the_threshold_decides(monkeypatch):
    outputs = {key: (score, {"acc": score}, length) for key, (score, _, length) in OUTPUTS.items()}
    rows, metrics, handover = step(monkeypatch, outputs, "+algorithm.focal_success_threshold=0.0")
    assert handover.accuracy is None
    check_advantages(rows, expected_advantages({key: score for key, (score, _, _) in OUTPUTS.items()}))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
def test_verls_own_estimators_get_verls_own_result_and_the_group_metrics(monkeypatch, estimator):
    rows, metrics, _ = step(monkeypatch, OUTPUTS, f"algorithm.adv_estimator={estimator}")
    if estimator == "grpo":  # for which verl counts a session once
        check_advantages(rows, expected_advantages({key: score for key, (score, _, _) in OUTPUTS.items()}, gamma=0.0))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)
    assert "focal/weight_mean" not in metrics


def test_an_f_loss_has_the_same_metrics_as_the_estimator(monkeypatch):
    outputs = {key: (float(info["acc"]), info, length) for key, (_, info, length) in OUTPUTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        _, expected, _ = step(patch, outputs, "+algorithm.focal_gamma=0.7")
    _, metrics, _ = step(
        monkeypatch,
        outputs,
        "algorithm.adv_estimator=grpo",
        "actor_rollout_ref.actor.policy_loss.loss_mode=f_vanilla",
        "actor_rollout_ref.actor.policy_loss._target_=verl_fgrpo.config.FocalPolicyLossConfig",
        "+actor_rollout_ref.actor.policy_loss.focal_gamma=0.7",
    )
    assert metrics == pytest.approx(expected)
