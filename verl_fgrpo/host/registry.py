"""What is in verl's registries: ours, and what verl calls by a name."""

from collections.abc import Callable, Mapping
from typing import Any


def ours(registry: Mapping[str, Any], name: Any) -> Any:
    """Our function of that name in a registry of verl, or None."""
    function = registry.get(name) if isinstance(name, str) else None
    return function if hasattr(function, "__verl_fgrpo__") else None


def our_names(registry: Mapping[str, Any]) -> list[str]:
    """The names in a registry of verl under which this package registered something."""
    return sorted(name for name in registry if ours(registry, name) is not None)


def registered_estimator(name: str) -> Callable[..., Any]:
    """The function that verl calls for `algorithm.adv_estimator=name`, ours or its own.

    Raises:
        ValueError: verl knows none of that name.
    """
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    estimator: Callable[..., Any] = get_adv_estimator_fn(name)
    return estimator
