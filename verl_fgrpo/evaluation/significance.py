"""Is one model's pass@k really higher than another's? Two paired tests on counts of correct samples per problem.

- `paired_subsample_test`: the paper's m-out-of-n subsampling (arXiv 2602.06717, L.4). It asks whether the difference
  could come from the randomness of *sampling answers*, for these problems and these two checkpoints.
- `bootstrap_over_problems`: whether the difference could come from the *choice of problems*.

Neither covers the randomness of training: for that, train several seeds.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from verl_fgrpo.core.passk import as_counts, pass_at_k, pass_at_k_table

ALPHA = 0.05


@dataclass(frozen=True)
class SubsampleTest:
    """Result of one m-out-of-n subsampling test; all rates in [0, 1], not percent.

    Attributes:
        difference: focal - base pass@k, averaged over problems, from all n samples. Since pass@k on a subsample is
            unbiased given the n samples, this is exactly the mean of the subsampling distribution.
        interval: 2.5% and 97.5% quantiles of the subsampled differences.
        p_value: two-sided, see `paired_subsample_test`.
        base, focal: pass@k of each model from all n samples.
        standard_deviation: of the subsampled differences.
        k, m, iterations, num_problems: the settings, so that a stored result says what it is of.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    base: float
    focal: float
    standard_deviation: float
    k: int
    m: int
    iterations: int
    num_problems: int

    @property
    def significant(self) -> bool:
        """The paper's criterion at alpha = 0.05: the 95% interval excludes 0."""
        return self.interval[0] > 0.0 or self.interval[1] < 0.0


@dataclass(frozen=True)
class BootstrapResult:
    """Mean pass@k (or the paired difference of two) with a percentile interval from resampling problems."""

    estimate: float
    interval: tuple[float, float]
    p_value: float | None
    iterations: int
    num_problems: int


def paired_subsample_test(
    base_correct: ArrayLike,
    focal_correct: ArrayLike,
    num_samples: ArrayLike,
    k: int,
    m: int = 256,
    iterations: int = 50_000,
    rng: np.random.Generator | int = 0,
    *,
    focal_num_samples: ArrayLike | None = None,
    groups: Sequence[str] | NDArray[np.generic] | None = None,
) -> SubsampleTest:
    """Two-sided paired m-out-of-n subsampling test of focal - base pass@k.

    Each of `iterations` rounds draws m of the n samples of every problem without replacement, for both models,
    computes pass@k on the m, averages over problems and takes D = focal - base. With B rounds:

        interval = the 2.5% and 97.5% quantiles of D
        p_value  = min(1, 2 * min(#{D <= 0} + 1, #{D >= 0} + 1) / (B + 1))

    The ones keep p above zero (arXiv 1603.05766), so p < 0.05 and "the interval excludes 0" can disagree at the
    edge by one round in B. Two identical deterministic models give p = 1.

    Source: arXiv 2602.06717, appendix L.4. Nothing is shuffled: of m samples drawn without replacement from c correct
    and n-c wrong ones the number of correct is hypergeometric, and pass@k depends on it alone. The B draws of a
    problem are made as one multinomial draw of how often each value occurs, in random order (the same law as B
    independent draws, ten times cheaper).

    What the interval means. It is the spread of a *subsample of m*, as in the paper, not rescaled to n: its variance
    for k = 1 is (n/m - 1) times that of the full-sample estimate, so with m = n/4 the test is conservative (an
    interval sqrt(3) times too wide), with m = n/2 about right, and above that too optimistic, until at m = n the
    interval is a point; m > n/2 therefore warns. It is conditional on the problems and on the two checkpoints.

    Args:
        base_correct: [P] correct samples per problem of the base model.
        focal_correct: [P] of the focal model, same problems in the same order.
        num_samples: n, a scalar or [P]; for both models unless `focal_num_samples` is given.
        k: of pass@k, 1 <= k <= m.
        m: subsample size, k <= m <= every n.
        iterations: rounds B.
        rng: numpy generator, or a seed for one.
        focal_num_samples: n of the focal model if it differs.
        groups: [P] labels (benchmark names); if given, the average over problems is replaced by the plain mean over
            groups of each group's mean (the paper's "Avg." of a block).

    Raises:
        ValueError: m > n, k > m, counts out of range, arrays of different length, no problems. Nothing is lowered
            silently.
    """
    counts = (base_correct, focal_correct, num_samples)
    return subsample_tests(*counts, [k], m, iterations, rng, focal_num_samples=focal_num_samples, groups=groups)[k]


