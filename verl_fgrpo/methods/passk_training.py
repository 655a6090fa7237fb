"""Pass@k training, analytic: the reward is whether k rollouts hold a correct one (arXiv 2508.10751). No verl."""

from math import comb, sqrt

import torch

from verl_fgrpo.core.groups import group_size, group_sum


def passk_advantages_of_group(group_size: int, num_correct: int, k: int) -> tuple[float, float]:
    """Advantage of a correct and of a wrong rollout, averaged over all k-subsets that hold it.

        rho = 1 - C(N-X, k) / C(N, k)                       mean reward of a k-subset: unbiased pass@k
        A+  = (1 - rho) / sigma                              sigma = sqrt(rho (1 - rho))
        A-  = (1 - rho - C(N-X-1, k-1) / C(N-1, k-1)) / sigma

    Source: arXiv 2508.10751, analytical derivation. Computed here as the equal A+ = sqrt((1-rho) / rho) and
    A- = -A+ * X / (N-X), which loses no digits, from exact integers: any N works. Where sigma is 0 (no k-subset
    succeeds, X = 0, or every one does, N - X < k) both are 0. k = 1 is GRPO with the std of the N rewards, without
    Bessel's correction.

    Args:
        group_size: N, rollouts of the group.
        num_correct: X, correct ones among them, 0 to N.
        k: rollouts that share a reward, 1 to N.

    Returns:
        (A+, A-).

    Raises:
        ValueError: k or num_correct out of range.
    """
    if not 1 <= k <= group_size:
        raise ValueError(
            f"passk_k is {k}, but a group has {group_size} rollouts, and k of them share a reward; "
            "set +algorithm.passk_k to 1 ... actor_rollout_ref.rollout.n"
        )
    if not 0 <= num_correct <= group_size:
        raise ValueError(f"num_correct is {num_correct}, but must be 0 to group_size = {group_size}; count again")
    num_wrong = group_size - num_correct
    subsets, failing = comb(group_size, k), comb(num_wrong, k)
    if failing in (0, subsets):
        return 0.0, 0.0
    positive = sqrt(failing / (subsets - failing))  # integers: Python rounds the quotient once
    return positive, -positive * num_correct / num_wrong


def passk_advantages(correct: torch.Tensor, codes: torch.Tensor, k: int) -> torch.Tensor:
    """Advantages of pass@k training for a batch; see `passk_advantages_of_group` for the formula.

    A group with fewer than k rollouts (it lost some) has no k-subset and gets 0.

    Args:
        correct: (B,) bool.
        codes: (B,) int64 group numbers from `focal.group_codes`.
        k: rollouts that share a reward, at least 1 and at most the size of the largest group.

    Returns:
        (B,) float64 advantages.

    Raises:
        ValueError: k larger than every group.
    """
    size = group_size(codes)
    counts = torch.stack([size, group_sum(correct, codes).to(torch.int64)], dim=1)
    kinds, kind_of_row = torch.unique(counts, dim=0, return_inverse=True)
    largest = int(size.max())
    if k > largest:
        passk_advantages_of_group(largest, 0, k)  # raises
    pairs = [passk_advantages_of_group(n, x, k) if k <= n else (0.0, 0.0) for n, x in kinds.tolist()]
    table = torch.tensor(pairs, dtype=torch.float64, device=correct.device)
    return table[kind_of_row, (~correct).to(torch.int64)]
