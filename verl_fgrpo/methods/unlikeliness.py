"""Unlikeliness reward: among correct rollouts of a group, the likely ones earn less (arXiv 2506.02355). No verl."""

import torch

from verl_fgrpo.core.groups import group_is_constant, group_rank, group_size


def unlikeliness_rewards(
    scores: torch.Tensor,
    correct: torch.Tensor,
    mean_log_probs: torch.Tensor,
    codes: torch.Tensor,
    beta: float,
    ranked: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rewards with the rank penalty; GRPO on them is the method.

        R_i <- R_i * (1 - beta * rank_i / N)    for correct rollouts

    rank_i counts the rollouts of the group, wrong ones too, that are less likely: 0 is the least likely, N - 1 the most
    likely. GRPO reinforces what is likely already (rank bias); this turns the order around.
    Source: arXiv 2506.02355, section 4.1, which counts ranks from the other end; the authors' code (`rank_penalty`,
    0.25) counts them as here.

    Three choices: Rollouts of equal likelihood (the same response twice) share the mean of their ranks, so their
    rewards are equal and row order does not matter. Groups whose rewards are all equal before the penalty keep them,
    so all-correct groups stay inactive, as in the paper. Only correct rollouts with a positive reward are penalised,
    which is the formula for 0/1 rewards and keeps wrong rollouts as they are at other rewards (e.g. -1/1).

    Args:
        scores: (B,) summed reward of every rollout, float.
        correct: (B,) bool.
        mean_log_probs: (B,) mean log-probability of the response tokens under the sampling policy, nats per token.
        codes: (B,) int64 group numbers from `focal.group_codes`.
        beta: strength in [0, 1]; 0 leaves the rewards as they are, bit for bit.
        ranked: (B,) bool, rollouts that have a likelihood, default all: an empty response, or one whose tokens were all
            rejected, has no rank, is not counted in N and keeps its reward.

    Returns:
        (B,) rewards, dtype of `scores`.
    """
    ranked = torch.ones_like(correct) if ranked is None else ranked
    factor = torch.ones_like(scores)
    part = codes[ranked]
    factor[ranked] = (1.0 - beta * group_rank(mean_log_probs[ranked], part) / group_size(part)).to(scores.dtype)
    penalised = correct & (scores > 0) & ~group_is_constant(scores, codes)
    return torch.where(penalised, scores * factor, scores)
