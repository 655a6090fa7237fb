"""Teaches verl the platform "cpu" right after verl's own modules are first imported; nothing is imported early."""

import os
from types import ModuleType

from verl_fgrpo.host.import_hooks import when_imported

_installed = False


def install() -> None:
    """Teach verl the platform "cpu" and the rollout "hf"; calling it again changes nothing.

    Raises:
        RuntimeError: if VERL_PLATFORM is not "cpu".
    """
    global _installed
    if _installed:
        return
    platform = os.environ.get("VERL_PLATFORM", "")
    if platform.strip().lower() != "cpu":
        raise RuntimeError(
            f"VERL_PLATFORM={platform!r}: the CPU path is opt-in and needs VERL_PLATFORM=cpu; "
            "export it before verl is imported, or do not call install()"
        )
    _installed = True

    when_imported("verl.plugin.platform.platform_manager", _register_platform)
    when_imported("verl.utils.distributed", _force_gloo)
    when_imported("verl.workers.engine.fsdp.transformer_impl", _register_engines)
    when_imported("verl.workers.rollout.base", _register_rollout_adapter)
    when_imported("verl.workers.rollout.replica", _register_rollout_replica)


def _register_platform(module: ModuleType) -> None:
    from verl_fgrpo.cpu.platform import PlatformCPU

    module.PlatformRegistry.register(platform="cpu")(PlatformCPU)


def _force_gloo(module: ModuleType) -> None:
    """verl asks for "cpu:gloo,cpu:gloo", which torch refuses as a duplicate; its own `backend` argument is the way."""
    host = module.initialize_global_process_group_ray

    def initialize_global_process_group_ray(timeout_second: float | None = None, backend: str | None = None) -> None:
        host(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    module.__dict__["initialize_global_process_group_ray"] = initialize_global_process_group_ray


def _register_engines(module: ModuleType) -> None:
    from verl_fgrpo.cpu.engine import register_engines

    register_engines()


def _register_rollout_adapter(module: ModuleType) -> None:
    module._ROLLOUT_REGISTRY[("hf", "async")] = "verl_fgrpo.cpu.rollout.HFServerAdapter"


def _register_rollout_replica(module: ModuleType) -> None:
    def load() -> type:
        from verl_fgrpo.cpu.rollout import HFReplica

        return HFReplica

    module.RolloutReplicaRegistry.register("hf", load)
