"""What is handed to an estimator: success from the best source, sessions counted once, KL in the reward, metrics."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from verl_fgrpo.methods.context import EstimatorContext, Run, current_context, sessions_of, using_context
from verl_fgrpo.methods.estimators import BASE_ESTIMATORS, Estimator, HostEstimator
from verl_fgrpo.methods.success import Reported


def algorithm(**values):
    return OmegaConf.create({"norm_adv_by_std_in_grpo": True, "use_kl_in_reward": False} | values)


def rollouts(scores, uids, lengths):
    """One output per score, the reward at its last token."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    rewards = torch.zeros(mask.shape)
    rewards[torch.arange(len(scores)), torch.tensor(lengths) - 1] = torch.tensor(scores)
    return {
        "token_level_rewards": rewards,
        "response_mask": mask.long(),
        "index": np.array(uids, dtype=object),
    }


def told(acc):
    """The reward function's own acc."""
    return Reported(acc.double(), torch.full(acc.shape, torch.nan).double())


GROUPS = rollouts([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0], ["a"] * 4 + ["b"] * 4, [3, 1, 2, 3, 2, 2, 1, 3])
# the same sessions, every second one with an earlier output before or after its final one; rewards are a session's
KEYS = ["a_0_0", "a_0_1", "a_1_0", "a_2_1", "a_2_0", "a_3_0", "b_0_0", "b_0_1", "b_1_0", "b_2_0", "b_2_1", "b_3_0"]
FINAL_ROWS = [1, 2, 3, 5, 7, 8, 10, 11]


def with_earlier_outputs():
    earlier = {"a_0_0": 1.0, "a_2_0": 0.0, "b_0_0": 1.0, "b_2_0": 1.0}
    scores, lengths, final = [], [], iter(zip(GROUPS["token_level_rewards"].sum(-1).tolist(), LENGTHS, strict=True))
    for key in KEYS:
        score, length = (earlier[key], 2) if key in earlier else next(final)
        scores.append(score)
        lengths.append(length)
    data = rollouts(scores, [key[0] for key in KEYS], lengths)
    sessions, is_final = sessions_of(KEYS)
    return data, EstimatorContext(
        raw_scores=data["token_level_rewards"].sum(-1), sessions=sessions, final=is_final, metrics={}
    )


LENGTHS = GROUPS["response_mask"].sum(-1).tolist()


def test_nothing_is_current_context_outside_and_nesting_restores():
    assert current_context() is None
    outer, inner = EstimatorContext(), EstimatorContext()
    with using_context(outer):
        with pytest.raises(KeyError), using_context(inner):
            assert current_context() is inner
            raise KeyError
        assert current_context() is outer
    assert current_context() is None


def test_sessions_of_keys_whose_uid_has_underscores_and_whose_index_has_two_digits():
    sessions, final = sessions_of(["u_1_0_9", "u_1_0_10", "pad7f_0_0", "u_1_1_0"])
    assert sessions == ["u_1_0", "u_1_0", "pad7f_0", "u_1_1"]
    assert final.tolist() == [False, True, True, True]


@pytest.mark.parametrize("key", ["justuid", "uid_0", "uid_0_x", "uid_0_"])
def test_a_key_of_another_form_is_an_error(key):
    with pytest.raises(ValueError, match=rf"batch key '{key}' is not uid_session_index"):
        sessions_of([key])


def test_acc_gives_the_weight_of_a_shaped_reward_whatever_the_threshold():
    # length-shaped rewards, all below 0: correct -0.1 .. -0.3, wrong -1.1 .. -1.3; group a has mu 1/4, b 3/4
    shaped = GROUPS["token_level_rewards"].sum(-1) - 1 - 0.1 * GROUPS["response_mask"].sum(-1)
    data = rollouts(shaped.tolist(), list(GROUPS["index"]), LENGTHS)
    acc = GROUPS["token_level_rewards"].sum(-1)
    plain, _ = get_adv_estimator_fn("f_grpo")(**data, config=algorithm(focal_gamma=0))
    with using_context(EstimatorContext(reported=told(acc), raw_scores=shaped)):
        focal, _ = get_adv_estimator_fn("f_grpo")(**data, config=algorithm(focal_gamma=1.0))
    weight = torch.tensor([0.75] * 4 + [0.25] * 4)
    torch.testing.assert_close(focal, plain * weight[:, None])


@pytest.mark.parametrize("name", BASE_ESTIMATORS)
def test_kl_in_the_reward_is_accepted_with_raw_scores_and_success_comes_from_them(name):
    config = algorithm(use_kl_in_reward=True, focal_gamma=1.0)
    penalised = dict(GROUPS, token_level_rewards=GROUPS["token_level_rewards"] - 0.9 * GROUPS["response_mask"])
    raw = GROUPS["token_level_rewards"].sum(-1)
    function = get_adv_estimator_fn(f"f_{name}")
    with pytest.raises(ValueError, match="use_kl_in_reward is True.*compute_advantage"):
        function(**penalised, config=config)
    with (
        using_context(EstimatorContext(reported=told(raw))),
        pytest.raises(ValueError, match="use_kl_in_reward is True"),
    ):
        function(**penalised, config=config)
    with using_context(EstimatorContext(raw_scores=raw)):
        focal, _ = function(**penalised, config=config)
        plain, _ = function(**penalised, config=algorithm(use_kl_in_reward=True, focal_gamma=0))
    torch.testing.assert_close(focal, plain * torch.tensor([0.75] * 4 + [0.25] * 4)[:, None])
    assert bool((plain != 0).any())


