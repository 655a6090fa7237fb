"""Focal math on tensors: success rate per group, focal weight, and how to read both off an advantage. No verl."""

from collections.abc import Hashable, Sequence
from math import exp, isfinite, lgamma, pi, sqrt
from typing import Any

import torch


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
    codes = codes.to(scores.device)
    correct = (scores > threshold).to(torch.float64)
    size = torch.bincount(codes)
    num_correct = torch.zeros(size.shape, dtype=torch.float64, device=scores.device).index_add_(0, codes, correct)
    return (num_correct / size)[codes]


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


def success_rate_from_advantage(advantage: torch.Tensor, group_size: int, divided_by_std: bool = True) -> torch.Tensor:
    """Read the success rate of a rollout's group off its GRPO advantage, for two-valued rewards.

    A group of N rollouts with success rate mu has two advantages only. With the Bessel-corrected std of verl

        A+ = sqrt((1 - mu) / mu * (N - 1) / N)      so  mu = 1 / (1 + A^2 * N / (N - 1))         for A > 0
        A- = -sqrt(mu / (1 - mu) * (N - 1) / N)     so  mu = A^2 / (A^2 + (N - 1) / N)           for A < 0

    and without division by the std (rewards one apart)  A+ = 1 - mu,  A- = -mu.

    Source: arXiv 2602.06717, eq. 3 and 11, inverted here.

    Args:
        advantage: one advantage per rollout, any shape, float.
        group_size: N, rollouts per group, at least 2. A group that lost a rollout gets a slightly wrong mu: with one of
            eight missing its focal weight at gamma 0.5 is off by under 1%.
        divided_by_std: whether the advantages were divided by the group's std.

    Returns:
        mu in [0, 1], float64. Where the advantage is 0 (all-correct or all-wrong group) it cannot be known; 0 is
        returned there, which gives weight 1 to a rollout that has no effect anyway.

    Raises:
        ValueError: group_size below 2.
    """
    if group_size < 2:
        raise ValueError(
            f"group_size is {group_size}, but a group-relative advantage needs at least 2 rollouts per group; "
            "set actor_rollout_ref.rollout.n to 2 or more"
        )
    a = advantage.to(torch.float64)
    if divided_by_std:
        bessel = (group_size - 1) / group_size
        square = a * a
        mu = torch.where(a > 0, bessel / (bessel + square), square / (square + bessel))
    else:
        mu = torch.where(a > 0, 1.0 - a, -a).clamp(0.0, 1.0)
    return torch.where(a == 0, torch.zeros_like(mu), mu)


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
    if not (isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma is {gamma}, but it must be a finite number of at least 0; 0.5 is the paper's choice")
    return 4.0 / sqrt(pi) * exp(lgamma(gamma + 1.5) - lgamma(gamma + 3.0))