def subsample_tests(
    base_correct: ArrayLike,
    focal_correct: ArrayLike,
    num_samples: ArrayLike,
    ks: Sequence[int],
    m: int = 256,
    iterations: int = 50_000,
    rng: np.random.Generator | int = 0,
    *,
    focal_num_samples: ArrayLike | None = None,
    groups: Sequence[str] | NDArray[np.generic] | None = None,
) -> dict[int, SubsampleTest]:
    """`paired_subsample_test` for several k from the same draws; returns {k: test}. Memory: 3 * len(ks) * B floats."""
    base_c, base_n = _problem_counts(base_correct, num_samples, "base")
    focal_c, focal_n = _problem_counts(
        focal_correct, num_samples if focal_num_samples is None else focal_num_samples, "focal"
    )
    if len(base_c) != len(focal_c):
        raise ValueError(
            f"base has {len(base_c)} problems and focal has {len(focal_c)}: the test is paired, give both models' "
            "counts for the same problems in the same order"
        )
    ks = [int(as_counts(k, "k")) for k in ks]
    _check_sizes(ks, m, int(min(np.min(base_n), np.min(focal_n))), iterations)
    weights = problem_weights(len(base_c), groups)
    generator = np.random.default_rng(rng)
    tables = {k: pass_at_k_table(m, k) for k in ks}
    base_draws = _subsampled_means(base_c, base_n, weights, tables, m, iterations, generator)
    focal_draws = _subsampled_means(focal_c, focal_n, weights, tables, m, iterations, generator)
    results = {}
    for k in ks:
        differences = _without_rounding(focal_draws[k] - base_draws[k])
        base = float(weights @ pass_at_k(base_n, base_c, k))
        focal = float(weights @ pass_at_k(focal_n, focal_c, k))
        results[k] = SubsampleTest(
            difference=focal - base,
            interval=_interval(differences),
            p_value=_two_sided_p(differences),
            base=base,
            focal=focal,
            standard_deviation=float(differences.std()),
            k=k,
            m=m,
            iterations=iterations,
            num_problems=len(base_c),
        )
    return results


def _check_sizes(ks: Sequence[int], m: int, smallest_n: int, iterations: int) -> None:
    if not ks:
        raise ValueError("ks is empty: give at least one k")
    if m > smallest_n:
        raise ValueError(
            f"m={m} exceeds num_samples={smallest_n}: a subsample cannot be larger than the sample; "
            "draw more samples or pass a smaller m"
        )
    for k in ks:
        if not 1 <= k <= m:
            raise ValueError(f"k={k} must lie in 1..m={m}: pass@k is computed on the m drawn samples")
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1")
    if 2 * m > smallest_n:
        warnings.warn(
            f"m={m} is more than half of num_samples={smallest_n}: the subsampling interval is narrower than the "
            "sampling error of the full estimate (at m = n it is a point)",
            stacklevel=4,
        )


def bootstrap_over_problems(
    values: ArrayLike,
    paired_values: ArrayLike | None = None,
    iterations: int = 10_000,
    rng: np.random.Generator | int = 0,
    *,
    groups: Sequence[str] | NDArray[np.generic] | None = None,
) -> BootstrapResult:
    """Percentile bootstrap over problems of mean(values), or of mean(paired_values - values) if both are given.

    Each round draws P problems with replacement (within each group if `groups` is given, where the estimate is the
    mean over groups of group means). The p value, only for a difference, is defined as in `paired_subsample_test`.

    Problems only: the samples of a drawn problem are not drawn again. The spread of per-problem estimates between
    problems holds their sampling error already; resampling within problems too would count it twice.

    Args:
        values: [P] per-problem pass@k (or any per-problem score) of the base model.
        paired_values: [P] of the focal model on the same problems.
        iterations: bootstrap rounds.
        rng: numpy generator, or a seed for one.
        groups: [P] labels, e.g. the benchmark of each problem.

    Raises:
        ValueError: no problems, different lengths, values not finite.
    """
    if np.ndim(values) != 1 or (paired_values is not None and np.shape(paired_values) != np.shape(values)):
        raise ValueError(
            f"values must be a vector with one entry per problem, and paired_values have the same shape; got "
            f"{np.shape(values)} and {np.shape(() if paired_values is None else paired_values)}"
        )
    columns = np.asarray(values, dtype=np.float64)[:, None]
    paired = None if paired_values is None else np.asarray(paired_values, dtype=np.float64)[:, None]
    return bootstrap_columns(columns, paired, iterations, rng, groups=groups)[0]


