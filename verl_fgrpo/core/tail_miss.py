"""Tail miss: a group that updates the policy although it shows none of its rare correct solutions.

One prompt, N i.i.d. rollouts. The policy answers correctly with probability `mu`; part of that is a rare set of correct
solutions of probability `tau <= mu`. The group is *active* (it has an advantage to learn from) if some rollouts are
correct and some are wrong. Lemma 3.1 of arXiv 2602.06717:

    Pr(active and rare set unsampled) = (1 - tau)^N - (mu - tau)^N - (1 - mu)^N

Very small groups are rarely active, very large ones see the rare set: the worst group size lies in between.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "RARE_SHARE",
    "SafeGroupSizes",
    "activity_probability",
    "peak_group_size",
    "safe_group_sizes",
    "tail_miss_estimate",
    "tail_miss_probability",
]

#: share of a prompt's correct probability that `focal/tail_miss_risk` calls rare: a mode of one in ten correct answers
RARE_SHARE = 0.1


def _checked(tau: ArrayLike, mu: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    tau_arr, mu_arr = np.asarray(tau, dtype=np.float64), np.asarray(mu, dtype=np.float64)
    if not np.all((mu_arr >= 0) & (mu_arr <= 1)):
        raise ValueError(f"mu must be a probability in [0, 1], got {mu_arr}: pass the prompt's success rate")
    if not np.all((tau_arr >= 0) & (tau_arr <= mu_arr)):
        raise ValueError(
            f"tau must lie in [0, mu], got tau={tau_arr} with mu={mu_arr}: tau is the mass of correct solutions only; "
            "for a share rho of the correct mass pass tau = rho * mu"
        )
    return tau_arr, mu_arr


def _checked_group_size(n: ArrayLike) -> NDArray[np.float64]:
    n_arr = np.asarray(n, dtype=np.float64)
    if not np.all((n_arr >= 1) & (n_arr == np.floor(n_arr)) & np.isfinite(n_arr)):
        raise ValueError(f"n must be a whole group size >= 1, got {n!r}")
    return n_arr


def tail_miss_probability(tau: ArrayLike, mu: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Probability that a group of n rollouts is active and contains no rollout of the rare correct set.

        P = (1 - tau)^n - (mu - tau)^n - (1 - mu)^n                      (arXiv 2602.06717, Lemma 3.1)

    With a = mu - tau and b = 1 - mu this is (a + b)^n - a^n - b^n, symmetric in a and b. Taking the larger one as `a`,
    it is evaluated as (a + b)^n * -expm1(-n * log1p(b / a)) - b^n: the first term is at least n * b^n, so
    nothing cancels, for n up to 1e6 and tau down to 1e-9. Accuracy is limited by the input: a and b carry the rounding
    of mu and tau, which a power multiplies by n.

    Args:
        tau: probability of the rare correct set, 0 <= tau <= mu; any shape.
        mu: probability of a correct rollout; broadcast against tau and n.
        n: group size, whole and >= 1.

    Returns:
        float64 array (0-d for scalars) of the broadcast shape. 0 where the group cannot be active (n = 1, mu = 0 or 1)
        and where tau = mu (an active group then always shows the rare set). With tau = 0: the activity probability.

    Raises:
        ValueError: mu outside [0, 1], tau outside [0, mu], n not a whole number >= 1.
    """
    tau_arr, mu_arr = _checked(tau, mu)
    n_arr = _checked_group_size(n)
    other_correct, wrong = mu_arr - tau_arr, 1.0 - mu_arr
    large, small = np.maximum(other_correct, wrong), np.minimum(other_correct, wrong)
    with np.errstate(divide="ignore", invalid="ignore"):
        not_only_large = np.exp(n_arr * np.log1p(-tau_arr)) * -np.expm1(-n_arr * np.log1p(small / large))
        miss = not_only_large - np.exp(n_arr * np.log(small))
    # small = 0: one of the two kinds never occurs. n = 1: one rollout is never active (rounding would leave 1e-17).
    possible = (small > 0) & (n_arr > 1)
    return np.asarray(np.where(possible, np.maximum(miss, 0.0), 0.0), dtype=np.float64)


