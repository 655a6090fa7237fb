"""What is said about a run: unexplained groups, when it is warned and when it stops, the line of proof."""

import logging

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
