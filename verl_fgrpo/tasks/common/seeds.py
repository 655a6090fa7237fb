"""Means over seeds: what other problems would give, and what each training gave."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.evaluation.significance import bootstrap_over_problems


class OverSeeds(NamedTuple):
    """A mean over the problems of all seeds, its 95% interval (bootstrap over problems), and the mean of each seed."""

    value: float
    low: float
    high: float
    by_seed: list[float]

    def columns(self) -> dict[str, float]:
        """value, low, high, and the extremes over seeds, seeds_low and seeds_high."""
        extremes = {"seeds_low": min(self.by_seed), "seeds_high": max(self.by_seed)}
        return {"value": self.value, "low": self.low, "high": self.high, **extremes}


def over_seeds(
    scores: Sequence[NDArray[np.float64]], references: Sequence[NDArray[np.float64]] | None = None
) -> OverSeeds:
    """The mean of `scores`, or of their paired difference to `references`.

    The interval says what other problems would change: problems are drawn anew within each seed. The spread over seeds
    has other training in it, too.

    Args:
        scores: of each seed, (P,) one number a problem.
        references: the same of what is subtracted, problems in the same order.
    """
    strata = [str(seed) for seed, values in enumerate(scores) for _ in values]
    together = np.concatenate(scores)
    if references is None:
        band = bootstrap_over_problems(together, groups=strata)
        by_seed = [float(values.mean()) for values in scores]
    else:
        band = bootstrap_over_problems(np.concatenate(references), together, groups=strata)
        by_seed = [float(np.mean(one - other)) for one, other in zip(scores, references, strict=True)]
    return OverSeeds(band.estimate, *band.interval, by_seed)
