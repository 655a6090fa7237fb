"""Advantage magnitudes against verl-free GRPO arithmetic, and their mean against the low-LR multiplier."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from verl_fgrpo.core.focal import update_scale
from verl_fgrpo.theory.figures import mean_absolute_advantage


@given(correct=st.integers(0, 16), gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_equals_grpo_arithmetic(correct, gamma):
    rewards = np.array([1.0] * correct + [0.0] * (16 - correct))
    spread = rewards.std()
    advantages = (rewards - rewards.mean()) / spread if spread else np.zeros(16)
    weight = (1 - correct / 16) ** gamma
    assert mean_absolute_advantage(correct / 16, gamma) == pytest.approx(weight * np.abs(advantages).mean(), abs=1e-15)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_mean_over_success_rates_is_the_low_lr_multiplier(gamma):
    def mean(g):
        return quad(lambda mu: float(mean_absolute_advantage(mu, g)), 0.0, 1.0)[0]

    assert mean(gamma) / mean(0.0) == pytest.approx(update_scale(gamma), rel=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="mu"):
        mean_absolute_advantage(1.1, 0.5)
    with pytest.raises(ValueError, match="focal_gamma"):
        mean_absolute_advantage(0.5, -0.5)
