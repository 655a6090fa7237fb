"""pass@k and pass^k against exact fractions."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_fgrpo.core.passk import pass_at_k, pass_at_k_table, pass_hat_k, powers_of_two


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
