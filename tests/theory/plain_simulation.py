"""The categorical simulation written out as one would on paper: one run, autograd, no shortcut.

`verl_fgrpo.theory.simulation` must give the same numbers (test_simulation.py); scripts/bench_simulation.py measures how
much faster it is.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def plain_simulate(
    group_size: int,
    focal_gamma: float,
    steps: int,
    draw: Callable[[torch.Tensor], torch.Tensor],
    *,
    logits: ArrayLike,
    num_correct: int,
    reward_correct: float = 1.0,
    reward_wrong: float = -1.0,
    learning_rate: float = 1e-2,
    divide_by_old: bool = True,
    dtype: torch.dtype = torch.float32,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One run of the simulation with Adam; see `simulation.simulate` for the formula and most arguments.

    Args:
        draw: gives a group's actions, int64 [group_size], from the probabilities [actions].
        divide_by_old: True: the ratio surrogate of `simulation.py`. False: the other reading, sum_j r_j * p(a_j) / N.

    Returns:
        q_pos and m_ret, each of length steps + 1.
    """
    z = torch.tensor(np.asarray(logits), dtype=dtype, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=learning_rate)
    start = torch.empty(0)
    q_pos, m_ret = np.empty(steps + 1), np.empty(steps + 1)
    for step in range(steps + 1):
        p = torch.softmax(z, 0)
        now = p.detach().double()[:num_correct] / p.detach().double().sum()
        start = now if step == 0 else start
        q_pos[step] = float(now.sum())
        m_ret[step] = float(1 - torch.clamp(start - now, min=0).sum() / start.sum())
        if step == steps:
            break
        actions = draw(p.detach())
        is_correct = actions < num_correct
        rewards = torch.where(is_correct, reward_correct, reward_wrong).to(dtype)
        weight = (1.0 - is_correct.double().mean()) ** focal_gamma
        ratios = p[actions] / p[actions].detach() if divide_by_old else p[actions]
        surrogate = weight * ((rewards - rewards.mean()) * ratios).mean()
        optimizer.zero_grad()
        (-surrogate).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return q_pos, m_ret
