"""The metrics of a step: golden values, agreement with the theory, edge cases, verl's own averaging."""

from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.core.tail_miss import tail_miss_probability
from verl_fgrpo.methods.metrics import count_groups, group_metrics, tail_miss_estimate, weight_metrics


def test_golden_group_metrics():
    # four groups of four with 0, 1, 2 and 4 correct
    metrics = group_metrics([0, 1, 2, 4], [4, 4, 4, 4])
    assert metrics == pytest.approx(
        {
            "focal/active_share": 2 / 4,
            "focal/all_correct_share": 1 / 4,
            "focal/all_wrong_share": 1 / 4,
            "focal/tail_miss_risk": (0.9 + 0.81) / 4,
            # rates 0, 1/4, 1/2, 1 at positions 0, 1, 2, 3 of 3: p10 at 0.3, p25 at 0.75, p50 at 1.5, p75 at 2.25, ...
            "focal/success_rate/p10": 0.3 * 0.25,
            "focal/success_rate/p25": 0.75 * 0.25,
            "focal/success_rate/p50": 0.375,
            "focal/success_rate/p75": 0.5 + 0.25 * 0.5,
            "focal/success_rate/p90": 0.5 + 0.7 * 0.5,
            "focal/train_pass@1": (0 + 1 / 4 + 2 / 4 + 1) / 4,
            "focal/train_pass@2": (0 + 1 / 2 + 5 / 6 + 1) / 4,  # 1 - C(3,2)/C(4,2), 1 - C(2,2)/C(4,2)
            "focal/train_pass@4": 3 / 4,
        }
    )


def test_groups_that_lost_a_rollout_count_for_the_k_they_can_tell():
    metrics = group_metrics([1, 1], [4, 3])
    assert metrics["focal/train_pass@1"] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert metrics["focal/train_pass@4"] == 1.0  # of the full group alone
    assert {key for key in group_metrics([3], [6]) if "pass" in key} == {f"focal/train_pass@{k}" for k in (1, 2, 4, 6)}


def test_a_group_of_one_is_inactive_and_no_groups_give_nothing():
    metrics = group_metrics([1, 0], [1, 1])
    assert (metrics["focal/active_share"], metrics["focal/tail_miss_risk"]) == (0.0, 0.0)
    assert metrics["focal/train_pass@1"] == 0.5
    assert group_metrics([], []) == {}


@given(mu=st.floats(0.0, 1.0), n=st.integers(1, 12), share=st.floats(0.0, 1.0))
def test_the_expected_tail_miss_estimate_is_the_lemmas_probability(mu, n, share):
    x = np.arange(n + 1)
    binomial = np.array([comb(n, int(k)) for k in x]) * mu**x * (1 - mu) ** (n - x)
    expected = float(binomial @ tail_miss_estimate(x, n, share))
    assert expected == pytest.approx(float(tail_miss_probability(share * mu, mu, n)), abs=1e-12)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_rare_share_that_is_no_share_is_an_error(share):
    with pytest.raises(ValueError, match=r"rare_share is .*0 to 1"):
        tail_miss_estimate([1], [4], share)


def test_count_groups():
    num_correct, size = count_groups(torch.tensor([True, False, False, True, True]), torch.tensor([0, 1, 2, 2, 0]))
    assert (num_correct.tolist(), size.tolist()) == ([2, 0, 1], [2, 1, 2])


def test_golden_weight_metrics():
    weight = torch.tensor([0.5, 0.5, 0.5, 0.0])
    magnitude = torch.tensor([2.0, 1.0, 1.0, 4.0])
    codes = torch.tensor([0, 0, 0, 1])
    # groups weigh alike in the mean: (0.5 + 0) / 2; rows by magnitude in the scale: 0.5 * 4 / 8
    assert weight_metrics(weight, magnitude, codes) == {"focal/weight_mean": 0.25, "focal/update_scale": 0.25}
    assert weight_metrics(weight[:3], magnitude[:3], codes[:3]) == {"focal/weight_mean": 0.5, "focal/update_scale": 0.5}


def test_without_an_active_group_there_is_no_update_scale():
    codes = torch.tensor([0, 0])
    assert weight_metrics(torch.ones(2), torch.zeros(2), codes) == {"focal/weight_mean": 1.0}


def test_verl_averages_every_metric_over_the_updates_of_a_step():
    """Its rule goes by words in the name: "min", "max", "sum" or "total" in one would give something else."""
    from verl.trainer.ppo.v1.utils import MetricsAggregator

    names = [*group_metrics([1, 2], [8, 8]), *weight_metrics(torch.ones(1), torch.ones(1), torch.zeros(1).long())]
    aggregator = MetricsAggregator()
    aggregator.add_step_metrics(dict.fromkeys(names, 0.0), sample_count=1)
    aggregator.add_step_metrics(dict.fromkeys(names, 1.0), sample_count=3)
    assert aggregator.get_aggregated_metrics() == pytest.approx(dict.fromkeys(names, 0.75))
