"""What the method does during training, as metrics for verl's log. Pure functions; docs/monitoring.md explains them."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.passk import pass_at_k, powers_of_two
from verl_fgrpo.core.tail_miss import tail_miss_estimate

QUANTILES = (10, 25, 50, 75, 90)


def group_metrics(num_correct: ArrayLike, group_size: ArrayLike) -> dict[str, float]:
    """Metrics of a step that need only the number of correct rollouts of every group.

    Args:
        num_correct: (G,) X of every group, whole numbers.
        group_size: (G,) N of every group, at least 1; groups may have lost a rollout.

    Returns:
        With mu = X / N, each a mean over groups unless said otherwise:
        `focal/active_share` (0 < mu < 1), `focal/all_correct_share`, `focal/all_wrong_share`;
        `focal/success_rate/p10` ... `p90` (quantiles over groups, linearly interpolated);
        `focal/tail_miss_risk` (`tail_miss_estimate`);
        `focal/train_pass@k` for k = 1, 2, 4, ... and the largest N (unbiased; over groups of at least k rollouts).
        Empty without groups.
    """
    x, n = np.asarray(num_correct), np.asarray(group_size)
    if n.size == 0:
        return {}
    metrics = {
        "focal/active_share": float(np.mean((x > 0) & (x < n))),
        "focal/all_correct_share": float(np.mean(x == n)),
        "focal/all_wrong_share": float(np.mean(x == 0)),
        "focal/tail_miss_risk": float(np.mean(tail_miss_estimate(x, n))),
    }
    for percent, value in zip(QUANTILES, np.percentile(x / n, QUANTILES), strict=True):
        metrics[f"focal/success_rate/p{percent}"] = float(value)
    largest = int(n.max())
    for k in sorted({*powers_of_two(largest), largest}):
        enough = n >= k
        metrics[f"focal/train_pass@{k}"] = float(np.mean(pass_at_k(n[enough], x[enough], k)))
    return metrics


def count_groups(correct: torch.Tensor, codes: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """X and N of every group, (G,) int64 each, from (B,) bool `correct` and (B,) group numbers of `group_codes`."""
    num_correct = torch.bincount(codes, weights=correct.to(codes.device, torch.float64)).to(torch.int64)
    return num_correct.cpu().numpy(), torch.bincount(codes).cpu().numpy()


def weight_metrics(weight: torch.Tensor, magnitude: torch.Tensor, codes: torch.Tensor) -> dict[str, float]:
    """What the focal weight did to the advantages of a step.

        focal/weight_mean  = mean over groups of g
        focal/update_scale = sum_i g_i |A_i| / sum_i |A_i|,  summed over rollouts and their response tokens

    Args:
        weight: (B,) focal weight g of every rollout, the same within a group.
        magnitude: (B,) sum over a rollout's response tokens of |A| before weighting.
        codes: (B,) int64 group number 0 .. G - 1, from `focal.group_codes`.

    Returns:
        The two metrics; without an active group `focal/update_scale` is 0 / 0 and left out.
    """
    g, size, codes = weight.double().cpu(), magnitude.double().cpu(), codes.cpu()
    per_group = torch.bincount(codes, weights=g) / torch.bincount(codes)
    metrics = {"focal/weight_mean": per_group.mean().item()}
    total = size.sum().item()
    if total > 0:
        metrics["focal/update_scale"] = (g * size).sum().item() / total
    return metrics
