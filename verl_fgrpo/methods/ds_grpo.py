"""Differential smoothing, DS-GRPO: flatten correct rollouts, sharpen wrong ones (arXiv 2511.19942). No verl."""

import torch


def differential_smoothing(
    advantages: torch.Tensor, correct: torch.Tensor, log_probs: torch.Tensor, gp: float, gn: float
) -> torch.Tensor:
    """GRPO's advantages, shifted by the rollout's log-probability with a sign that depends on correctness.

        A_i - gp * log pi_old(y_i | x)    if correct: the less likely, the more it gains (entropy bonus)
        A_i + gn * log pi_old(y_i | x)    if wrong:   the less likely, the more it loses (entropy penalty)

    Source: arXiv 2511.19942, eq. 6. log pi_old(y | x) is the log-probability of the whole response, a sum over its
    tokens; the caller may pass the mean per token instead (`algorithm.ds_length_normalized`).

    All-correct and all-wrong groups have A = 0 and still move by the shift. An empty response has log-probability 0
    and no shift.

    Args:
        advantages: (B,) GRPO's advantages, float.
        correct: (B,) bool.
        log_probs: (B,) log-probability of the response under the sampling policy, nats.
        gp: weight for correct rollouts, at least 0.
        gn: weight for wrong rollouts, at least 0. gp = gn = 0 is GRPO, bit for bit.

    Returns:
        (B,) advantages, dtype of `advantages`.
    """
    shift = torch.where(correct, -gp * log_probs, gn * log_probs)
    return advantages + shift.to(advantages.dtype)
