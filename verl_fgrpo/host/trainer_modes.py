"""The names `focal_sync`, `focal_colocate_async`, `focal_separate_async`: verl's own trainers, which log group metrics.

What they were made for comes with verl's own names since the seams (`seams.py`). Left is one difference: with these
names `focal/*` metrics of the groups are logged for every estimator, also for a plain GRPO baseline.
"""

from types import ModuleType
from typing import Any

from verl_fgrpo.host.import_hooks import when_imported

#: our name -> verl's
MODES = {
    "focal_sync": "sync",
    "focal_colocate_async": "colocate_async",
    "focal_separate_async": "separate_async",
}


def alias(mode: str, host: type[Any]) -> type[Any]:
    """verl's trainer under another name: it sees its own name in the configuration."""
    from omegaconf import open_dict

    def init(self: Any, config: Any) -> None:
        with open_dict(config.trainer.v1):
            config.trainer.v1.trainer_mode = MODES[mode]
        host.__init__(self, config)

    name = "".join(word.title() for word in mode.split("_"))
    return type(name, (host,), {"__init__": init, "__doc__": f"verl's {host.__name__}.", "logs_focal_groups": True})


def register_modes(_: ModuleType | None = None) -> None:
    """Register the names with verl's trainers; calling it again changes nothing."""
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, get_trainer_cls, register_trainer

    for mode, host in MODES.items():
        if not getattr(TRAINER_REGISTRY.get(mode), "logs_focal_groups", False):
            register_trainer(mode)(alias(mode, get_trainer_cls(host)))


def install_trainer_modes() -> None:
    """Register the names once verl imports its trainers, which only a run does."""
    when_imported("verl.trainer.ppo.v1", register_modes)