def tail_miss_estimate(
    num_correct: ArrayLike, group_size: ArrayLike, rare_share: float = RARE_SHARE
) -> NDArray[np.float64]:
    """Unbiased estimate, from one group, of its probability to be active and yet show no rare correct solution.

        1[0 < X < N] * (1 - rho)^X

    Source: derived from Lemma 3.1 of arXiv 2602.06717. Each correct rollout is rare with probability rho = tau / mu, so
    the expectation over X ~ Binomial(N, mu) is (1 - tau)^N - (mu - tau)^N - (1 - mu)^N: the lemma's probability, for
    any mu. Putting the observed X / N into the lemma instead would be biased for small groups.

    Args:
        num_correct: X, whole numbers, one per group.
        group_size: N, broadcast against X.
        rare_share: rho, the share of the correct probability that is rare, 0 <= rho <= 1.

    Returns:
        float64 array, one estimate per group.

    Raises:
        ValueError: rare_share outside [0, 1].
    """
    if not 0 <= rare_share <= 1:
        raise ValueError(f"rare_share is {rare_share}, but it is a share of the correct probability: 0 to 1")
    x, n = np.asarray(num_correct, dtype=np.float64), np.asarray(group_size, dtype=np.float64)
    return np.asarray(np.where((x > 0) & (x < n), (1.0 - rare_share) ** x, 0.0))


def activity_probability(mu: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Probability that a group of n rollouts is active: at least one correct and one wrong.

        Pr(0 < X < n) = 1 - mu^n - (1 - mu)^n                            (arXiv 2602.06717, section 3)

    Args:
        mu: probability of a correct rollout; any shape.
        n: group size, whole and >= 1; broadcast against mu.

    Returns:
        float64 array of the broadcast shape; 0 for n = 1.

    Raises:
        ValueError: mu outside [0, 1], n not a whole number >= 1.
    """
    return tail_miss_probability(0.0, mu, n)


def peak_group_size(tau: float, mu: float) -> int:
    """The worst group size: the n at which the tail-miss probability is largest.

    With a = mu - tau, b = 1 - mu, c = 1 - tau, the slope P(n + 1) - P(n) divided by c^n is
    -tau + (1 - a) (a / c)^n + (1 - b) (b / c)^n. It falls with n, so P rises to one peak
    and then falls, and bisection finds it exactly.

    Args:
        tau: probability of the rare correct set, 0 < tau < mu.
        mu: probability of a correct rollout, mu < 1.

    Returns:
        The smallest maximiser (2 at the least: a group of one is never active).

    Raises:
        ValueError: tau = 0 (the curve has no peak: it rises towards 1), tau = mu or mu = 1 (it is zero everywhere).
    """
    _checked(tau, mu)
    if tau <= 0 or tau >= mu or mu >= 1:
        raise ValueError(
            f"no worst group size for tau={tau!r}, mu={mu!r}: needs 0 < tau < mu < 1 "
            "(tau = 0 is never sampled at any size; with tau = mu or mu = 1 the risk is 0 at every size)"
        )
    other_correct, wrong, log_c = mu - tau, 1.0 - mu, math.log1p(-tau)

    def rises_after(n: int) -> bool:
        gain = (1.0 - other_correct) * math.exp(n * (math.log(other_correct) - log_c))
        gain += (1.0 - wrong) * math.exp(n * (math.log(wrong) - log_c))
        return gain > tau

    return _first_without(rises_after, 1)  # P(1) = 0 < P(2), so it rises after 1


def _first_without(holds: Callable[[int], bool], low: int, high: int | None = None) -> int:
    """The least n > low without a property that holds at `low` and up to one n; by bisection, below `high` if given."""
    high = 2 * low if high is None else high
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


@dataclass(frozen=True)
class SafeGroupSizes:
    """Group sizes whose tail-miss risk is at most a target: every n <= `at_most` and every n >= `at_least`.

    If the target is never exceeded, `at_most` is None and `at_least` is 1.
    """

    at_most: int | None
    at_least: int


def safe_group_sizes(tau: float, mu: float, target: float) -> SafeGroupSizes:
    """Group sizes that keep the tail-miss risk at or below a target.

    The risk has one peak (see `peak_group_size`), so the unsafe sizes are one interval; bisection finds both ends.
    Small safe groups are safe only because they rarely update at all.

    Args:
        tau: probability of the rare correct set, 0 < tau <= mu.
        mu: probability of a correct rollout.
        target: accepted probability, 0 < target < 1.

    Returns:
        The two ranges.

    Raises:
        ValueError: target outside (0, 1), tau = 0 with 0 < mu < 1 (no large group is ever safe), or invalid tau, mu.
    """
    _checked(tau, mu)
    if not 0 < target < 1:
        raise ValueError(f"target must be a probability in (0, 1), got {target!r}")
    if tau == mu or mu == 1:
        return SafeGroupSizes(at_most=None, at_least=1)
    peak = peak_group_size(tau, mu)

    def unsafe(n: int) -> bool:
        return bool(tail_miss_probability(tau, mu, n) > target)

    if not unsafe(peak):
        return SafeGroupSizes(at_most=None, at_least=1)
    first_unsafe = _first_without(lambda n: not unsafe(n), 1, peak)
    return SafeGroupSizes(at_most=first_unsafe - 1, at_least=_first_without(unsafe, peak))
