"""Registers everything with verl. The entry point `verl.plugins` targets this module; it runs while verl is imported.

verl swallows exceptions of plugins at DEBUG level, so a failure here is logged as ERROR and kept in
`verl_fgrpo.registration_error`, where `python -m verl_fgrpo` shows it.
"""

import logging
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import verl_fgrpo
from verl_fgrpo.host import val_metrics
from verl_fgrpo.host.import_hooks import when_imported

logger = logging.getLogger("verl_fgrpo")

_OURS = "__verl_fgrpo__"


def _register(registry: dict[str, Any], kind: str, name: str, function: Callable[..., Any]) -> None:
    """Put `function` under `name`, which must be free (or hold an earlier load of this same plugin).

    Raises:
        ValueError: another package holds the name.
    """
    present = registry.get(name)
    if present is not None and not hasattr(present, _OURS):
        raise ValueError(
            f"the {kind} name {name!r} is taken by {present.__module__}.{present.__qualname__}, but verl_fgrpo "
            "registers its own under it and never overwrites; uninstall one of the two plugins or limit them with "
            "VERL_USE_EXTERNAL_PLUGINS=verl_fgrpo"
        )
    setattr(function, _OURS, True)
    registry[name] = function


def register_estimators() -> None:
    """Register every sibling Y, and f_X for every X of `advantages.BASE_ESTIMATORS` and every sibling, with verl."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, get_adv_estimator_fn

    from verl_fgrpo.methods.estimators import BASE_ESTIMATORS, focal_estimator
    from verl_fgrpo.methods.sibling_estimators import SIBLINGS, sibling_estimator

    for name in SIBLINGS:
        sibling = sibling_estimator(name, get_adv_estimator_fn("grpo"))
        _register(ADV_ESTIMATOR_REGISTRY, "advantage estimator", name, sibling)
    for name in (*BASE_ESTIMATORS, *SIBLINGS):
        estimator = focal_estimator(name, get_adv_estimator_fn(name))
        _register(ADV_ESTIMATOR_REGISTRY, "advantage estimator", f"f_{name}", estimator)


def register_policy_losses() -> None:
    """Register f_Y for every Y of `policy_losses.BASE_LOSSES` with verl."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn

    from verl_fgrpo.methods.losses import BASE_LOSSES, focal_policy_loss

    for name in BASE_LOSSES:
        loss = focal_policy_loss(name, get_policy_loss_fn(name))
        _register(POLICY_LOSS_REGISTRY, "policy loss", f"f_{name}", loss)


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


def register_trainer_modes() -> None:
    """Register the modes of `trainer_modes.py` with verl, once verl itself imports its trainers (only a run does).

    A failure then is logged and kept like any other, but not raised: it would stop runs in verl's own modes.
    """

    def add(_: ModuleType) -> None:
        try:
            from verl_fgrpo.host.trainer_modes import register_modes

            register_modes()
        except Exception:
            verl_fgrpo.registration_error = traceback.format_exc()
            logger.exception("verl_fgrpo could not register with verl; its trainer modes are missing")

    when_imported("verl.trainer.ppo.v1", add)


def register() -> None:
    """Register estimators, losses, presets and trainer modes.

    Raises:
        Exception: whatever went wrong, after logging it and keeping it in `verl_fgrpo.registration_error`.
    """
    verl_fgrpo.registration_error = None
    try:
        register_estimators()
        register_policy_losses()
        register_presets()
        register_trainer_modes()
        val_metrics.install()
    except Exception:
        verl_fgrpo.registration_error = traceback.format_exc()
        logger.exception("verl_fgrpo could not register with verl; f_ estimators and losses are missing")
        raise


register()
