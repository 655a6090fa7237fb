"""What is said about a run: unexplained groups, when it is warned and when it stops, the line of proof."""

import logging
import re

import numpy as np
import pytest
import torch

from verl_fgrpo.methods.context import EstimatorContext, Run
from verl_fgrpo.methods.settings import FocalConfig
from verl_fgrpo.methods.success import judge
from verl_fgrpo.methods.watch import STOP_AFTER, WARN_AFTER, Observed, judge_threshold, observe_step


def groups(run, count, mixed, source="", stops=True, **settings):
    """`count` groups with unequal rewards, of which the first `mixed` have 0 < mu < 1."""
    unequal, between = np.ones(count, dtype=bool), np.arange(count) < mixed
    judge_threshold(run, [source] * count, unequal, between, (0.0, 0.45), FocalConfig(**settings), stops)


def test_no_mixed_group_of_the_first_ones_stops_the_run_once_there_are_enough():
    run = Run()
    groups(run, STOP_AFTER - 1, 0)
    with pytest.raises(
        ValueError, match=rf"{STOP_AFTER} of {STOP_AFTER} groups.*threshold 0\.5, rewards of this step 0 to"
    ):
        groups(run, 1, 0)
    groups(Run(), STOP_AFTER, 0, stops=False)  # gamma 0, acc or the mean reward: nothing to stop for


def test_a_healthy_run_with_penalties_for_length_is_warned_of_at_most(caplog):
    # -1/1 with an overlong penalty: all-correct groups have unequal rewards, and some groups are mixed
    run = Run()
    for _ in range(50):
        groups(run, 10, 2)
    assert run.groups == {"": (500, 100)}
    assert len(caplog.records) == 1 and "16 of 20 groups" in caplog.text  # the first step with WARN_AFTER groups
    assert 10 < WARN_AFTER <= 20


def test_every_data_source_is_judged_for_itself():
    run = Run()
    groups(run, STOP_AFTER, STOP_AFTER, source="maths")
    with pytest.raises(ValueError, match=r"groups of code with.*threshold 0\.99"):
        groups(run, STOP_AFTER, 0, source="code", threshold_by_source={"code": 0.99})


def observe(rewards, **keys):
    """The step of groups with these rewards each, with official keys; returns what is logged or raised."""
    settings = FocalConfig.from_algorithm({"f_grpo_gamma": 1.0, **keys})
    scores = torch.tensor(rewards, dtype=torch.float64)
    codes = torch.arange(len(rewards))[:, None].expand(scores.shape).reshape(-1)
    scores = scores.reshape(-1)
    success = judge(scores, codes, settings)
    rollouts = Observed(codes, scores, success, torch.ones(len(scores), dtype=torch.bool))
    context = EstimatorContext(metrics={}, run=Run())
    for _ in range(2):
        observe_step("f_grpo", rollouts, settings, context, 1.0 - success.rate, torch.ones(len(scores)))


MINUS, HIGH = [[1.0, 1.0, 1.0, -1.0]] * WARN_AFTER, [[2.0, 0.0, 2.0, 2.0]] * WARN_AFTER


@pytest.mark.parametrize(
    ("rewards", "keys", "remedy"),
    [
        (
            MINUS,
            {"f_grpo_reward_correct": 1.0},
            r"-1 to 1.*default is 0.*\+algorithm.f_grpo_reward_wrong=-1, or 0 if",
        ),
        (HIGH, {"f_grpo_reward_wrong": 0.0}, r"0 to 2.*default is 1.*set \+algorithm.f_grpo_reward_correct=2, or 1 if"),
        (HIGH, {"f_grpo_reward_wrong": -1.0}, r"set \+algorithm.f_grpo_reward_correct=2"),
    ],
)
def test_two_rewards_of_which_one_is_beyond_a_default_end_the_run_and_more_are_warned_of(caplog, rewards, keys, remedy):
    with pytest.raises(ValueError, match=remedy):
        observe(rewards, **keys)
    for few in (rewards[:-1], [*rewards[:-1], [rewards[0][0] / 4, *rewards[0][1:]]]):  # few groups; a third reward
        caplog.clear()
        observe(few, **keys)
        assert len([line for line in caplog.messages if re.search(remedy, line)]) == 1


@pytest.mark.parametrize(
    ("rewards", "keys"),
    [
        (MINUS, {"f_grpo_reward_wrong": -1.0}),
        (MINUS, {"f_grpo_reward_wrong": 0.0, "f_grpo_reward_correct": 1.0}),  # as said: a penalty
        ([[0.0, 1.0, 0.5, 0.25]] * WARN_AFTER, {"f_grpo_reward_correct": 1.0}),  # partial credit
        ([[0.0, 1.0, 1.0, -1e-9]] * WARN_AFTER, {"f_grpo_reward_correct": 1.0}),
    ],
)
def test_rewards_within_what_is_set_are_not_warned_of(caplog, rewards, keys):
    observe(rewards, **keys)
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


def test_the_official_keys_are_named_where_they_tell_nothing(caplog):
    observe([[-1.0, 1.0, -1.0, -1.0]] * WARN_AFTER, f_grpo_reward_wrong=0.0, f_grpo_reward_correct=1.0)
    assert "f_grpo_reward_wrong 0, f_grpo_reward_correct 1, rewards of this step -1 to 1" in caplog.text
    assert "set these two to the rewards of wrong and correct rollouts" in caplog.text


def test_groups_with_equal_rewards_tell_nothing_about_the_threshold():
    run = Run()
    nothing = np.zeros(100, dtype=bool)
    judge_threshold(run, [""] * 100, nothing, nothing, (0.0, 0.0), FocalConfig(), True)
    assert run.groups == {"": (0, 0)}


def test_metrics_and_proof_of_a_step_leave_padding_out(caplog):
    caplog.set_level(logging.INFO, "verl_fgrpo")
    # group 0: rewards 1 0 (mu 1/2); group 1: .8 .6 (unequal, mu 1); group 2: 0 0; group 3: padding
    scores = torch.tensor([1.0, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0])
    codes = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    success = judge(scores, codes, FocalConfig())
    has_tokens = torch.tensor([True] * 6 + [False])
    context = EstimatorContext(metrics={}, run=Run())
    weight, magnitude = 1.0 - success.rate, torch.tensor([1.0] * 6 + [torch.nan])  # verl may leave NaN in padding
    for _ in range(2):
        observe_step("f_grpo", Observed(codes, scores, success, has_tokens), FocalConfig(), context, weight, magnitude)
    assert context.metrics["focal/unexplained_groups"] == 1.0
    assert context.metrics["focal/weight_mean"] == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert context.metrics["focal/update_scale"] == pytest.approx((2 * 0.5 + 2 * 0.0 + 2 * 1.0) / 6)
    assert (
        caplog.text.count("first update by f_grpo: gamma 0.5 (the default); success told by threshold; 3 groups x 2")
        == 1
    )
