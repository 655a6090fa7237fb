"""pass@k and its relatives from the number of correct samples per problem.

`n` samples of a problem, `c` of them correct, `k` drawn without replacement:

    pass@k = 1 - C(n-c, k) / C(n, k)      at least one of the k is correct   (arXiv 2107.03374, eq. 1; 2602.06717, L.4)
    pass^k = C(c, k) / C(n, k)            all k are correct                  (arXiv 2406.12045, section 3)

Both are unbiased for k i.i.d. samples of the model. No binomial coefficient is ever formed: the miss probability is
a product, C(n-c, k) / C(n, k) = prod_{i=n-c+1..n} (1 - k/i), summed here in logarithms.

A problem that was sampled until its r-th correct sample has an estimator of its own: `sequential_pass_at_k`.
Of a whole benchmark: `cover_at_tau` and `auc_at_k`.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "area_under_curve",
    "auc_at_k",
    "cover_at_tau",
    "pass_at_k",
    "pass_at_k_curve",
    "pass_at_k_table",
    "pass_hat_k",
    "powers_of_two",
    "sequential_pass_at_k",
    "sequential_pass_at_k_curve",
]


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike) -> NDArray[np.float64]:
    """Unbiased pass@k per problem, `1 - C(n-c, k) / C(n, k)`; average it over problems yourself.

    Source: arXiv 2107.03374, eq. 1; arXiv 2602.06717, appendix L.4. Needs no special case: with fewer than k wrong
    samples one factor of the product is zero and the result is exactly 1; with c = 0 the product is empty and the
    result is exactly 0. Absolute error below 1e-12 for n up to 4096 (tested against fractions).

    Args:
        num_samples: integers n >= 1, samples drawn per problem.
        num_correct: integers c, 0 <= c <= n.
        k: integers, 1 <= k <= n.

    The three are broadcast against each other.

    Returns:
        float64 array of the broadcast shape (zero-dimensional for three scalars).

    Raises:
        ValueError: k < 1 or k > n, c < 0 or c > n, or values that are not whole numbers.
    """
    n, c, k_ = _checked(num_samples, num_correct, k)
    return -np.expm1(_log_miss(n, c, k_))


def pass_hat_k(num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike) -> NDArray[np.float64]:
    """pass^k per problem, `C(c, k) / C(n, k)`: the probability that all k samples are correct.

    Source: arXiv 2406.12045, section 3. It is the miss probability of pass@k with right and wrong exchanged.
    Args, Returns and Raises as for `pass_at_k`.
    """
    n, c, k_ = _checked(num_samples, num_correct, k)
    return np.exp(_log_miss(n, n - c, k_))


def sequential_pass_at_k(
    num_samples: ArrayLike,
    num_correct: ArrayLike,
    stop_after_correct: ArrayLike,
    max_samples: ArrayLike,
    k: ArrayLike,
) -> NDArray[np.float64]:
    """Unbiased pass@k per problem that was sampled until its r-th correct sample, or until the cap N.

    With n samples drawn, c of them correct:

        c = r (stopped at the n-th sample):  pass@k = 1 - C(n-1-k, r-1) / C(n-1, r-1),  which is 1 if n-1-k < r-1
        c < r (then n = N):                  pass@k = 1 - C(n-c, k) / C(n, k)

    Derivation. Let W be the indicator of "the first k samples are all wrong"; E[W] = (1 - p)^k = 1 - pass@k. The stop
    settles W, because r >= 1 and k <= N: either k samples were seen, or the run stopped before them at a correct one.
    (n, c) is sufficient for p, so the conditional expectation E[W | n, c] is free of p and unbiased (Rao-Blackwell).
    A stopped run's last sample is correct and the r - 1 other correct ones lie anywhere among the n - 1 before it,
    each arrangement equally likely: C(n-1-k, r-1) of C(n-1, r-1) leave the first k wrong. At the cap every
    arrangement of c among n is equally likely, as in `pass_at_k`. For k = 1 the first is (r-1) / (n-1)
    (Haldane, Biometrika 33, 1945).

    Args:
        num_samples: integers n, counted up to and including the r-th correct sample.
        num_correct: integers c, 0 <= c <= r.
        stop_after_correct: integers r >= 1; with r = 1 pass@1 is only 0 or 1 per problem, with r >= 2 it is smooth.
        max_samples: integers N, the cap.
        k: integers, 1 <= k <= N; may exceed n where the problem was stopped.

    All are broadcast against each other.

    Returns:
        float64 array of the broadcast shape.

    Raises:
        ValueError: counts that the rule cannot leave behind (c > r, n > N, c < r before the cap, n < c), k < 1, k > N.
    """
    named = (("num_samples", num_samples), ("num_correct", num_correct), ("stop_after_correct", stop_after_correct))
    n, c, r, cap, k_ = np.broadcast_arrays(
        *(as_counts(values, name) for name, values in (*named, ("max_samples", max_samples), ("k", k)))
    )
    rules = (
        (r < 1, "stop_after_correct must be at least 1"),
        (k_ < 1, "k must be at least 1"),
        (k_ > cap, "k exceeds max_samples: pass@k is known up to the cap; ask for a smaller k or raise the cap"),
        (n > cap, "num_samples exceeds max_samples"),
        (c < 0, "num_correct must not be negative"),
        (c > np.minimum(n, r), "num_correct exceeds num_samples or stop_after_correct: count samples up to the stop"),
        ((c < r) & (n < cap), "the problem was neither stopped nor sampled up to the cap: sample it to the end"),
    )
    told = "num_samples={n}, num_correct={c}, stop_after_correct={r}, max_samples={cap}, k={k}: "
    _refuse([(broken, told + rule) for broken, rule in rules], n=n, c=c, r=r, cap=cap, k=k_)
    stopped, known = c == r, k_ < n  # a stopped run that ended within k samples has a correct one among them
    values = np.ones(n.shape)
    values[stopped & known] = pass_at_k((n - 1)[stopped & known], (r - 1)[stopped & known], k_[stopped & known])
    values[~stopped] = pass_at_k(n[~stopped], c[~stopped], k_[~stopped])
    return values


def pass_at_k_curve(num_samples: ArrayLike, num_correct: ArrayLike, max_k: int) -> NDArray[np.float64]:
    """pass@k of every problem at k = 1, ..., max_k: [P, max_k], column j is `pass_at_k(n, c, j + 1)`."""
    n, c, _ = _checked(num_samples, num_correct, max_k)
    return _curve(n, c, max_k)


def sequential_pass_at_k_curve(
    num_samples: ArrayLike, num_correct: ArrayLike, stop_after_correct: int, max_samples: int, max_k: int
) -> NDArray[np.float64]:
    """`sequential_pass_at_k` of every problem at k = 1, ..., max_k: [P, max_k]."""
    sequential_pass_at_k(num_samples, num_correct, stop_after_correct, max_samples, max_k)  # the checks
    n, c = as_counts(num_samples, "num_samples"), as_counts(num_correct, "num_correct")
    stopped = c == stop_after_correct
    return _curve(n - stopped, c - stopped, max_k)


def _curve(n: NDArray[np.int64], c: NDArray[np.int64], max_k: int) -> NDArray[np.float64]:
    """From k = j to j + 1 the miss probability gains the factor (n-c-j) / (n-j); it is 0 once n - j <= c."""
    n, c = np.broadcast_arrays(np.atleast_1d(n)[:, None], np.atleast_1d(c)[:, None])
    left = n - np.arange(max_k)
    with np.errstate(divide="ignore"):
        log_factor = np.log1p(-np.where(left <= c, 1.0, c / np.maximum(1, left)))
    return np.asarray(-np.expm1(np.cumsum(log_factor, axis=1)))


def area_under_curve(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUC@K of curves over k = 1, ..., K in the last axis: trapezoid over log2 k, divided by log2 K."""
    max_k = curve.shape[-1]
    if max_k < 2:
        raise ValueError(f"max_k={max_k} must be at least 2: the area under a single point is not defined")
    width = np.diff(np.log2(np.arange(1, max_k + 1)))
    return np.asarray((curve[..., :-1] + curve[..., 1:]) @ width / (2 * np.log2(max_k)))