@pytest.mark.parametrize("name", BASE_ESTIMATORS)
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_a_session_with_two_outputs_counts_once(name, gamma):
    function, config = get_adv_estimator_fn(f"f_{name}"), algorithm(focal_gamma=gamma)
    one = EstimatorContext(
        raw_scores=GROUPS["token_level_rewards"].sum(-1),
        metrics={},
        **dict(
            zip(
                ("sessions", "final"),
                sessions_of([f"{uid}_{i % 4}_0" for i, uid in enumerate(GROUPS["index"])]),
                strict=True,
            )
        ),
    )
    with using_context(one):
        expected, _ = function(**GROUPS, config=config)
    data, two = with_earlier_outputs()
    with using_context(two):
        advantages, returns = function(**data, config=config)
    assert returns is advantages
    assert torch.equal(advantages[FINAL_ROWS], expected)
    # an earlier output has its session's advantage at each of its tokens
    for row, final in ((0, 1), (4, 3), (6, 7), (9, 10)):
        assert advantages[row].tolist() == pytest.approx(
            (expected[FINAL_ROWS.index(final), 0] * data["response_mask"][row]).tolist()
        )
    assert two.metrics == pytest.approx(one.metrics)
    assert {"focal/weight_mean", "focal/update_scale", "focal/train_pass@4"} <= set(one.metrics)
    # without sessions the earlier outputs would count: 2 of 6 and 5 of 6 instead of 1 of 4 and 3 of 4
    naive, _ = function(**data, config=config)
    assert not torch.allclose(naive[FINAL_ROWS], expected)


def test_gamma_zero_is_verls_own_grpo_for_sessions_bit_for_bit():
    from verl.trainer.ppo.core_algos import AdvantageEstimator
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    data, context = with_earlier_outputs()
    batch = DataProto.from_dict(
        tensors={key: data[key] for key in ("token_level_rewards", "response_mask")}, non_tensors={"uid": data["index"]}
    )
    theirs = compute_advantage_for_multi_trajectories(batch, KEYS, AdvantageEstimator.GRPO, config=algorithm())
    with using_context(context):
        ours, _ = get_adv_estimator_fn("f_grpo")(**data, config=algorithm(focal_gamma=0))
    assert ours.numpy().tobytes() == theirs.batch["advantages"].numpy().tobytes()


def test_a_method_sees_the_final_rows_alone_and_the_same_run():
    data, context = with_earlier_outputs()
    run = Run()
    context = replace(context, log_probs=torch.arange(12.0)[:, None].repeat(1, 3), run=run)
    seen = {}

    def host(token_level_rewards, response_mask, index, config, reward_baselines):
        seen.update(index=index.tolist(), baselines=reward_baselines.tolist(), context=current_context())
        return token_level_rewards, token_level_rewards

    @dataclass(frozen=True)
    class Spy(HostEstimator):
        def plain(self, rollouts, host, config, arguments):
            seen["rollouts"] = rollouts
            return super().plain(rollouts, host, config, arguments)

    estimator = Estimator(Spy("grpo"), host)
    with using_context(context):
        estimator(**data, config=algorithm(), reward_baselines=torch.arange(12), nothing_of_this_host=1)
    assert seen["baselines"] == FINAL_ROWS and seen["index"] == ["a"] * 4 + ["b"] * 4
    inside = seen["rollouts"].context
    assert inside.log_probs[:, 0].tolist() == FINAL_ROWS
    assert inside.sessions == ["a_0", "a_1", "a_2", "a_3", "b_0", "b_1", "b_2", "b_3"]
    assert inside.final.all() and inside.run is run and inside.metrics is context.metrics


def test_an_estimator_logs_weight_and_scale_without_padding_rows():
    data = rollouts([*GROUPS["token_level_rewards"].sum(-1).tolist(), 0.0], [*GROUPS["index"], "pad"], [*LENGTHS, 1])
    data["response_mask"][-1] = 0
    context = EstimatorContext(padding=torch.tensor([False] * 8 + [True]), metrics={})
    with using_context(context):
        get_adv_estimator_fn("f_grpo")(**data, config=algorithm(focal_gamma=1.0))
    # groups: mu 1/4 and 3/4, so g 3/4 and 1/4; std is the same, so |A| ~ 3/4 (the odd one out) or 1/4, times length
    a = 0.75 * 3 + 0.25 * (1 + 2 + 3)
    b = 0.25 * (2 + 2 + 1) + 0.75 * 3
    assert context.metrics["focal/weight_mean"] == pytest.approx(0.5)
    assert context.metrics["focal/update_scale"] == pytest.approx((0.75 * a + 0.25 * b) / (a + b))


def test_a_context_with_one_output_per_session_changes_no_bit():
    for name in BASE_ESTIMATORS:
        function, config = get_adv_estimator_fn(f"f_{name}"), algorithm()
        plain, _ = function(**GROUPS, config=config)
        with using_context(EstimatorContext(raw_scores=GROUPS["token_level_rewards"].sum(-1))):
            handed, _ = function(**GROUPS, config=config)
        assert plain.numpy().tobytes() == handed.numpy().tobytes()
