"""The subsampling test against full enumeration and against a naive implementation that really shuffles."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.evaluation.significance import (
    bootstrap_over_problems,
    paired_subsample_test,
    subsample_tests,
)


def enumerate_differences(base: list[int], focal: list[int], n: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact distribution of D: every m-subset of every problem's 0/1 outcomes, for both models."""

    def one_model(counts: list[int]) -> Counter[float]:
        total: Counter[float] = Counter({0.0: 1})
        for c in counts:
            outcomes = [1] * c + [0] * (n - c)
            drawn = Counter(sum(subset) for subset in itertools.combinations(outcomes, m))
            step: Counter[float] = Counter()
            for so_far, ways in total.items():
                for x, more in drawn.items():
                    step[round(so_far + float(pass_at_k(m, x, k)) / len(counts), 12)] += ways * more
            total = step
        return total

    distribution: Counter[float] = Counter()
    for (b, ways_b), (f, ways_f) in itertools.product(one_model(base).items(), one_model(focal).items()):
        distribution[round(f - b, 10)] += ways_b * ways_f
    values = np.array(sorted(distribution))
    mass = np.array([distribution[value] for value in values], dtype=float)
    return values, mass / mass.sum()


@pytest.mark.parametrize(
    ("base", "focal", "n", "m", "k"),
    [([3, 0, 6], [4, 2, 6], 6, 3, 1), ([3, 0, 6], [4, 2, 6], 6, 3, 2), ([1, 2], [5, 6], 8, 4, 4), ([7], [1], 8, 3, 3)],
)
def test_interval_and_p_equal_full_enumeration(base: list[int], focal: list[int], n: int, m: int, k: int) -> None:
    values, mass = enumerate_differences(base, focal, n, m, k)
    result = paired_subsample_test(base, focal, n, k, m=m, iterations=200_000, rng=7)
    cdf = np.cumsum(mass)
    # A quantile of a discrete law jumps; allow the neighbours whose probability is within Monte Carlo error (4 sd).
    error = 4 * np.sqrt(0.025 * 0.975 / 200_000)
    for level, quantile in zip((0.025, 0.975), result.interval, strict=True):
        possible = values[(cdf >= level - error) & (cdf - mass <= level + error)]
        assert possible.min() - 1e-9 <= quantile <= possible.max() + 1e-9
    exact_p = min(1.0, 2 * min(mass[values <= 1e-9].sum(), mass[values >= -1e-9].sum()))
    assert result.p_value == pytest.approx(exact_p, abs=2 * 4 * np.sqrt(0.25 / 200_000))
    # pass@k on a subsample is unbiased: the exact mean of D is the full-sample difference.
    assert result.difference == pytest.approx(float(values @ mass), abs=1e-8)
    assert result.standard_deviation == pytest.approx(float(np.sqrt(mass @ (values - values @ mass) ** 2)), rel=0.02)


def naive_differences(base: np.ndarray, focal: np.ndarray, n: int, m: int, k: int, rounds: int) -> np.ndarray:
    """Shuffle 0/1 outcomes of every problem in every round and count: nothing shared with the implementation."""
    rng = np.random.default_rng(123)
    outcomes = [np.arange(n)[None, :] < counts[:, None] for counts in (base, focal)]
    differences = np.empty(rounds)
    for iteration in range(rounds):
        means = []
        for table in outcomes:
            drawn = rng.permuted(table, axis=1)[:, :m].sum(axis=1)
            means.append(pass_at_k(m, drawn, k).mean())
        differences[iteration] = means[1] - means[0]
    return differences


@pytest.mark.parametrize("k", [1, 8, 64])
def test_large_case_agrees_with_a_naive_implementation(k: int) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 257, 40)
    base[:10] = [0, 0, 1, 1, 2, 2, 3, 256, 256, 255]
    focal = np.clip(base + rng.integers(-3, 6, 40), 0, 256)
    rounds = 2_000
    naive = naive_differences(base, focal, 256, 64, k, rounds)
    result = paired_subsample_test(base, focal, 256, k, m=64, rng=1)
    spread = naive.std()
    assert result.standard_deviation == pytest.approx(spread, rel=5 / np.sqrt(2 * rounds))
    assert result.difference == pytest.approx(naive.mean(), abs=5 * spread / np.sqrt(rounds))
    # The sd of a 2.5% quantile of a normal sample is about 2.7 * sd / sqrt(rounds).
    np.testing.assert_allclose(result.interval, np.quantile(naive, [0.025, 0.975]), atol=5 * 2.7 * spread / rounds**0.5)
    naive_p = min(1.0, 2 * min((naive <= 0).mean(), (naive >= 0).mean()))
    assert result.p_value == pytest.approx(naive_p, abs=5 * 2 * np.sqrt(0.25 / rounds))


def test_swapping_the_models_mirrors_the_result() -> None:
    base, focal = [10, 20, 0, 64], [30, 25, 1, 60]
    forward = paired_subsample_test(base, focal, 64, 4, m=16, rng=3)
    backward = paired_subsample_test(focal, base, 64, 4, m=16, rng=3)
    assert backward.difference == pytest.approx(-forward.difference, abs=1e-15)
    np.testing.assert_allclose(backward.interval, [-forward.interval[1], -forward.interval[0]], atol=0.01)


