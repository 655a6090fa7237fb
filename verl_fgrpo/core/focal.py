"""Focal math on tensors: success rate per group, focal weight, and how to read both off an advantage. No verl."""

from collections.abc import Hashable, Sequence
from math import exp, lgamma, pi, sqrt
from typing import Any

import torch

from verl_fgrpo.core.groups import group_mean, group_size
from verl_fgrpo.core.numbers import check_gamma


def group_codes(index: Any) -> tuple[torch.Tensor, list[Hashable]]:
    """Number the groups of a batch 0, 1, ... in order of first appearance.

    Args:
        index: group label (uid) of every rollout, shape (B,); array, tensor or sequence of hashable labels.

    Returns:
        codes: int64 tensor of shape (B,) on the CPU, and the label of each code.
    """
    labels: Sequence[Hashable] = index.tolist() if hasattr(index, "tolist") else list(index)
    numbering: dict[Hashable, int] = {}
    codes = [numbering.setdefault(label, len(numbering)) for label in labels]
    return torch.tensor(codes, dtype=torch.int64), list(numbering)


def success_rate(scores: torch.Tensor, codes: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """Share of correct rollouts in each rollout's group.

        mu_i = X / N,  X = number of rollouts j in the group of i with scores_j > threshold   (arXiv 2602.06717, eq. 11)

    For two-valued rewards this equals (mean(R) - R_wrong) / (R_correct - R_wrong) for any threshold between the two.

    Args:
        scores: summed reward of every rollout, shape (B,), any float dtype.
        codes: group number of every rollout, shape (B,), int64, from `group_codes`.
        threshold: a score above it counts as correct (0.5 for 0/1 rewards, 0.0 for -1/1 rewards).

    Returns:
        mu, shape (B,), float64, on the device of `scores`; the same value for all rollouts of a group. A group of
        one has mu 0 or 1.
    """
    return group_mean(scores > threshold, codes.to(scores.device))


def mean_reward_success_rate(scores: torch.Tensor, codes: torch.Tensor, wrong: float, correct: float) -> torch.Tensor:
    """Success rate of each rollout's group from its mean reward, which also serves partial credit.

        mu_i = clamp((mean R - R_wrong) / (R_correct - R_wrong), 0, 1)         (arXiv 2602.06717, eq. 11; verl #5334)

    On two-valued rewards it is `success_rate`.

    Args:
        scores: summed reward of every rollout, shape (B,), any float dtype.
        codes: group number of every rollout, shape (B,), int64, from `group_codes`.
        wrong: R_wrong, reward of a wrong rollout.
        correct: R_correct, reward of a correct one, above `wrong`.

    Returns:
        mu, shape (B,), float64, on the device of `scores`.
    """
    mean = group_mean(scores, codes.to(scores.device))
    return ((mean - wrong) / (correct - wrong)).clamp(0.0, 1.0)


def focal_weight(mu: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weight of a group by its success rate.

        g = (1 - mu) ** gamma                                                               (arXiv 2602.06717, eq. 12)

    gamma = 0 gives 1 for every mu, also for mu = 1 (0 ** 0 = 1), so that it is exactly the base method.

    Args:
        mu: success rates in [0, 1], any shape, float.
        gamma: focal exponent, at least 0.

    Returns:
        g in [0, 1], shape and dtype of `mu`.
    """
    return torch.pow(1.0 - mu, gamma)


def normalized_weight(weight: torch.Tensor, mu: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The weight divided by its mean over the active groups of the batch, each group counted once.

        g_i / mean over groups with 0 < mu < 1 of g

    Ours, an experiment: with it gamma moves weight between groups and leaves the size of the update (of equal
    advantages) as it was, so it needs no other learning rate. Weights can be above 1.

    Args:
        weight: (B,) float, `focal_weight` of `mu`.
        mu: (B,) float, success rate of each rollout's group.
        codes: (B,) int64 group numbers.

    Returns:
        (B,) like `weight`, and itself where no group is active; at gamma 0 exactly 1 everywhere.
    """
    share = ((mu > 0) & (mu < 1)).to(weight.dtype) / group_size(codes)  # a group's rows sum to 1
    return weight * (share.sum() / (share * weight).sum()) if bool(share.any()) else weight


def row_advantage(advantages: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The advantage of each row, read at its first response token; shape (B,). Rows without a response get 0."""
    mask = response_mask > 0
    first = mask.to(torch.uint8).argmax(dim=1, keepdim=True)
    return (advantages.gather(1, first) * mask.gather(1, first)).squeeze(1)


def success_rate_from_advantage(
    advantage: torch.Tensor, group_size: int, divided_by_std: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the success rate of a rollout's group off its GRPO advantage, for rewards 0/1 or any two when divided.

    A group of n rollouts, X of them correct and mu = X / n, has two advantages only. With verl's Bessel-corrected std

        A+ = (1 - mu) / (s + 1e-6),   A- = -mu / (s + 1e-6),   s = sqrt(mu (1 - mu) n / (n - 1))

    and without division by the std  A+ = 1 - mu,  A- = -mu. An advantage is looked up among those of groups of
    n = N, N - 1, ..., more than N / 2 rollouts (a group may have lost some), the largest n first. Source: arXiv
    2602.06717, eq. 3 and 11, inverted. For N up to 16 no two success rates share an advantage; above, groups that lost
    rollouts may be read as a neighbour (N = 64: off by under 0.002).

    Args:
        advantage: one advantage per rollout, any shape, float.
        group_size: N, rollouts per group, at least 2.
        divided_by_std: whether the advantages were divided by the group's std.

    Returns:
        mu in [0, 1], float64, and a bool tensor that tells which advantages no group can have: mu is NaN there. Where
        the advantage is 0 (all-correct or all-wrong group) mu cannot be known; 0 is returned, which gives weight 1 to a
        rollout that has no effect anyway.

    Raises:
        ValueError: group_size below 2.
    """
    if group_size < 2:
        raise ValueError(
            f"group_size is {group_size}, but a group-relative advantage needs at least 2 rollouts per group; "
            "set actor_rollout_ref.rollout.n to 2 or more"
        )
    a = advantage.to(torch.float64)
    mu = torch.where(a == 0, 0.0, torch.nan)
    tolerance = 2e-5 + 1e-7 * group_size  # relative: rounding to float32, and rewards other than 1 apart beside 1e-6
    for n in range(group_size, max(group_size // 2, 1), -1):
        if not bool(mu.isnan().any()):
            break
        bessel, square = (n - 1) / n, a * a
        if divided_by_std:
            rate = torch.where(a > 0, bessel / (bessel + square), square / (square + bessel))
        else:
            rate = torch.where(a > 0, 1.0 - a, -a)
        rate = (rate * n).round().clamp(1, n - 1) / n
        std = torch.sqrt(rate * (1 - rate) / bessel) + 1e-6 if divided_by_std else 1.0
        expected = torch.where(a > 0, 1.0 - rate, -rate) / std
        mu = torch.where(mu.isnan() & ((a - expected).abs() <= tolerance * expected.abs()), rate, mu)
    return mu, mu.isnan()


def update_scale(gamma: float) -> float:
    """Average update size of F-GRPO relative to GRPO when success rates are spread uniformly.

        m(gamma) = B(3/2, gamma + 3/2) / B(3/2, 3/2) = 4 / sqrt(pi) * Gamma(gamma + 3/2) / Gamma(gamma + 3)

    The low-learning-rate control multiplies the learning rate by it: m(0.5) = 0.679, so 1e-6 becomes 6.8e-7.
    Source: arXiv 2602.06717, App. N.

    Args:
        gamma: focal exponent, at least 0.

    Returns:
        m(gamma) in (0, 1]; m(0) = 1.

    Raises:
        ValueError: gamma negative or not finite.
    """
    gamma = check_gamma(gamma)
    return 4.0 / sqrt(pi) * exp(lgamma(gamma + 1.5) - lgamma(gamma + 3.0))
