"""The seams: verl's own functions with ours around them, put in at first import; foreign runs are handed through."""

import json
import logging
import subprocess
import sys
import textwrap
import timeit
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("transfer_queue")

import verl.trainer.ppo.v1 as v1  # noqa: E402
from transfer_queue import KVBatchMeta  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.trainer.ppo import ray_trainer  # noqa: E402
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, AdvantageEstimator  # noqa: E402
from verl.trainer.ppo.v1 import trainer_base  # noqa: E402
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from verl_fgrpo.host import trainer_modes  # noqa: E402
from verl_fgrpo.methods.context import current_context  # noqa: E402
from verl_fgrpo.methods.fade import FadeState, load_state, save_state  # noqa: E402

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
def test_a_focal_name_is_verls_trainer(mode):
    host, host_mode, buffer = HOSTS[mode]
    settings = config(f"trainer.v1.trainer_mode={mode}", *SEPARATE)
    assert v1.get_trainer_cls(host_mode) is host
    trainer = v1.get_trainer_cls(mode)(settings)
    assert isinstance(trainer, host) and trainer.trainer_mode == host_mode
    assert type(trainer.replay_buffer) is buffer and trainer.replay_buffer.trainer_mode == host_mode
    assert trainer.parameter_sync_step == (4 if mode == "focal_separate_async" else 1)


def test_registering_again_changes_nothing():
    before = dict(trainer_base.TRAINER_REGISTRY)
    trainer_modes.register_modes()
    assert before == trainer_base.TRAINER_REGISTRY


def python(code):
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr
    return result


def test_importing_verl_loads_none_of_its_trainers():
    python(
        """
        import sys, verl
        assert "verl_fgrpo.host.register" in sys.modules
        assert not {"verl.trainer.ppo.v1", "verl.trainer.ppo.ray_trainer", "verl.trainer.main_ppo"} & set(sys.modules)
        """
    )


def test_a_verl_that_does_not_fit_trains_others_and_refuses_ours():
    result = python(
        """
        import verl
        from wrapt import register_post_import_hook
        import wrapt.importer
        hooks = wrapt.importer._post_import_hooks["verl.trainer.ppo.ray_trainer"]
        hooks.insert(0, lambda module: delattr(module, "compute_advantage"))
        import verl.trainer.ppo.ray_trainer
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn
        get_adv_estimator_fn("rloo")
        try:
            get_adv_estimator_fn("f_grpo")
        except ValueError as error:
            print("refused", error)
        from verl_fgrpo.host.state import registration
        assert "has no attribute 'compute_advantage'" in registration.failures[0]
        """
    )
    assert "refused Unknown advantage estimator" in result.stdout
    assert "does not fit verl.trainer.ppo.ray_trainer of this verl" in result.stderr


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


