"""The focal math: golden values with the arithmetic in view, then properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.core.focal import (
    focal_weight,
    group_codes,
    mean_reward_success_rate,
    normalized_weight,
    success_rate,
    success_rate_from_advantage,
    update_scale,
)


def test_group_codes_number_groups_in_order_of_first_appearance():
    codes, labels = group_codes(np.array(["b", "a", "b", "c"], dtype=object))
    assert codes.tolist() == [0, 1, 0, 2]
    assert labels == ["b", "a", "c"]


def test_success_rate_golden():
    # group 0 holds rows 0, 2, 3 with one of three correct; group 1 holds row 1, correct
    scores = torch.tensor([1.0, 1.0, 0.0, 0.0])
    codes = torch.tensor([0, 1, 0, 0])
    assert success_rate(scores, codes).tolist() == [1 / 3, 1.0, 1 / 3, 1 / 3]


def test_normalized_weight_golden():
    # groups with mu = 1/4 (4 rows), 3/4 (2 rows), 1, 0; gamma 1: weights 3/4, 1/4, 0, 1; the mean over the two active
    # groups is 1/2 whatever their size, so 3/2, 1/2, 0, 2
    codes = torch.tensor([0, 1, 2, 0, 0, 0, 1, 3])
    mu = torch.tensor([0.25, 0.75, 1.0, 0.0], dtype=torch.float64)[codes]
    expected = torch.tensor([1.5, 0.5, 0.0, 2.0], dtype=torch.float64)[codes]
    assert torch.equal(normalized_weight(focal_weight(mu, 1.0), mu, codes), expected)
    inactive = torch.tensor([0.0, 1.0], dtype=torch.float64)  # nothing to divide by: the plain weight
    assert normalized_weight(1 - inactive, inactive, torch.tensor([0, 1])).tolist() == [1.0, 0.0]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.floats(0, 3))
def test_normalized_weights_of_active_groups_average_to_one(correct, gamma):
    mu = torch.tensor([x / 8 for x in correct], dtype=torch.float64).repeat(8)
    codes = torch.arange(len(correct)).repeat(8)
    weight = normalized_weight(focal_weight(mu, gamma), mu, codes)
    active = (mu > 0) & (mu < 1)
    if bool(active.any()):
        assert float(weight[active].mean()) == pytest.approx(1.0)
    if gamma == 0:
        assert bool((weight == 1).all())


def test_threshold_separates_minus_one_and_one():
    scores = torch.tensor([1.0, -1.0, -1.0, 1.0])
    codes = torch.tensor([0, 0, 1, 1])
    assert success_rate(scores, codes, threshold=0.0).tolist() == [0.5] * 4
    # with an overlong penalty of up to 1 a correct rollout may score 0.2, a wrong one -2: -0.5 still tells them apart
    assert success_rate(torch.tensor([0.2, -2.0]), torch.tensor([0, 0]), threshold=-0.5).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("mu", "gamma", "expected"),
    [
        (0.0, 0.5, 1.0),  # nothing solved: full weight
        (0.75, 0.5, 0.5),  # sqrt(1 - 0.75) = sqrt(0.25)
        (0.75, 1.0, 0.25),
        (0.75, 2.0, 0.0625),  # 0.25 ** 2
        (1.0, 0.5, 0.0),
        (1.0, 0.0, 1.0),  # gamma 0 is the base method also where 0 ** 0 is needed
    ],
)
def test_focal_weight_golden(mu, gamma, expected):
    assert focal_weight(torch.tensor(mu, dtype=torch.float64), gamma).item() == expected


@given(
    group_size=st.integers(2, 128),
    data=st.data(),
    divided_by_std=st.booleans(),
)
def test_success_rate_is_recovered_from_the_advantage(group_size, data, divided_by_std):
    num_correct = data.draw(st.integers(1, group_size - 1))
    rewards = torch.tensor([1.0] * num_correct + [0.0] * (group_size - num_correct), dtype=torch.float64)
    advantage = rewards - rewards.mean()
    if divided_by_std:
        advantage = advantage / rewards.std()
    mu, off = success_rate_from_advantage(advantage, group_size, divided_by_std)
    assert not off.any()
    np.testing.assert_allclose(mu.numpy(), num_correct / group_size, rtol=1e-12)


def test_recovery_golden_values():
    # N = 8, X = 2, mu = 1/4: A+^2 = 3 * 7/8 = 2.625, A-^2 = (1/3) * 7/8
    a = torch.tensor([math.sqrt(2.625), -math.sqrt(7 / 24), 0.0], dtype=torch.float64)
    np.testing.assert_allclose(success_rate_from_advantage(a, 8)[0].numpy(), [0.25, 0.25, 0.0], rtol=1e-12)


@given(group_size=st.integers(2, 16), data=st.data(), divided_by_std=st.booleans(), spread=st.sampled_from([1.0, 2.0]))
def test_a_group_that_lost_rollouts_is_recovered_too(group_size, data, divided_by_std, spread):
    size = data.draw(st.integers(max(group_size // 2 + 1, 2), group_size))
    num_correct = data.draw(st.integers(1, size - 1))
    rewards = torch.tensor([1.0] * num_correct + [0.0] * (size - num_correct))
    advantage = rewards - rewards.mean()
    if divided_by_std:
        advantage = advantage * spread / ((rewards * spread).std() + 1e-6)  # as verl does, in float32
    mu, off = success_rate_from_advantage(advantage, group_size, divided_by_std)
    assert not off.any()
    np.testing.assert_allclose(mu.numpy(), num_correct / size, rtol=1e-12)


def test_what_no_group_can_have_is_told():
    # undivided A of 0/1 rewards is below 1; 0.55 and 0.3 are no multiples of 1/4 or 1/3; a group of 2 lost half
    a = torch.tensor([1.0, -1.0, 1.75, 0.55, -0.3, 0.5, 0.0])
    mu, off = success_rate_from_advantage(a, 4, divided_by_std=False)
    assert off.tolist() == [True] * 5 + [False] * 2
    assert mu.tolist()[5:] == [0.5, 0.0] and bool(mu[:5].isnan().all())


def test_mean_reward_success_rate_on_ragged_groups():
    codes = torch.tensor([0, 1, 0, 1, 1])
    assert mean_reward_success_rate(
        torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0]), codes, -1.0, 1.0
    ).tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 2, 2 / 3, 2 / 3])
    # partial credit: (0.2 + 0.7) / 2 between 0.1 and 0.9; and clamped where the mean lies outside
    assert mean_reward_success_rate(torch.tensor([0.2, 0.7]), torch.tensor([0, 0]), 0.1, 0.9).tolist() == pytest.approx(
        [0.35 / 0.8] * 2
    )
    assert mean_reward_success_rate(torch.tensor([-3.0, 2.0]), torch.tensor([0, 1]), 0.0, 1.0).tolist() == [0.0, 1.0]


def test_recovery_refuses_a_group_of_one():
    with pytest.raises(ValueError, match=r"group_size is 1.*rollout\.n"):
        success_rate_from_advantage(torch.zeros(1), 1)


def test_update_scale_of_the_paper():
    assert update_scale(0.0) == pytest.approx(1.0, abs=1e-15)
    assert update_scale(0.5) == pytest.approx(0.679, abs=5e-4)  # arXiv 2602.06717 App. N: lr 1e-6 -> 6.8e-7
    # B(3/2, gamma + 3/2) / B(3/2, 3/2) by direct integration of p^(1/2) (1-p)^(gamma + 1/2)
    p = (np.arange(200_000) + 0.5) / 200_000
    for gamma in (0.3, 1.0, 2.0):
        ratio = np.mean(p**0.5 * (1 - p) ** (gamma + 0.5)) / np.mean((p * (1 - p)) ** 0.5)
        assert update_scale(gamma) == pytest.approx(ratio, rel=1e-5)
    with pytest.raises(ValueError, match="gamma is -1"):
        update_scale(-1.0)


@given(
    mu=st.floats(0, 1),
    lower=st.floats(0, 4),
    step=st.floats(0, 4),
)
def test_weight_stays_in_the_unit_interval_and_falls_with_gamma(mu, lower, step):
    rate = torch.tensor(mu, dtype=torch.float64)
    low, high = focal_weight(rate, lower).item(), focal_weight(rate, lower + step).item()
    assert 0.0 <= high <= low <= 1.0
