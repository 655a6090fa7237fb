"""MaxRL: follow the gradient of the log of the success rate (arXiv 2602.02710). No verl."""

import torch

from verl_fgrpo.core.groups import group_mean

EPSILON = 1e-6  # as in verl's GRPO


def maxrl_advantages(scores: torch.Tensor, codes: torch.Tensor, epsilon: float = EPSILON) -> torch.Tensor:
    """Advantages that divide by the group's mean reward instead of its std.

        A_i = (R_i - mean R) / (mean R + eps)

    Source: arXiv 2602.02710. On 0/1 rewards A+ = (1 - mu) / mu and A- = -1: a rare success counts 1 / mu times more.
    All-correct, all-wrong and single-rollout groups get 0.

    Args:
        scores: (B,) summed reward of every rollout, at least 0 and finite.
        codes: (B,) int64 group numbers from `focal.group_codes`.
        epsilon: keeps all-wrong groups at 0 / eps = 0.

    Returns:
        (B,) advantages, dtype of `scores`.

    Raises:
        ValueError: a negative reward.
    """
    if bool((scores < 0).any()):
        raise ValueError(
            f"maxrl got a reward of {scores.min().item()}, but it divides by the mean reward of a group, so rewards "
            "must be at least 0; use 0/1 rewards, or adv_estimator=f_grpo, which takes any two values"
        )
    mean = group_mean(scores, codes)
    return ((scores.to(torch.float64) - mean) / (mean + epsilon)).to(scores.dtype)
