"""pass@k and pass^k against exact fractions."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_fgrpo.core.passk import (
    auc_at_k,
    cover_at_tau,
    pass_at_k,
    pass_at_k_curve,
    pass_at_k_table,
    pass_hat_k,
    powers_of_two,
    sequential_pass_at_k,
    sequential_pass_at_k_curve,
)


def exact_pass_at_k(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(comb(n - c, k), comb(n, k))


def test_golden_values() -> None:
    # n=4, c=2, k=2: of the 6 pairs one is wrong-wrong, so 5/6; all right in one of 6.
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6, abs=1e-15)
    assert pass_hat_k(4, 2, 2) == pytest.approx(1 / 6, abs=1e-15)
    # k=1 is the share of correct samples, k=n is "solved at all".
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3, abs=1e-15)
    np.testing.assert_array_equal(pass_at_k(10, [0, 1, 10], 10), [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(pass_hat_k(10, [0, 9, 10], 10), [0.0, 0.0, 1.0])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100])
def test_every_count_and_k_agree_with_fractions(n: int) -> None:
    for k in range(1, n + 1):
        exact = [exact_pass_at_k(n, c, k) for c in range(n + 1)]
        np.testing.assert_allclose(pass_at_k(n, np.arange(n + 1), k), np.array(exact, dtype=float), rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            pass_hat_k(n, np.arange(n + 1), k),
            np.array([Fraction(comb(c, k), comb(n, k)) for c in range(n + 1)], dtype=float),
            rtol=0,
            atol=1e-12,
        )


@pytest.mark.parametrize("n", [1024, 4096])
@pytest.mark.parametrize("k", [1, 2, 3, 17, 256, 512, 1000, 1023, 1024, 2048, 4095, 4096])
def test_every_count_at_large_n_agrees_with_fractions(n: int, k: int) -> None:
    if k > n:
        with pytest.raises(ValueError, match=f"k={k} exceeds num_samples={n}"):
            pass_at_k(n, 0, k)
        return
    # Exact recurrence over c: miss(c+1) = miss(c) * (n-c-k) / (n-c), kept as one integer over comb(n, k).
    numerator = denominator = comb(n, k)
    exact = []
    for c in range(n + 1):
        assert numerator == comb(n - c, k) or c > 3  # the recurrence itself, where it is cheap to check
        exact.append((denominator - numerator) / denominator)  # int / int is correctly rounded
        if c < n:
            numerator = numerator * max(0, n - c - k) // (n - c)
    assert numerator == 0  # comb(0, k)
    np.testing.assert_allclose(pass_at_k(n, np.arange(n + 1), k), exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(pass_at_k_table(n, k), exact, rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_random_triples_agree_with_fractions(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4096))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    assert float(pass_at_k(n, c, k)) == pytest.approx(float(exact_pass_at_k(n, c, k)), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1))
def test_monotone_in_k_and_bounded(pairs: list[tuple[int, int]]) -> None:
    n, c = np.array(pairs).T
    ks = np.arange(1, n.min() + 1)
    values = pass_at_k(n[:, None], c[:, None], ks[None, :])
    assert values.shape == (len(n), len(ks))
    assert np.all((values >= 0) & (values <= 1))
    assert np.all(np.diff(values, axis=1) >= -1e-15)


def test_broadcasts_over_problems_with_their_own_n() -> None:
    n, c = np.array([4, 8]), np.array([2, 3])
    values = pass_at_k(n[:, None], c[:, None], [[1, 2]])
    expected = [[float(exact_pass_at_k(4, 2, k)) for k in (1, 2)], [float(exact_pass_at_k(8, 3, k)) for k in (1, 2)]]
    np.testing.assert_allclose(values, expected, atol=1e-15)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 2, 5, "k=5 exceeds num_samples=4"),
        ([8, 4], [2, 2], 5, "k=5 exceeds num_samples=4"),
        (4, 5, 1, "num_correct=5 exceeds num_samples=4"),
        (4, -1, 1, "must not be negative"),
        (4, 2, 0, "k=0 must be at least 1"),
        (0, 0, 1, "num_samples=0"),
        (4, 1.5, 1, "whole numbers"),
        (4, float("nan"), 1, "whole numbers"),
        (4, "2", 1, "whole numbers"),
    ],
)
def test_bad_input_is_named(n: object, c: object, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)  # type: ignore[arg-type]


def test_powers_of_two() -> None:
    assert powers_of_two(1) == [1]
    assert powers_of_two(1024)[-1] == 1024
    assert powers_of_two(1000) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("cap", range(1, 11))
def test_the_sequential_estimator_is_unbiased_over_all_sequences(r: int, cap: int) -> None:
    """Every sequence of `cap` outcomes, cut at its r-th correct one and weighted by its probability."""
    outcomes = np.array(list(itertools.product((0, 1), repeat=cap)))
    seen = outcomes.cumsum(axis=1)
    n = np.where(seen[:, -1] >= r, (seen >= r).argmax(axis=1) + 1, cap)
    c = seen[np.arange(len(seen)), n - 1]
    for k in range(1, cap + 1):
        estimates = sequential_pass_at_k(n, c, r, cap, k)
        for p in (0.01, 0.1, 0.3, 0.5, 0.9, 1.0):
            weight = p ** seen[:, -1] * (1 - p) ** (cap - seen[:, -1])
            assert weight @ estimates == pytest.approx(1 - (1 - p) ** k, abs=1e-12), (p, k)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_the_sequential_estimator_is_the_conditional_share_of_sequences(r: int) -> None:
    # Cap 10: of all sequences that end with the same (n, c), the share with a correct one among the first k.
    cap = 10
    seen: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for outcomes in itertools.product((0, 1), repeat=cap):
        sums = list(itertools.accumulate(outcomes))
        n = sums.index(r) + 1 if r in sums else cap
        seen.setdefault((n, sums[n - 1]), set()).add(outcomes[:n])
    for (n, c), sequences in seen.items():
        for k in range(1, cap + 1):
            share = Fraction(sum(any(outcomes[:k]) for outcomes in sequences), len(sequences))
            assert float(sequential_pass_at_k(n, c, r, cap, k)) == pytest.approx(float(share), abs=1e-12)


def test_sequential_golden_values_and_broadcasting() -> None:
    # Stopped at the 2nd correct sample after 4: the other correct one is any of the first 3, so 1/3 at k = 1, 2/3 at
    # k = 2, certain from k = 3. At the cap of 6 with one correct: 1/6, 2/6, ... as for a fixed number of samples.
    values = sequential_pass_at_k([[4], [6]], [[2], [1]], 2, 6, [1, 2, 3, 6])
    np.testing.assert_allclose(values, [[1 / 3, 2 / 3, 1, 1], [1 / 6, 2 / 6, 3 / 6, 1]], atol=1e-15)
    assert sequential_pass_at_k(1, 1, 1, 9, 1) == 1.0 and sequential_pass_at_k(2, 1, 1, 9, 1) == 0.0
    # pass@1 after 8 correct in n samples is 7 / (n - 1)
    assert sequential_pass_at_k(101, 8, 8, 1024, 1) == pytest.approx(7 / 100, abs=1e-14)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_sequential_values_agree_with_fractions(data: st.DataObject) -> None:
    cap = data.draw(st.integers(1, 1024))
    r = data.draw(st.integers(1, 16))
    n = data.draw(st.integers(min(r, cap), cap))
    c = r if n < cap else data.draw(st.integers(0, min(r, cap)))
    k = data.draw(st.integers(1, cap))
    if c == r:
        exact = 1 - Fraction(comb(n - 1 - k, r - 1) if n - 1 - k >= 0 else 0, comb(n - 1, r - 1))
    else:
        exact = exact_pass_at_k(n, c, k)
    assert float(sequential_pass_at_k(n, c, r, cap, k)) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "c", "r", "cap", "k", "message"),
    [
        (4, 2, 2, 8, 9, "k exceeds max_samples"),
        (4, 2, 2, 8, 0, "k must be at least 1"),
        (9, 2, 2, 8, 1, "num_samples exceeds max_samples"),
        (8, 3, 2, 8, 1, "count samples up to the stop"),
        (1, 2, 2, 8, 1, "num_correct exceeds num_samples"),
        (7, 1, 2, 8, 1, "neither stopped nor sampled up to the cap"),
        ([8, 7], [1, 1], 2, 8, 1, "num_samples=7, num_correct=1"),
        (4, -1, 2, 8, 1, "must not be negative"),
        (4, 0, 0, 8, 1, "stop_after_correct must be at least 1"),
        (4.5, 2, 2, 8, 1, "whole numbers"),
    ],
)
def test_counts_that_the_rule_cannot_leave_are_refused(
    n: object, c: object, r: int, cap: int, k: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sequential_pass_at_k(n, c, r, cap, k)  # type: ignore[arg-type]


def test_sequential_sampling_has_no_bias_and_saves_half_of_the_samples() -> None:
    """A fifth of the problems is never solved, the rest is Beta(.25, .9); cap 1024, r = 8."""
    rng = np.random.default_rng(0)
    problems, cap, r = 200_000, 1024, 8
    rates = np.where(rng.random(problems) < 0.2, 0.0, rng.beta(0.25, 0.9, problems))
    drawn = np.full(problems, cap + 1)
    some = rates > 1e-9
    drawn[some] = np.minimum(cap + 1, rng.negative_binomial(r, rates[some]) + r)
    # where the r-th correct sample lies beyond the cap, fewer than r lie within it
    correct = np.full(problems, r)
    over = np.flatnonzero(drawn > cap)
    for index in over:
        while (c := rng.binomial(cap, rates[index])) >= r:
            pass
        correct[index], drawn[index] = c, cap
    assert drawn.mean() == pytest.approx(513, abs=4)  # of 1024
    for k in (1, 16, 256, 1024):
        error = sequential_pass_at_k(drawn, correct, r, cap, k) - (1 - (1 - rates) ** k)
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(problems)


def test_curve_has_pass_at_k_in_every_column() -> None:
    n, c = np.array([7, 300, 300, 9]), np.array([3, 0, 300, 1])
    curve = pass_at_k_curve(n, c, 7)
    np.testing.assert_allclose(curve, pass_at_k(n[:, None], c[:, None], np.arange(1, 8)), atol=1e-13)
    np.testing.assert_allclose(pass_at_k_curve(1024, 3, 1024)[0], pass_at_k(1024, 3, np.arange(1, 1025)), atol=1e-12)


@pytest.mark.parametrize("r", [1, 3])
def test_sequential_curve_has_the_estimator_in_every_column(r: int) -> None:
    n, c = np.array([3, 4, 9, 20, 20, 20]), np.array([r, r, r, r, 0, r - 1])
    curve = sequential_pass_at_k_curve(n, c, r, 20, 20)
    expected = sequential_pass_at_k(n[:, None], c[:, None], r, 20, np.arange(1, 21))
    np.testing.assert_allclose(curve, expected, atol=1e-13)
    with pytest.raises(ValueError, match="k exceeds max_samples"):
        sequential_pass_at_k_curve(n, c, r, 20, 21)


def test_auc_golden() -> None:
    # n = 4, c = 1: pass@k = k/4. Trapezoids over log2 k from 1 to 4: (1/4 + 2/4)/2 * 1 + (2/4 + 3/4)/2 * log2(3/2)
    # + (3/4 + 1)/2 * log2(4/3), divided by log2 4 = 2.
    expected = (0.375 + 0.625 * np.log2(1.5) + 0.875 * np.log2(4 / 3)) / 2
    assert auc_at_k(4, 1, 4) == pytest.approx(expected, abs=1e-14)
    assert auc_at_k([4, 4], [1, 0], 4) == pytest.approx(expected / 2, abs=1e-14)  # the mean over problems
    assert auc_at_k(8, 8, 8) == 1.0 and auc_at_k(8, 0, 8) == 0.0
    assert auc_at_k(2, 1, 2) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="max_k=1 must be at least 2"):
        auc_at_k(8, 4, 1)
    with pytest.raises(ValueError, match="k=9 exceeds num_samples=8"):
        auc_at_k(8, 4, 9)


def test_cover_golden() -> None:
    assert cover_at_tau(10, [3, 2, 0, 10], 0.3) == 0.5  # 3/10 is at least 0.3
    assert cover_at_tau([10, 100], [3, 29], 0.3) == 0.5
    assert cover_at_tau(3, [1, 2, 3], 1.0) == pytest.approx(1 / 3)
    for tau in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="tau"):
            cover_at_tau(10, [3], tau)