def auc_at_k(num_samples: ArrayLike, num_correct: ArrayLike, max_k: int) -> float:
    """AUC@K of a benchmark: the area under its pass@k curve over log2 k, scaled to [0, 1].

        AUC@K = 1 / log2 K * sum_{k=1}^{K-1} (pass@k + pass@(k+1)) / 2 * (log2(k+1) - log2 k)

    with pass@k the mean over problems. One number for the whole curve (arXiv 2601.08763). It is linear in pass@k, so
    unbiased for K <= n.

    Args:
        num_samples: integers n, a scalar or [P].
        num_correct: integers c, a scalar or [P].
        max_k: K, 2 <= K <= n.

    Raises:
        ValueError: max_k < 2, and all that `pass_at_k` refuses.
    """
    return float(area_under_curve(pass_at_k_curve(num_samples, num_correct, max_k).mean(axis=0)))


def cover_at_tau(num_samples: ArrayLike, num_correct: ArrayLike, tau: float) -> float:
    """Cover@tau of a benchmark: share of problems whose observed success rate c / n is at least tau.

    A plug-in for the share with true success rate p >= tau (arXiv 2510.08325), and biased: a problem with p just below
    tau is counted whenever chance lifts it above. The bias vanishes as n grows, slowest where many problems have p
    near tau; compare runs at equal n.

    Args:
        num_samples: integers n, a scalar or [P].
        num_correct: integers c, a scalar or [P].
        tau: 0 < tau <= 1.

    Raises:
        ValueError: tau outside (0, 1], counts out of range.
    """
    if not 0 < tau <= 1:
        raise ValueError(f"tau={tau} must lie in (0, 1]: it is a success rate")
    return float(np.mean(pass_at_k(num_samples, num_correct, 1) >= tau - 1e-12))