def step(monkeypatch, outputs, *overrides, colocated=False, mode="sync", sources=None, settings=None):
    """One call of a trainer's `_compute_advantage`, verl's own code included.

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
            "entropy": torch.full((length,), 0.7),
            "extra_fields": {"raw_prompt": [{"role": "user"}]} | ({} if colocated else {"reward_extra_info": info}),
        }
        if sources:
            rows[key]["data_source"] = sources[key]
        if colocated:
            rows[key] |= {name: torch.tensor(value) for name, value in info.items()}
        tags.append({"is_padding": key.startswith("pad")})
    queue = Queue(rows)
    monkeypatch.setattr(trainer_base, "tq", queue)
    trainer = v1.get_trainer_cls(mode)(settings or config(f"trainer.v1.trainer_mode={mode}", *overrides))
    trainer.global_steps = 3
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=None if colocated else ["worker"])
    seen = []
    host = trainer_base.compute_advantage_for_multi_trajectories
    monkeypatch.setattr(
        trainer_base,
        "compute_advantage_for_multi_trajectories",
        lambda *args, **kwargs: (seen.append(current_context()), host(*args, **kwargs))[1],
    )
    metrics = {}
    trainer._compute_advantage(KVBatchMeta(keys=list(outputs), tags=tags, partition_id="train"), metrics)
    assert current_context() is None
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
    rows, metrics, context = step(monkeypatch, OUTPUTS, colocated=colocated)
    check_advantages(rows, expected_advantages({key: score for key, (score, _, _) in OUTPUTS.items()}))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)
    assert metrics["focal/weight_mean"] == pytest.approx((0.75**0.5 + 0.5**0.5) / 2)
    assert 0.5**0.5 < metrics["focal/update_scale"] < 0.75**0.5
    assert context.sessions[:4] == ["a_0", "b_0", "a_1", "a_0"]
    assert context.final.tolist() == [True, True, True, False] + [True] * 6
    assert context.padding.tolist() == [False] * 9 + [True]
    assert context.reported.acc.tolist() == [1, 1, 0, 1, 0, 1, 0, 0, 0, 1]
    assert (context.step, context.folder.parts[0]) == (3, "checkpoints")


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
    rows, metrics, context = step(monkeypatch, outputs, "+algorithm.focal_success_threshold=0.0")
    assert bool(context.reported.acc.isnan().all())
    check_advantages(rows, expected_advantages({key: score for key, (score, _, _) in OUTPUTS.items()}))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
def test_verls_own_estimators_get_verls_own_result_and_the_group_metrics(monkeypatch, estimator):
    rows, metrics, _ = step(monkeypatch, OUTPUTS, f"algorithm.adv_estimator={estimator}", mode="focal_sync")
    if estimator == "grpo":  # for which verl counts a session once
        check_advantages(rows, expected_advantages({key: score for key, (score, _, _) in OUTPUTS.items()}, gamma=0.0))
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)
    assert "focal/weight_mean" not in metrics
    same, plain, context = step(monkeypatch, OUTPUTS, f"algorithm.adv_estimator={estimator}")
    assert context is None and not any(key.startswith("focal/") for key in plain)
    assert all(torch.equal(same[key]["advantages"], rows[key]["advantages"]) for key in rows)


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


@pytest.mark.parametrize(
    ("loss", "weight"), [(["f_vanilla", "verl_fgrpo.config.FocalPolicyLossConfig"], 0.5), (["gapo"], None)]
)
def test_a_loss_of_ours_without_a_gamma_of_its_own(monkeypatch, loss, weight):
    outputs = {key: (float(info["acc"]), info, length) for key, (_, info, length) in OUTPUTS.items()}
    keys = ("loss_mode", "_target_")
    words = [f"actor_rollout_ref.actor.policy_loss.{key}={value}" for key, value in zip(keys, loss, strict=False)]
    normalize = f"algorithm.norm_adv_by_std_in_grpo={weight is not None}"
    _, metrics, _ = step(monkeypatch, outputs, "algorithm.adv_estimator=grpo", normalize, *words)
    assert {key: metrics[key] for key in GROUP_METRICS} == pytest.approx(GROUP_METRICS)
    mean = None if weight is None else (0.75**weight + 0.5**weight) / 2
    assert metrics.get("focal/weight_mean") == (mean and pytest.approx(mean))


LEGACY = {
    "token_level_rewards": torch.tensor([[0.0, -0.9], [0.0, -1.9], [0.0, -1.8], [0.0, -1.7]]),  # KL of 1.9 in them
    "token_level_scores": torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    "response_mask": torch.ones(4, 2),
    "old_log_probs": torch.tensor([[-1.0, -1.0], [-2.0, -2.0], [-3.0, -3.0], [-4.0, -4.0]]),
}


def legacy_batch(**arrays):
    """What the legacy, one-step-off, separation and fully async trainers hand to `compute_advantage`."""
    return DataProto.from_dict(
        tensors=dict(LEGACY),
        non_tensors={
            "uid": np.array(["a"] * 4, dtype=object),
            **{k: np.array(v, dtype=object) for k, v in arrays.items()},
        },
    )


def algorithm(*overrides, **values):
    whole = config("actor_rollout_ref.rollout.n=4", *overrides)
    for key, value in values.items():
        OmegaConf.update(whole, f"algorithm.{key}", value, force_add=True)
    return whole.algorithm


def test_kl_in_the_reward_acc_and_log_probabilities_in_the_trainers_that_hand_over_a_whole_batch(caplog):
    caplog.set_level(logging.INFO, "verl_fgrpo")
    settings = algorithm(use_kl_in_reward=True, focal_gamma=1.0)
    plain = ray_trainer.compute_advantage(
        legacy_batch(), "f_grpo", config=algorithm(use_kl_in_reward=True, focal_gamma=0)
    )
    focal = ray_trainer.compute_advantage(legacy_batch(), "f_grpo", config=settings)
    # raw scores: one of four correct
    torch.testing.assert_close(focal.batch["advantages"], plain.batch["advantages"] * 0.75)
    assert (
        "first update by f_grpo: gamma 1 (algorithm.focal_gamma); success told by threshold; 1 groups x 4"
        in caplog.text
    )
    assert "focal/weight_mean 0.75" in caplog.text  # one log line, as these trainers keep their metrics to themselves
    reported = legacy_batch(acc=[True, True, False, False], score=[0.0] * 4)
    focal = ray_trainer.compute_advantage(reported, "f_grpo", config=settings)
    torch.testing.assert_close(focal.batch["advantages"], plain.batch["advantages"] * 0.5)
    whole = algorithm(unlikeliness_beta=0.25)
    assert bool(
        (ray_trainer.compute_advantage(legacy_batch(), "unlikeliness", config=whole).batch["advantages"] != 0).any()
    )


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "gae", "reinforce_plus_plus", "mine"])
def test_foreign_estimators_are_handed_through_bit_for_bit_and_at_no_cost(estimator, monkeypatch):
    def mine(token_level_rewards, response_mask, config, index):
        return token_level_rewards * 2, token_level_rewards

    monkeypatch.setitem(ADV_ESTIMATOR_REGISTRY, "mine", mine)
    name = AdvantageEstimator(estimator) if estimator != "mine" else estimator
    host = ray_trainer.compute_advantage.__wrapped__
    settings = algorithm(f"algorithm.adv_estimator={estimator}")

    def run(function):
        batch = legacy_batch(acc=["?"] * 4, score=["?"] * 4)  # nothing of it is looked at
        batch.batch["values"] = torch.ones(4, 2)
        return function(batch, adv_estimator=name, config=settings)

    ours, theirs = run(ray_trainer.compute_advantage), run(host)
    assert set(ours.batch.keys()) == set(theirs.batch.keys())
    for key in theirs.batch.keys():  # noqa: SIM118 (a TensorDict)
        assert ours.batch[key].numpy().tobytes() == theirs.batch[key].numpy().tobytes()

    empty = {"data": None, "adv_estimator": name, "config": settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_trainer, "AdvantageEstimator", SimpleNamespace(GAE=None, GRPO=None))
        reached = timeit.timeit(
            lambda: pytest.raises(AttributeError, ray_trainer.compute_advantage, **empty), number=50
        )
        alone = timeit.timeit(lambda: pytest.raises(AttributeError, host, **empty), number=50)
    assert (reached - alone) / 50 < 1e-3  # a step; about 20 microseconds on a quiet machine


def test_a_contradiction_stops_any_trainer_before_its_first_update():
    # an entry point of one's own: neither validate_config nor run_ppo was called
    with pytest.raises(ValueError, match=r"algorithm\.focal_gamma=0\.5.*adv_estimator is grpo"):
        ray_trainer.compute_advantage(
            legacy_batch(), "grpo", config=algorithm("algorithm.adv_estimator=grpo", focal_gamma=0.5)
        )


def test_groups_larger_than_rollout_n_are_refused_where_nobody_knows_sessions():
    # D7: every output of a session would count as a rollout
    settings = algorithm("actor_rollout_ref.rollout.n=2")
    with pytest.raises(ValueError, match=r"a group has 4 rows, but actor_rollout_ref\.rollout\.n is 2"):
        ray_trainer.compute_advantage(legacy_batch(), "f_grpo", config=settings)
    ray_trainer.compute_advantage(legacy_batch(__rollout_n__=[4] * 4), "f_grpo", config=settings)


def test_a_host_that_hands_batch_and_arrays_to_every_estimator(monkeypatch):
    """verl #7473: they are taken and used, not handed on, and `acc` still decides; so it is without our wrapper."""

    def host(data, adv_estimator, config=None, **_):
        advantages, returns = ADV_ESTIMATOR_REGISTRY[adv_estimator](
            token_level_rewards=data.batch["token_level_rewards"],
            response_mask=data.batch["response_mask"],
            index=data.non_tensor_batch["uid"],
            config=config,
            batch=data.batch,
            non_tensor_batch=data.non_tensor_batch,
        )
        data.batch["advantages"], data.batch["returns"] = advantages, returns
        return data

    module = SimpleNamespace(compute_advantage=host)
    from verl_fgrpo.host.seams import _in_compute_advantage

    _in_compute_advantage(module)
    plain = ray_trainer.compute_advantage(legacy_batch(), "f_grpo", config=algorithm(focal_gamma=0))
    for compute_advantage in (host, module.compute_advantage):
        batch = legacy_batch(acc=[True, True, False, False], score=[0.0] * 4)
        result = compute_advantage(batch, "f_grpo", config=algorithm(focal_gamma=1.0))
        torch.testing.assert_close(result.batch["advantages"], plain.batch["advantages"] * 0.5)
        result = compute_advantage(legacy_batch(), "f_unlikeliness", config=algorithm(use_kl_in_reward=True))
        assert bool((result.batch["advantages"] != 0).any())


