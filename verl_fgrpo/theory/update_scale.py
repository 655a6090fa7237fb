"""How focal weighting changes the size of an update, and the learning rate that would have the same effect.

Averaged over success rates spread uniformly on [0, 1], `mean_absolute_advantage` at gamma relative to gamma = 0 is
`verl_fgrpo.core.focal.update_scale(gamma)`, the learning-rate factor of the paper's low-LR control (App. N).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.focal import update_scale

__all__ = ["mean_absolute_advantage", "update_scale"]


def mean_absolute_advantage(mu: ArrayLike, focal_gamma: float) -> NDArray[np.float64]:
    """Mean |advantage| of a GRPO group with success rate mu, after focal weighting.

        (1 - mu)^gamma * 2 * sqrt(mu * (1 - mu))                          (arXiv 2602.06717, eq. 3, 12; Fig. 4)

    GRPO gives sqrt((1 - mu) / mu) to the share mu of correct rollouts and -sqrt(mu / (1 - mu)) to the others
    (population standard deviation, eps = 0).

    Args:
        mu: success rate of the group in [0, 1]; any shape.
        focal_gamma: gamma >= 0.

    Returns:
        float64 array of mu's shape; 0 at mu = 0 and mu = 1.

    Raises:
        ValueError: mu outside [0, 1], gamma negative or not finite.
    """
    mu_arr = np.asarray(mu, dtype=np.float64)
    if not np.all((mu_arr >= 0) & (mu_arr <= 1)):
        raise ValueError(f"mu must be a success rate in [0, 1], got {mu!r}")
    if not (math.isfinite(focal_gamma) and focal_gamma >= 0):
        raise ValueError(f"focal_gamma must be finite and >= 0, got {focal_gamma!r}: 0 is plain GRPO, 0.5 the default")
    return np.asarray((1.0 - mu_arr) ** focal_gamma * 2.0 * np.sqrt(mu_arr * (1.0 - mu_arr)), dtype=np.float64)
