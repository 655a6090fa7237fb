"""Tail-miss closed form against enumeration, exact rational arithmetic, Monte Carlo, and its own shape."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.core.tail_miss import (
    SafeGroupSizes,
    activity_probability,
    peak_group_size,
    safe_group_sizes,
    tail_miss_probability,
)


def by_enumeration(tau, mu, n):
    """Sum the probability of every sequence of n rollouts that is active and shows no rare one."""
    mass = {"rare": tau, "common": mu - tau, "wrong": 1.0 - mu}
    total = 0.0
    for group in product(mass, repeat=n):
        correct = sum(kind != "wrong" for kind in group)
        if 0 < correct < n and "rare" not in group:
            total += np.prod([mass[kind] for kind in group])
    return total


def exactly(tau, mu, n):
    """The same binary numbers in rational arithmetic: no rounding at all."""
    tau, mu = Fraction(tau), Fraction(mu)
    return (1 - tau) ** n - (mu - tau) ** n - (1 - mu) ** n


def test_golden_values():
    # tau 0.1, mu 0.5, N 2: 0.9^2 - 0.4^2 - 0.5^2 = 0.81 - 0.16 - 0.25 = 0.40 = 2 * 0.4 * 0.5
    assert tail_miss_probability(0.1, 0.5, 2) == pytest.approx(0.40, abs=1e-15)
    # N 3: 0.729 - 0.064 - 0.125
    assert tail_miss_probability(0.1, 0.5, 3) == pytest.approx(0.540, abs=1e-15)
    # active, mu 0.5, N 3: 1 - 0.125 - 0.125
    assert activity_probability(0.5, 3) == pytest.approx(0.75, abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("tau", "mu"), [(0.0, 0.4), (0.05, 0.5), (0.2, 0.2), (0.3, 0.9), (0.01, 1.0), (0.0, 0.0)])
def test_equals_enumeration_of_all_groups(tau, mu, n):
    assert tail_miss_probability(tau, mu, n) == pytest.approx(by_enumeration(tau, mu, n), abs=1e-13)


@pytest.mark.parametrize("n", [2, 3, 64, 1024, 2000])
@pytest.mark.parametrize("mu", [1e-9, 1e-6, 0.03, 0.5, 0.97, 1 - 1e-6, 1 - 1e-9])
@pytest.mark.parametrize("share", [1e-9, 1e-4, 0.1, 0.5, 1 - 1e-6])
def test_relative_accuracy_against_rationals(share, mu, n):
    tau = share * mu
    exact = exactly(tau, mu, n)
    # inputs a = mu - tau and b = 1 - mu are rounded once each; a power multiplies a relative rounding by n
    cancelled = 1e-16 / min((mu - tau) / mu, 1.0 - mu if mu > 0.5 else 1.0)
    assert float(tail_miss_probability(tau, mu, n)) == pytest.approx(float(exact), rel=4e-15 * n + 4 * n * cancelled)


@pytest.mark.parametrize("tau", [1e-9, 1e-7, 1e-5])
def test_a_million_rollouts(tau):
    # (0.5 - tau)^1e6 and 0.5^1e6 are below the smallest float: what is left is (1 - tau)^1e6 = exp(1e6 * log1p(-tau)).
    assert tail_miss_probability(tau, 0.5, 10**6) == pytest.approx(np.exp(1e6 * np.log1p(-tau)), rel=1e-12)
    # A prompt solved once in 1e9: active about 1e6 * 1e-9 of the time, then mostly by the other 90% of correct mass.
    expected = 1e6 * 0.9e-9
    assert tail_miss_probability(1e-10, 1e-9, 10**6) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("tau", "mu", "n"), [(0.03, 0.3, 8), (0.005, 0.05, 32), (0.08, 0.8, 16)])
def test_monte_carlo(tau, mu, n):
    groups = np.random.default_rng(7).multinomial(n, [tau, mu - tau, 1 - mu], size=200_000)
    rare, wrong = groups[:, 0], groups[:, 2]
    hit = np.mean((rare == 0) & (wrong > 0) & (wrong < n))
    p = float(tail_miss_probability(tau, mu, n))
    assert abs(hit - p) < 4.5 * np.sqrt(p * (1 - p) / 200_000)


def test_broadcasts():
    risk = tail_miss_probability(np.array([[0.01], [0.1]]), 0.5, np.array([2, 8, 64]))
    assert risk.shape == (2, 3)
    assert risk[1, 1] == tail_miss_probability(0.1, 0.5, 8)


probabilities = st.floats(0.0, 1.0)
sizes = st.integers(1, 10**6)


@given(mu=probabilities, share=probabilities, n=sizes)
def test_is_a_probability_below_activity(mu, share, n):
    risk, active = float(tail_miss_probability(share * mu, mu, n)), float(activity_probability(mu, n))
    assert 0.0 <= risk <= active * (1 + 1e-9) + 1e-300
    assert active <= 1.0 + 1e-12


@given(mu=probabilities, low=probabilities, high=probabilities, n=sizes)
def test_a_rarer_set_is_missed_more_often(mu, low, high, n):
    low, high = sorted((low, high))
    rarer = float(tail_miss_probability(low * mu, mu, n))
    assert rarer >= float(tail_miss_probability(high * mu, mu, n)) * (1 - 1e-9) - 1e-12


@given(mu=st.floats(0.001, 0.999), share=st.floats(0.001, 0.999))
def test_peak_is_the_maximum(mu, share):
    tau = share * mu
    peak = peak_group_size(tau, mu)
    around = np.unique(np.clip(np.geomspace(1, 4 * peak + 64, 400).astype(int), 1, None))
    at_peak = float(tail_miss_probability(tau, mu, peak))
    assert np.all(tail_miss_probability(tau, mu, around) <= at_peak * (1 + 1e-9))
    assert peak >= 2


def test_peak_golden():
    # mu 0.5, rho 0.1 (tau 0.05): by brute force over N
    sizes = np.arange(1, 2000)
    for mu, rho in [(0.5, 0.1), (0.8, 0.01), (0.2, 0.2), (0.5, 0.01)]:
        risk = tail_miss_probability(rho * mu, mu, sizes)
        assert peak_group_size(rho * mu, mu) == sizes[np.argmax(risk)]


@given(mu=st.floats(0.01, 0.99), share=st.floats(0.01, 0.99), target=st.floats(0.01, 0.99))
def test_safe_group_sizes_are_safe_and_tight(mu, share, target):
    tau = share * mu
    safe = safe_group_sizes(tau, mu, target)
    assert tail_miss_probability(tau, mu, safe.at_least) <= target
    if safe.at_most is None:
        assert safe.at_least == 1
        assert tail_miss_probability(tau, mu, peak_group_size(tau, mu)) <= target
    else:
        assert tail_miss_probability(tau, mu, safe.at_most) <= target
        assert tail_miss_probability(tau, mu, safe.at_most + 1) > target
        assert tail_miss_probability(tau, mu, safe.at_least - 1) > target


def test_never_at_risk():
    assert safe_group_sizes(0.3, 0.3, 0.01) == SafeGroupSizes(at_most=None, at_least=1)
    assert safe_group_sizes(0.3, 1.0, 0.01) == SafeGroupSizes(at_most=None, at_least=1)


@pytest.mark.parametrize(
    ("tau", "mu", "n", "word"),
    [
        (0.5, 0.3, 8, "tau"),
        (-0.1, 0.3, 8, "tau"),
        (0.1, 1.2, 8, "mu"),
        (0.1, 0.3, 0, "n must"),
        (0.1, 0.3, 2.5, "n must"),
    ]
    + [(float("nan"), 0.3, 8, "tau"), (0.1, float("nan"), 8, "mu"), (0.1, 0.3, float("inf"), "n must")],
)
def test_bad_input(tau, mu, n, word):
    with pytest.raises(ValueError, match=word):
        tail_miss_probability(tau, mu, n)


def test_bad_targets():
    with pytest.raises(ValueError, match="target"):
        safe_group_sizes(0.1, 0.3, 1.0)
    with pytest.raises(ValueError, match="no worst group size"):
        peak_group_size(0.0, 0.3)