def test_thresholds_by_source_in_the_v1_trainers(monkeypatch):
    # a is maths, 0/1; b is code, where .6 of the tests passed is not enough
    outputs = {f"a_{i}_0": (float(i < 1), {"acc": float(i < 1)}, i + 1) for i in range(4)}
    outputs |= {f"b_{i}_0": (1.0 if i < 2 else 0.6, {"acc": 1.0 if i < 2 else 0.6}, 2) for i in range(4)}
    sources = {key: "code" if key.startswith("b") else "openai/gsm8k" for key in outputs}
    _, metrics, _ = step(
        monkeypatch,
        outputs,
        "+algorithm.focal_gamma=1.0",
        "+algorithm.focal_success_threshold_by_source={openai/gsm8k:0.5,code:0.99}",
        sources=sources,
    )
    assert metrics["focal/weight_mean"] == pytest.approx((3 / 4 + 1 / 2) / 2)


ZERO_ONE = {key: (float(info["acc"]), info, length) for key, (_, info, length) in OUTPUTS.items()}
CODE = {key: (1.0 if info["acc"] else 0.6, {}, length) for key, (_, info, length) in OUTPUTS.items()}


@pytest.mark.parametrize(
    ("outputs", "overrides", "arguments"),
    [
        (ZERO_ONE, ["+algorithm.focal_gamma=1.0"], ["--focal-gamma", "1.0"]),  # acc; one session has two outputs
        (ZERO_ONE, ["algorithm.use_kl_in_reward=True"], ["--focal-gamma", "0.5"]),
        (
            CODE,
            ["+algorithm.focal_success_threshold_by_source={maze:0.5,code:0.99}"],
            ["--focal-gamma", "0.5", "--threshold-by-source", "maze=0.5", "code=0.99"],
        ),
        (
            CODE,
            ["+algorithm.f_grpo_gamma=1.0", "+algorithm.f_grpo_reward_wrong=0.5"],
            ["--focal-gamma", "1.0", "--reward-correct", "1.0", "--reward-wrong", "0.5"],
        ),
    ],
)
def test_the_audit_of_verls_own_dump_agrees_with_what_the_step_logged(
    monkeypatch, tmp_path, outputs, overrides, arguments
):
    from verl_fgrpo.runs.audit import main as audit

    sources = dict.fromkeys(outputs, "code")
    _, metrics, _ = step(monkeypatch, outputs, *overrides, sources=sources)
    scores = [score for score, _, _ in outputs.values()]
    v1.PPOTrainer._write_generations(
        inputs=[key[0] for key in outputs],
        outputs=["so"] * len(outputs),
        gts=["7"] * len(outputs),
        scores=scores,
        reward_extra_infos_dict={"uid": list(outputs), "data_source": list(sources.values())},
        dump_path=str(tmp_path / "rollouts"),
        global_steps=1,
    )
    log = tmp_path / "metrics.jsonl"
    for error, code in ((0.0, 0), (1e-5, 1)):
        weight = metrics["focal/weight_mean"] + error
        log.write_text(json.dumps({"step": 1, "data": metrics | {"focal/weight_mean": weight}}) + "\n")
        assert audit([str(tmp_path / "rollouts"), "--log", str(log), *arguments]) == code


