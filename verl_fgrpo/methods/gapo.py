"""GAPO: the upper clip bound depends on how many rollouts of the group are correct (arXiv 2609.00444). No verl.

Its losses are verl's own `gspo` (loss_mode `gapo`, ratio of the sequence) and `vanilla` (`gapo_token`, ratio of the
token), called with a bound for each row instead of one for all.
"""

import torch

#: ours -> verl's loss that it is built on
GAPO_LOSSES = {"gapo": "gspo", "gapo_token": "vanilla"}


def clip_high(mu: torch.Tensor, group_size: int, low: float, high: float) -> torch.Tensor:
    """Upper clip bound of a correct rollout.

        eps_hi(c) = eps_lo + (eps_max - eps_lo) * (k - c) / (k - 1),   c = k mu

    A lone correct rollout has eps_max; the fewer are wrong, the nearer is eps_lo. Source: arXiv 2609.00444, of which a
    section-by-section digest with this formula was read, not the text or the authors' code. It leaves open what a group
    that lost rollouts gets; here mu is that of the rollouts that are there.

    Args:
        mu: success rates, any shape, float64.
        group_size: k, rollouts per prompt, at least 2.
        low, high: eps_lo and eps_max.

    Returns:
        Bounds, shape and dtype of `mu`.
    """
    return low + (high - low) * (1.0 - mu) * group_size / (group_size - 1)
