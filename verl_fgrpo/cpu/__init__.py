"""verl's own trainer on a machine without an accelerator, active only with VERL_PLATFORM=cpu.

`install()` is called by `verl_fgrpo.register` while `import verl` is still running, in the driver and in every Ray
worker. Every module of verl is extended right after its first import, so nothing is imported early.

    platform.py   the platform "cpu" (never auto-detected) and device.py, its device module
    engine.py     FSDP2 engines for the device "cpu"
    agent_loop.py agent loop workers that group their remote calls
    rollout.py    the rollout "hf": training-side adapter, Ray server, replica
    generation.py batched, KV-cached sampling with exact log-probs (no verl in it)
    agent_loop.py agent loop workers that move rollouts in groups
    sampler.py    a replay buffer that polls fast
    toy.py        a toy task to try all of it with
    benchmark.py  a step of the trainer against bare generation, forward and update
"""

import os
from types import ModuleType

from verl_fgrpo.import_hooks import when_imported

__all__ = ["install"]

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
            "export it before verl is imported, or do not call verl_fgrpo.cpu.install()"
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
