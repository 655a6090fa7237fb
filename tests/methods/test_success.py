"""Which rollouts succeeded, from which source: acc, threshold, thresholds by source, the mean reward."""

import math

import numpy as np
import pytest
import torch

from verl_fgrpo.methods.settings import FocalConfig
from verl_fgrpo.methods.success import judge, reported_success


def correct(scores, infos=None, sources=None, codes=None, **settings):
    """The verdicts of one group, or of `codes`."""
    scores = torch.tensor(scores)
    codes = torch.zeros(len(scores), dtype=torch.int64) if codes is None else torch.tensor(codes)
    success = judge(
        scores, codes, FocalConfig.from_algorithm(settings), None if infos is None else reported_success(infos), sources
    )
    return success.correct.tolist(), success.rate.tolist(), success.source


def test_acc_of_the_reward_function_decides_whatever_the_threshold():
    infos = [{"score": -1.0, "acc": np.bool_(False)}, {"score": 0.7, "acc": True}]
    assert correct([0.9, -3.0], infos, focal_success_threshold=-7.0) == ([False, True], [0.5, 0.5], "acc")


def test_without_acc_the_threshold_decides():
    assert correct([0.9, 0.1], focal_success_threshold=0.5) == ([True, False], [0.5, 0.5], "threshold")
    assert correct([0.9, 0.1], [{"score": 0.9}, {"score": 0.1}]) == ([True, False], [0.5, 0.5], "threshold")


def test_a_bare_number_is_judged_as_the_function_returned_it():
    # D8: verl's DAPO manager keeps the number as acc and takes the penalty for length off the reward alone
    infos = [{"acc": 1.0}, {"acc": 1.0}, {"acc": 1.0}, {"acc": 0.0}]
    penalised = [0.3, 0.3, 1.0, 0.0]
    assert correct(penalised, infos) == ([True, True, True, False], [0.75] * 4, "threshold")
    assert correct(penalised) == ([False, False, True, False], [0.25] * 4, "threshold")  # what verl alone hands over


def test_one_row_without_acc_is_named():
    # D9: it used to switch the whole step to the threshold
    infos = [{"score": 1.0, "acc": 1.0}, {"score": 0.2, "acc": 0.0}, {"score": 0.0}]
    with pytest.raises(ValueError, match=r"none for rollout 2.*return acc in every dict"):
        reported_success(infos)


def test_a_reward_that_ran_out_of_time_counts_as_verl_says():
    infos = [{"score": -1.0, "acc": 1.0}, {"timeout": True, "acc": 0.0}]
    assert correct([-1.0, 0.0], infos, focal_success_threshold=-0.5) == ([True, False], [0.5, 0.5], "acc")


def test_two_reward_functions_of_which_one_returns_bare_numbers():
    infos = [{"score": -9.0, "acc": 1.0}, {"acc": -1.0}, {"acc": 1.0}]
    assert correct([-9.0, -1.0, 1.0], infos) == ([True, False, True], [2 / 3] * 3, "acc and threshold")


@pytest.mark.parametrize("value", [0.5, -1, "yes", None, float("nan")])
def test_an_acc_that_is_not_zero_or_one_is_an_error(value):
    with pytest.raises(ValueError, match=r"reports acc=.* for rollout 1, .*0 or 1.*focal_success_threshold"):
        reported_success([{"score": 1.0, "acc": 1}, {"score": 0.5, "acc": value}])


@pytest.mark.parametrize("infos", [[], [{}, {}], [{"score": 1.0}, {"score": 0.0}]])
def test_nothing_is_reported(infos):
    assert reported_success(infos) is None


def test_thresholds_by_source():
    by_source = {"openai/gsm8k": 0.5, "code": 0.99}
    sources = ["openai/gsm8k", "code", "code", "other"]
    result = correct([0.6, 0.6, 1.0, 0.6], None, sources, [0, 1, 1, 2], focal_success_threshold_by_source=by_source)
    assert result == ([True, False, True, True], [1.0, 0.5, 0.5, 1.0], "threshold")
    with pytest.raises(ValueError, match=r"names openai/gsm8k, code, but this batch does not tell the data_source"):
        correct([0.6], focal_success_threshold_by_source=by_source)


@pytest.mark.parametrize(
    ("rewards", "keys", "rate"),
    [
        ([1.0, 0.0, 0.0], {"f_grpo_reward_correct": 1.0}, 1 / 3),
        ([1.0, -1.0, -1.0, 1.0], {"f_grpo_reward_wrong": -1.0}, 1 / 2),
        ([0.25, 0.5, 0.0], {"f_grpo_reward_correct": 1.0, "f_grpo_reward_wrong": 0.0}, 0.25),  # partial credit
        ([2.0, 2.0], {"f_grpo_reward_correct": 1.0}, 1.0),  # clamped
    ],
)
def test_the_official_keys_take_the_success_rate_from_the_mean_reward(rewards, keys, rate):
    # the formula of verl #5334, written again: clamp((mean R - Rw) / (Rc - Rw), 0, 1)
    right, wrong = keys.get("f_grpo_reward_correct", 1.0), keys.get("f_grpo_reward_wrong", 0.0)
    assert rate == pytest.approx(min(max((np.mean(rewards) - wrong) / (right - wrong), 0), 1))
    infos = [{"score": r, "acc": 0.0} for r in rewards]  # acc is overruled
    _, rates, source = correct(rewards, infos, f_grpo_gamma=1.0, **keys)
    assert rates == pytest.approx([rate] * len(rewards)) and source == "mean reward"


def test_with_the_official_keys_a_rollout_counts_as_correct_above_the_middle():
    result = correct([0.2, -0.2], f_grpo_gamma=1.0, f_grpo_reward_wrong=-1.0)
    assert result[0] == [True, False] and math.isclose(result[1][0], 0.5)
