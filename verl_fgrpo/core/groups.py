"""Statistics within the groups of a batch. Rows of a group need not be neighbours. No verl."""

import torch


def group_sum(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Sum of each row's group, (B,) float64, of (B,) numbers or booleans; `codes` are int64 group numbers 0, 1, ..."""
    total = torch.zeros(int(codes.max()) + 1 if len(codes) else 0, dtype=torch.float64, device=values.device)
    return total.index_add_(0, codes, values.to(torch.float64))[codes]


def group_mean(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Mean of each row's group; arguments and result as in `group_sum`."""
    return group_sum(values, codes) / group_size(codes)


def group_size(codes: torch.Tensor) -> torch.Tensor:
    """Rows in each row's group, (B,) int64."""
    return torch.bincount(codes)[codes]


def group_is_constant(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Whether all rows of each row's group hold the same value, (B,) bool; true for a group of one."""
    groups = int(codes.max()) + 1 if len(codes) else 0
    start = torch.full((groups,), torch.inf, dtype=values.dtype, device=values.device)
    lowest = start.scatter_reduce(0, codes, values, "amin")
    highest = (-start).scatter_reduce(0, codes, values, "amax")
    return (lowest == highest)[codes]


def group_rank(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Rank of each row in its group, ascending from 0; equal values share the mean of their ranks.

    So the ranks of a group of N, (B,) float64 in [0, N - 1], sum to N (N - 1) / 2 whatever the ties, in any row order.
    """
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(codes[order], stable=True)]  # by group, within it by value
    group, value = codes[order], values[order]
    size = torch.bincount(codes)
    place = torch.arange(len(order), device=values.device) - (size.cumsum(0) - size)[group]
    new_run = torch.ones(len(order), dtype=torch.bool, device=values.device)
    new_run[1:] = (group[1:] != group[:-1]) | (value[1:] != value[:-1])
    rank = torch.empty(len(order), dtype=torch.float64, device=values.device)
    rank[order] = group_mean(place, new_run.cumsum(0) - 1)
    return rank
