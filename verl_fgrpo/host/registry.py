"""Estimators as verl knows them, for rooms that do not import verl."""

from collections.abc import Callable
from typing import Any

__all__ = ["registered_estimator"]


def registered_estimator(name: str) -> Callable[..., Any]:
    """The function that verl calls for `algorithm.adv_estimator=name`, ours or its own.

    Raises:
        ValueError: verl knows none of that name.
    """
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    estimator: Callable[..., Any] = get_adv_estimator_fn(name)
    return estimator
