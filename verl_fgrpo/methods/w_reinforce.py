"""W-REINFORCE and NSR: learn mostly, or only, from wrong rollouts (arXiv 2506.01347). No verl."""

import torch


def w_reinforce_advantages(correct: torch.Tensor, positive_weight: float) -> torch.Tensor:
    """A constant for correct rollouts and another for wrong ones, whatever the rest of the group did.

        A_i = lambda if correct, -1 if wrong

    lambda = 0.1 is W-REINFORCE, lambda = 0 is NSR (negative samples only), lambda = 1 plain REINFORCE on +1/-1.
    Source: arXiv 2506.01347. There is no group: all-wrong groups push at full strength, all-correct ones with lambda.

    Args:
        correct: (B,) bool.
        positive_weight: lambda, at least 0.

    Returns:
        (B,) float32 advantages.
    """
    return torch.where(correct, positive_weight, -1.0)