def test_a_threshold_that_tells_nothing_is_warned_of_and_then_stops_the_run(monkeypatch, caplog):
    # D6: rewards 0 .1 .2 .45 with the default threshold: every mu is 0, plain GRPO without a word
    outputs = {}
    for group in range(40):
        for i, score in enumerate((0.0, 0.1, 0.2, 0.45)):
            outputs[f"g{group}_{i}_0"] = (score, {"acc": score}, i + 1)
    whole = config("trainer.v1.trainer_mode=sync")
    _, metrics, _ = step(monkeypatch, outputs, settings=whole)
    assert metrics["focal/unexplained_groups"] == 40
    assert "40 of 40 groups with unequal rewards have a success rate of 0 or 1" in caplog.text
    with pytest.raises(ValueError, match=r"80 of 80 groups.*set algorithm\.focal_success_threshold between"):
        step(monkeypatch, outputs, settings=whole)
    step(monkeypatch, outputs)  # another run counts anew


def test_one_row_without_acc_ends_the_step(monkeypatch):
    outputs = OUTPUTS | {"b_3_0": (-1.0, {"score": -1.0}, 3)}
    with pytest.raises(ValueError, match="none for rollout 8"):
        step(monkeypatch, outputs)


def test_the_entropy_of_the_step_is_there_for_methods_that_need_it():
    from verl_fgrpo.host.seams import _mean_entropy

    data = list_of_dict_to_tensordict(
        [
            {"entropy": torch.tensor([1.0, 2.0]), "response_mask": torch.tensor([1, 1])},
            {"entropy": torch.tensor([6.0, 9.0, 9.0]), "response_mask": torch.tensor([1, 0, 0])},
        ]
    )
    assert _mean_entropy(data) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="bypass_mode=False"):
        _mean_entropy({})