def pass_at_k_table(num_samples: int, k: int) -> NDArray[np.float64]:
    """pass@k of one problem for every possible count: entry c is `pass_at_k(num_samples, c, k)`, c = 0..num_samples."""
    _checked(num_samples, 0, k)
    return -np.expm1(_log_miss_table(num_samples, k))


def powers_of_two(largest: int) -> list[int]:
    """1, 2, 4, ... up to and including `largest` if that is a power of two (the paper's values of k)."""
    if largest < 1:
        raise ValueError(f"largest={largest} must be at least 1")
    return [1 << exponent for exponent in range(int(largest).bit_length())]


def _log_miss_table(n: int, k: int) -> NDArray[np.float64]:
    """log(C(n-c, k) / C(n, k)) for c = 0..n: a running sum of log(1 - k/i) for i = n, n-1, ..., 1; -inf once i <= k."""
    i = np.arange(n, 0, -1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        log_factor = np.log1p(-np.minimum(1.0, k / i))
    return np.concatenate(([0.0], np.cumsum(log_factor)))


def _log_miss(n: NDArray[np.int64], c: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.empty(n.shape, dtype=np.float64)
    pairs, which = np.unique(np.stack([n.ravel(), k.ravel()], axis=1), axis=0, return_inverse=True)
    which = which.reshape(n.shape)
    for index, (one_n, one_k) in enumerate(pairs):
        chosen = which == index
        result[chosen] = _log_miss_table(int(one_n), int(one_k))[c[chosen]]
    return result


def _checked(
    num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The three as whole numbers of one shape; ValueError unless 1 <= k <= n and 0 <= c <= n."""
    named = (("num_samples", num_samples), ("num_correct", num_correct), ("k", k))
    n, c, k_ = np.broadcast_arrays(*(as_counts(values, name) for name, values in named))
    few = "pass@k cannot be estimated from fewer than k samples; draw more samples or ask for a smaller k"
    rules = (
        (n < 1, "num_samples={n} must be at least 1: a problem without samples has no pass@k"),
        (k_ < 1, "k={k} must be at least 1"),
        (c < 0, "num_correct={c} must not be negative"),
        (c > n, "num_correct={c} exceeds num_samples={n}"),
        (k_ > n, f"k={{k}} exceeds num_samples={{n}}: {few}"),
    )
    _refuse(rules, n=n, c=c, k=k_)
    return n, c, k_


def _refuse(rules: Iterable[tuple[NDArray[np.bool_], str]], **values: NDArray[np.int64]) -> None:
    """ValueError where a rule is broken; its text, a format of `values`, is told of the first such place."""
    for broken, told in rules:
        if np.any(broken):
            at = np.unravel_index(int(np.argmax(broken)), broken.shape)
            raise ValueError(told.format(**{name: array[at] for name, array in values.items()}))


def as_counts(values: ArrayLike, name: str) -> NDArray[np.int64]:
    """`values` as int64; ValueError when one is not a whole number (0.5, NaN) or not a number at all."""
    array = np.asarray(values)
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    if array.dtype.kind != "f" or not np.all(np.isfinite(array)) or np.any(array != np.floor(array)):
        raise ValueError(f"{name} must hold whole numbers, got {values!r}")
    return array.astype(np.int64)
