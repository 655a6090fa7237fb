"""The CPU path is opt-in: nothing of verl changes without VERL_PLATFORM=cpu, and what changes with it."""

import os
import subprocess
import sys
import textwrap

import pytest


def python(code: str, platform: str | None) -> str:
    """Output of `code` in a fresh interpreter, where no other plugin of verl is loaded."""
    env = {k: v for k, v in os.environ.items() if k != "VERL_PLATFORM"}
    env |= {"VERL_USE_EXTERNAL_PLUGINS": "none", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if platform is not None:
        env["VERL_PLATFORM"] = platform
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_install_refuses_without_the_opt_in() -> None:
    code = """
        from verl_fgrpo.cpu.install import install
        try:
            install()
        except RuntimeError as error:
            print(error)
    """
    assert "needs VERL_PLATFORM=cpu" in python(code, None)
    assert "VERL_PLATFORM='nvidia'" in python(code, "nvidia")


def test_importing_the_package_changes_nothing() -> None:
    code = """
        import sys
        import verl_fgrpo.cpu.entry
        assert not [name for name in sys.modules if name.split(".")[0] in ("verl", "torch", "ray")]
        assert not any("verl_fgrpo" in type(finder).__module__ for finder in sys.meta_path)
        import verl
        from verl.plugin.platform import platform_manager
        print(platform_manager.PlatformRegistry.get("cpu"), verl.utils.device.get_device_name())
    """
    assert python(code, None) == "None cuda"


def test_platform_is_not_auto_detected() -> None:
    code = """
        import os
        from verl_fgrpo.cpu.install import install
        install()
        import verl
        from verl.plugin.platform import platform_manager
        print(platform_manager._detect_platform_name(), end=" ")
        del os.environ["VERL_PLATFORM"]
        print(platform_manager._detect_platform_name())
    """
    assert python(code, "cpu").split()[:2] == ["cpu", "nvidia"]


def test_install_registers_everything_once_and_lazily() -> None:
    code = """
        import sys
        from verl_fgrpo.cpu.install import install
        install()
        install()
        import verl
        loaded = [name for name in sys.modules if name.startswith("verl_fgrpo.cpu.")]
        print(sorted(loaded))
        from verl.utils.device import get_device_id, get_device_name, get_nccl_backend, get_torch_device
        print(get_device_name(), get_device_id(), get_nccl_backend(), get_torch_device().max_memory_allocated() > 1e7)
        from verl.workers.rollout.base import get_rollout_class
        print(get_rollout_class("hf").__name__)
        from verl.workers.rollout.replica import get_rollout_replica_class
        print(get_rollout_replica_class("hf").__name__)
        from verl.workers.engine import EngineRegistry
        print(EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__)
    """
    assert python(code, "cpu").splitlines() == [
        "['verl_fgrpo.cpu.install', 'verl_fgrpo.cpu.platform']",
        "cpu cpu gloo True",
        "HFServerAdapter",
        "HFReplica",
        "CPUFSDPEngineWithLMHead",
    ]


def test_hook_runs_after_the_module_and_once(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from verl_fgrpo.host.import_hooks import when_imported

    module_file = tmp_path / "hooked_module.py"  # type: ignore[operator]
    module_file.write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[int] = []
    when_imported("hooked_module", lambda module: seen.append(module.value))
    assert seen == []
    import hooked_module  # type: ignore[import-not-found]

    assert seen == [1]
    when_imported("hooked_module", lambda module: seen.append(module.value + 1))
    assert seen == [1, 2]
    assert hooked_module.__spec__.loader.get_source("hooked_module") == "value = 1\n"