def test_fade_in_verls_own_trainer_goes_on_from_its_last_step(monkeypatch, tmp_path):
    save_state(tmp_path, FadeState(2, 0.4, 0.9, 1.2))
    overrides = ["+focal=fade", "algorithm.adv_estimator=f_fade", f"trainer.default_local_dir={tmp_path}"]
    rows, metrics, _ = step(monkeypatch, OUTPUTS, *overrides)
    # 3 of 8 sessions are correct by acc, and every token has an entropy of 0.7
    p, entropy = 0.98 * 0.4 + 0.02 * 3 / 8, 0.98 * 0.9 + 0.02 * 0.7
    alpha, delta = 1.5 * (1 - p) / p, 1 + entropy - 1.2
    assert (metrics["fade/alpha"], metrics["fade/delta"]) == pytest.approx((alpha, delta))
    rewards = {key: score for key, (score, _, _) in OUTPUTS.items() if key not in ("a_0_0", "pad7f3a_0_0")}
    expected = {}
    for uid, mu in (("a", 1 / 4), ("b", 2 / 4)):
        finals = {key: value for key, value in rewards.items() if key[0] == uid}
        centred = {
            key: (1 - mu) ** (alpha - 1) * (value - np.mean(list(finals.values()))) for key, value in finals.items()
        }
        expected |= {key: value if value > 0 else value / delta for key, value in centred.items()}
    check_advantages(rows, expected | {"a_0_0": expected["a_0_1"], "pad7f3a_0_0": 0.0})
    assert load_state(tmp_path, 3).solve_rate == pytest.approx(p)