def test_identical_deterministic_models_differ_in_nothing() -> None:
    result = paired_subsample_test([0, 8, 0], [0, 8, 0], 8, 2, m=4, iterations=1000)
    assert (result.difference, result.interval, result.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert not result.significant


def test_a_certain_win_has_the_smallest_p() -> None:
    result = paired_subsample_test([0, 0], [8, 8], 8, 1, m=4, iterations=999)
    assert result.difference == 1.0
    assert result.p_value == pytest.approx(2 / 1000)
    assert result.significant


def test_variance_for_k_1_is_the_finite_population_formula() -> None:
    # One problem per model, k = 1: D is a difference of two means of m draws without replacement.
    n, m, b, f = 1024, 256, 300, 700
    result = paired_subsample_test([b], [f], n, 1, m=m, rng=5)
    variance = sum(c / n * (1 - c / n) / m * (n - m) / (n - 1) for c in (b, f))
    assert result.standard_deviation == pytest.approx(np.sqrt(variance), rel=0.02)


def test_several_k_share_draws_and_equal_single_calls() -> None:
    base, focal = [1, 2, 30], [3, 2, 31]
    together = subsample_tests(base, focal, 32, [1, 4, 8], m=8, iterations=500, rng=9)
    for k, result in together.items():
        assert result == paired_subsample_test(base, focal, 32, k, m=8, iterations=500, rng=9)


def test_groups_average_the_benchmarks_not_the_problems() -> None:
    # Benchmark a has three problems with gain 1, b one with gain 0: Avg. is 1/2, the mean over problems 3/4.
    result = paired_subsample_test([0, 0, 0, 4], [4, 4, 4, 4], 4, 1, m=2, iterations=10, groups=["a", "a", "a", "b"])
    assert result.difference == pytest.approx(0.5)
    boot = bootstrap_over_problems([0, 0, 0, 1], [1, 1, 1, 1], groups=["a", "a", "a", "b"], iterations=10)
    assert boot.estimate == pytest.approx(0.5)


def test_per_problem_num_samples_of_each_model() -> None:
    result = paired_subsample_test([2, 3], [4, 4], [4, 6], 1, m=2, iterations=100, focal_num_samples=[8, 8])
    assert result.base == pytest.approx((2 / 4 + 3 / 6) / 2)
    assert result.focal == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore:m=4 is more than half")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": 300}, "m=300 exceeds num_samples=256"),
        ({"num_samples": [256, 100], "m": 128}, "m=128 exceeds num_samples=100"),
        ({"k": 65}, r"k=65 must lie in 1..m=64"),
        ({"k": 0}, r"k=0 must lie in 1..m=64"),
        ({"focal_correct": [1]}, "base has 2 problems and focal has 1"),
        ({"base_correct": [], "focal_correct": []}, "non-empty"),
        ({"base_correct": [300, 1]}, "num_correct=300 exceeds num_samples=256"),
        ({"iterations": 0}, "iterations=0"),
        ({"groups": ["a"]}, "one label per problem"),
    ],
)
def test_bad_input_is_refused_not_lowered(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "base_correct": [1, 2],
        "focal_correct": [3, 4],
        "num_samples": 256,
        "k": 1,
        "m": 64,
        "iterations": 10,
    }
    with pytest.raises(ValueError, match=message):
        paired_subsample_test(**{**arguments, **changes})  # type: ignore[arg-type]


def test_a_subsample_above_half_warns() -> None:
    with pytest.warns(UserWarning, match="more than half"):
        result = paired_subsample_test([1], [3], 4, 1, m=4, iterations=10)
    assert result.interval == pytest.approx((0.5, 0.5), abs=1e-12)


def test_bootstrap_golden() -> None:
    # Two problems, scores 0 and 1: the mean of a resample is 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    result = bootstrap_over_problems([0.0, 1.0], iterations=40_000, rng=0)
    assert result.estimate == 0.5
    assert result.interval == (0.0, 1.0)
    assert result.p_value is None


def test_bootstrap_of_a_difference_matches_the_normal_approximation() -> None:
    rng = np.random.default_rng(4)
    base, focal = rng.random(500), rng.random(500)
    result = bootstrap_over_problems(base, focal, rng=0)
    error = (focal - base).std() / np.sqrt(500)
    np.testing.assert_allclose(result.interval, result.estimate + np.array([-1.96, 1.96]) * error, atol=0.15 * error)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16)), min_size=1, max_size=6), st.integers(1, 8))
def test_interval_contains_the_difference_and_p_is_a_probability(pairs: list[tuple[int, int]], k: int) -> None:
    base, focal = np.array(pairs).T
    result = paired_subsample_test(base, focal, 16, k, m=8, iterations=2000, rng=0)
    assert -1 <= result.interval[0] <= result.interval[1] <= 1
    assert 0 < result.p_value <= 1
    if result.significant:
        assert result.p_value <= 0.05 + 2 * 2 / 2001