def bootstrap_columns(
    values: NDArray[np.float64],
    paired_values: NDArray[np.float64] | None = None,
    iterations: int = 10_000,
    rng: np.random.Generator | int = 0,
    *,
    groups: Sequence[str] | NDArray[np.generic] | None = None,
) -> list[BootstrapResult]:
    """`bootstrap_over_problems` of every column of [P, M] values from the same draws (several k, several metrics)."""
    scores = values if paired_values is None else paired_values - values
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"values must be non-empty with one entry per problem, got shape {scores.shape}")
    if not np.all(np.isfinite(scores)):
        raise ValueError("values must be finite")
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1")
    labels = _labels(len(scores), groups)
    generator = np.random.default_rng(rng)
    names = np.unique(labels)
    draws = sum(_resampled_means(scores[labels == name], iterations, generator) for name in names) / len(names)
    draws = _without_rounding(np.asarray(draws))
    estimates = problem_weights(len(scores), groups) @ scores
    return [
        BootstrapResult(
            estimate=float(estimate),
            interval=_interval(column),
            p_value=None if paired_values is None else _two_sided_p(column),
            iterations=iterations,
            num_problems=len(scores),
        )
        for estimate, column in zip(estimates, draws.T, strict=True)
    ]


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _resampled_means(scores: NDArray[np.float64], iterations: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[B, M] column means of `iterations` resamples of the rows with replacement, 4M row numbers at a time."""
    size = len(scores)
    means = np.empty((iterations, scores.shape[1]))
    step = max(1, 4_000_000 // size)
    for start in range(0, iterations, step):
        stop = min(iterations, start + step)
        picks = rng.integers(size, size=(stop - start, size)) + size * np.arange(stop - start)[:, None]
        times = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)  # each row is drawn
        means[start:stop] = times @ scores / size
    return means


def _subsampled_means(
    correct: NDArray[np.int64],
    num_samples: NDArray[np.int64],
    weights: NDArray[np.float64],
    tables: dict[int, NDArray[np.float64]],
    m: int,
    iterations: int,
    rng: np.random.Generator,
) -> dict[int, NDArray[np.float64]]:
    """{k: [B] weighted mean over problems of pass@k on m drawn samples}."""
    means: dict[int, NDArray[np.float64]] = {k: np.zeros(iterations) for k in tables}
    pairs, which = np.unique(np.stack([num_samples, correct], axis=1), axis=0, return_inverse=True)
    drawn_correct = np.arange(m + 1)
    pmf = hypergeom.pmf(drawn_correct, pairs[:, :1], pairs[:, 1:], m)
    pmf /= pmf.sum(axis=1, keepdims=True)
    for problem, pair in enumerate(which.ravel()):
        n, c = pairs[pair]
        if c in (0, n):  # nothing random to draw
            for k, table in tables.items():
                means[k] += weights[problem] * table[0 if c == 0 else m]
            continue
        draws = np.repeat(drawn_correct, rng.multinomial(iterations, pmf[pair]))
        rng.shuffle(draws)
        for k, table in tables.items():
            means[k] += (weights[problem] * table)[draws]
    return means


def _without_rounding(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal rates summed in different order differ in the last bits: a tie must be exactly 0."""
    return np.where(np.abs(differences) < 1e-12, 0.0, differences)


def _two_sided_p(differences: NDArray[np.float64]) -> float:
    at_most = int(np.count_nonzero(differences <= 0.0)) + 1
    at_least = int(np.count_nonzero(differences >= 0.0)) + 1
    return min(1.0, 2.0 * min(at_most, at_least) / (len(differences) + 1))


def _problem_counts(
    correct: ArrayLike, num_samples: ArrayLike, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    c = as_counts(correct, f"{name}_correct")
    if c.ndim != 1 or c.size == 0:
        raise ValueError(f"{name}_correct must be a non-empty vector with one count per problem, got shape {c.shape}")
    n = as_counts(num_samples, "num_samples")
    if n.ndim > 1 or (n.ndim == 1 and n.shape != c.shape):
        raise ValueError(f"num_samples must be a scalar or one number per problem ({len(c)}), got shape {n.shape}")
    n = np.broadcast_to(n, c.shape)
    pass_at_k(n, c, 1)  # the range checks: 1 <= n, 0 <= c <= n
    return c, n


def _labels(num_problems: int, groups: Sequence[str] | NDArray[np.generic] | None) -> NDArray[np.generic]:
    labels = np.zeros(num_problems, dtype=np.int64) if groups is None else np.asarray(groups)
    if labels.shape != (num_problems,):
        raise ValueError(f"groups must hold one label per problem ({num_problems}), got shape {labels.shape}")
    return labels


def problem_weights(num_problems: int, groups: Sequence[str] | NDArray[np.generic] | None) -> NDArray[np.float64]:
    """Weights that sum to one: 1/P, or 1/(number of groups * size of the problem's group)."""
    _, which, sizes = np.unique(_labels(num_problems, groups), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(sizes) * sizes[which.ravel()]), dtype=np.float64)
