"""Registers everything with verl. The entry point `verl.plugins` targets this module; it runs while verl is imported.

verl swallows exceptions of plugins at DEBUG level, so a failure here is logged as ERROR and kept in `host.state`, where
`verl-fgrpo doctor` shows it. One part that fails keeps no other from being registered.
"""

import logging
import traceback
from collections.abc import Callable
from typing import Any

from verl_fgrpo.host import val_metrics
from verl_fgrpo.host.seams import install_seams
from verl_fgrpo.host.state import registration
from verl_fgrpo.host.trainer_modes import install_trainer_modes

logger = logging.getLogger("verl_fgrpo")


def _register(registry: dict[str, Any], kind: str, entries: dict[str, Callable[..., Any]]) -> None:
    """Put our functions under their names; a name that another package holds is left to it, loudly."""
    for name, function in entries.items():
        present = registry.get(name)
        if present is None or hasattr(present, "__verl_fgrpo__"):
            registry[name] = function
            continue
        holder = f"{getattr(present, '__module__', '')}.{getattr(present, '__qualname__', type(present).__name__)}"
        registration.clashes[name] = holder
        remedy = (
            "it runs there with verl's own gamma key; every other name of verl_fgrpo is registered"
            if holder.startswith("verl.")
            else "uninstall one of the two plugins or limit them with VERL_USE_EXTERNAL_PLUGINS=verl_fgrpo"
        )
        logger.error("the %s name %r is taken by %s, and verl_fgrpo never overwrites; %s", kind, name, holder, remedy)


def register_estimators() -> None:
    """Register the estimators of `methods.estimators` with verl."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, get_adv_estimator_fn

    from verl_fgrpo.methods.estimators import estimators

    _register(ADV_ESTIMATOR_REGISTRY, "advantage estimator", dict(estimators(get_adv_estimator_fn)))


def register_policy_losses() -> None:
    """Register the losses of `methods.losses` with verl."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn

    from verl_fgrpo.methods.losses import policy_losses

    _register(POLICY_LOSS_REGISTRY, "policy loss", dict(policy_losses(get_policy_loss_fn)))


def register_presets() -> None:
    """Let Hydra find the config groups of `verl_fgrpo/presets`, e.g. `+focal=grpo`, in every entry point of verl."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class FocalPresets(SearchPathPlugin):  # type: ignore[misc]
        """Appends the presets, so that verl's own config of the same name would win."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            search_path.append(provider="verl_fgrpo", path="pkg://verl_fgrpo.presets")

    Plugins.instance().register(FocalPresets)


def register() -> None:
    """Register estimators, losses and presets, and put in the seams.

    Raises:
        RuntimeError: a part failed, after logging it and keeping it in `host.state`.
    """
    registration.loaded = True
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)  # verl shows warnings only; the line of proof is to be seen
    parts = (register_estimators, register_policy_losses, register_presets, install_seams, install_trainer_modes)
    for part in (*parts, val_metrics.install):
        try:
            part()
        except Exception:
            registration.failures.append(traceback.format_exc())
            logger.exception("verl_fgrpo could not register with verl (%s); see verl-fgrpo doctor", part.__name__)
    if registration.failures:
        raise RuntimeError("verl_fgrpo could not register everything with verl; see verl-fgrpo doctor")


register()
