"""Registration inside verl: names, clashes, loud failures, the doctor, presets, and the built wheel in a Ray worker."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import verl  # noqa: F401  (loads the plugin)
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

from verl_fgrpo.host.contract import (
    CPU_HOST_SYMBOLS,
    HOST_SYMBOLS,
    RECIPE_HOST_SYMBOLS,
    TRAINER_HOST_SYMBOLS,
    broken_symbols,
)
from verl_fgrpo.host.doctor import main as doctor_command
from verl_fgrpo.host.register import _register
from verl_fgrpo.host.state import registration
from verl_fgrpo.methods.estimators import BASE_ESTIMATORS
from verl_fgrpo.methods.losses import BASE_LOSSES

ROOT = Path(__file__).resolve().parents[2]


def python(code, env=None, cwd=None):
    """Run `code` in a fresh interpreter; fails with its standard error."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | (env or {}),
        timeout=1200,
        cwd=cwd,
    )
    assert result.returncode == 0, result.stderr
    return result


def test_importing_verl_registers_every_name():
    assert registration.loaded and not registration.failures and not registration.clashes
    assert {f"f_{name}" for name in BASE_ESTIMATORS} <= set(ADV_ESTIMATOR_REGISTRY)
    assert {f"f_{name}" for name in BASE_LOSSES} <= set(POLICY_LOSS_REGISTRY)


@pytest.mark.parametrize(("registry", "kind"), [(ADV_ESTIMATOR_REGISTRY, "estimator"), (POLICY_LOSS_REGISTRY, "loss")])
def test_a_taken_name_is_left_alone_loudly_and_the_rest_is_registered(registry, kind, caplog, monkeypatch):
    def stranger():
        pass

    before = dict(registry)
    registry["f_taken"] = stranger
    monkeypatch.setattr(registration, "clashes", {})
    free = registry["f_grpo" if kind == "estimator" else "f_vanilla"]
    try:
        _register(registry, kind, {"f_taken": free, "f_free": free})
        assert registry["f_taken"] is stranger and registry["f_free"] is free
    finally:
        del registry["f_taken"], registry["f_free"]
    assert registry == before
    assert re.search(rf"{kind} name 'f_taken' is taken by .*stranger.*never overwrites", caplog.text)
    assert "stranger" in registration.clashes["f_taken"]


def test_importing_the_package_alone_imports_no_verl():
    python("import sys, verl_fgrpo, verl_fgrpo.core.focal; assert 'verl' not in sys.modules")


def test_a_failing_registration_is_loud_and_the_doctor_tells_it(tmp_path):
    # another plugin that loads first and takes a name of ours
    (tmp_path / "rival.py").write_text(
        "from verl.trainer.ppo.core_algos import register_policy_loss\n"
        "@register_policy_loss('f_vanilla')\n"
        "def rival_loss(*a, **k):\n    raise NotImplementedError\n"
    )
    env = {"VERL_USE_EXTERNAL_MODULES": "rival", "PYTHONPATH": str(tmp_path)}
    doctor = subprocess.run(
        [sys.executable, "-m", "verl_fgrpo"], capture_output=True, text=True, env=os.environ | env, timeout=1200
    )
    assert doctor.returncode == 1
    assert "ERROR" in doctor.stderr and "'f_vanilla' is taken by rival.rival_loss" in doctor.stderr
    assert "'f_vanilla' is taken by rival.rival_loss" in doctor.stdout and "f_cispo" in doctor.stdout


def test_the_doctor_is_content_with_this_installation():
    doctor = subprocess.run([sys.executable, "-m", "verl_fgrpo"], capture_output=True, text=True, timeout=1200)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "all is well" in doctor.stdout
    for name in ("f_grpo", "f_vanilla", "focal_sync", "focal_colocate_async", "focal_separate_async"):
        assert name in doctor.stdout


@pytest.mark.parametrize("key", ["focal_gamma", "f_grpo_gamma"])
def test_the_doctor_warns_of_a_verl_with_a_focal_weight_of_its_own(key, monkeypatch, capsys):
    import verl.trainer.config as config

    own = make_dataclass("AlgoConfig", [(key, float, 0.0)], bases=(config.AlgoConfig,))
    monkeypatch.setattr(config, "AlgoConfig", own)
    assert doctor_command() == 1
    told = capsys.readouterr().out
    assert f"a focal weight of its own (algorithm.{key})" in told and "1 problem(s)" in told


def test_the_doctor_notices_a_plugin_that_is_switched_off():
    env = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": "none"}
    doctor = subprocess.run([sys.executable, "-m", "verl_fgrpo"], capture_output=True, text=True, env=env, timeout=1200)
    assert doctor.returncode == 1
    assert "VERL_USE_EXTERNAL_PLUGINS is 'none'" in doctor.stdout


def test_releases_without_entry_points_load_the_plugin_by_an_environment_variable():
    """The way for verl before 0.9, tried with entry points switched off."""
    env = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": "none", "VERL_USE_EXTERNAL_MODULES": "verl_fgrpo.register"}
    doctor = subprocess.run([sys.executable, "-m", "verl_fgrpo"], capture_output=True, text=True, env=env, timeout=1200)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "it must be set for every Ray worker" in doctor.stdout and "f_grpo" in doctor.stdout


def test_every_host_symbol_and_parameter_is_there():
    assert broken_symbols() == []
    assert broken_symbols(CPU_HOST_SYMBOLS) == []
    assert broken_symbols(TRAINER_HOST_SYMBOLS) == []


def used_symbols(path):
    """Symbols of verl and TransferQueue, "module:attribute", in one of our files.

    Imported ones, those read off an imported module, and those read off the module that an import hook is given.
    """
    tree = ast.parse(path.read_text())
    symbols, modules = set(), {}

    def attributes(node, name, module):
        for inner in ast.walk(node):
            read = isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == name
            if read and not inner.attr.startswith("__"):
                symbols.add(f"{module}:{inner.attr}")

    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("verl", "transfer_queue"):
            for name in node.names:
                symbols.add(f"{node.module}:{name.name}")
                if isinstance(getattr(importlib.import_module(node.module), name.name, None), types.ModuleType):
                    modules[name.asname or name.name] = f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            modules |= {n.asname: n.name for n in node.names if n.name.split(".")[0] == "verl" and n.asname}
            modules |= {n.asname or n.name: n.name for n in node.names if n.name == "transfer_queue"}
        elif isinstance(node, (ast.Call, ast.Tuple)):  # when_imported("verl...", hook), or a row of a table of hooks
            given = node.args if isinstance(node, ast.Call) else node.elts
            if len(given) == 2 and all(isinstance(given[i], t) for i, t in enumerate((ast.Constant, ast.Name))):
                hook = functions.get(given[1].id)
                if str(given[0].value).startswith("verl.") and hook is not None:
                    attributes(hook, hook.args.args[0].arg, given[0].value)
    for name, module in modules.items():
        attributes(tree, name, module)
    return symbols


def test_every_symbol_of_verl_that_we_use_is_in_the_contract():
    declared = {*HOST_SYMBOLS, *RECIPE_HOST_SYMBOLS, *TRAINER_HOST_SYMBOLS, *CPU_HOST_SYMBOLS}
    used = {}
    for path in (ROOT / "verl_fgrpo").rglob("*.py"):
        for symbol in used_symbols(path):
            used.setdefault(symbol, []).append(str(path.relative_to(ROOT)))
    assert len(used) > 30
    assert {symbol: places for symbol, places in used.items() if symbol not in declared} == {}


def test_a_changed_host_is_noticed():
    changed = {
        "verl.trainer.ppo.core_algos:compute_policy_loss_vanilla": ("old_log_prob", "renamed"),
        "verl.trainer.ppo.core_algos:gone": (),
        "verl.workers.config:ActorConfig.gone": (),
    }
    texts = broken_symbols(changed)
    assert texts[0].endswith("compute_policy_loss_vanilla no longer takes renamed")
    assert "gone is missing" in texts[1] and "gone is missing" in texts[2]


def compose(*overrides):
    """The config verl's own entry point composes, as plain data."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        return OmegaConf.to_container(compose("ppo_trainer", overrides=list(overrides)), resolve=True)


# arXiv 2602.06717 App. B (clip bounds, aggregation, no KL) and Table 5 (gamma)
@pytest.mark.parametrize(
    ("preset", "loss", "low", "high"),
    [("grpo", "vanilla", 0.2, 0.2), ("dapo", "vanilla", 0.2, 0.28), ("cispo", "cispo", 1.0, 5.0)],
)
@pytest.mark.parametrize("inside_the_loss", [False, True])
def test_presets_set_the_papers_values(preset, loss, low, high, inside_the_loss):
    config = compose(f"+focal={preset}{'_loss' if inside_the_loss else ''}", "algorithm.focal_gamma=1.0")
    actor = config["actor_rollout_ref"]["actor"]
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"]) == (low, high)
    assert actor["loss_agg_mode"] == "token-mean"
    assert not actor["use_kl_loss"] and not config["algorithm"]["use_kl_in_reward"]
    assert config["algorithm"]["focal_gamma"] == 1.0
    assert config["algorithm"]["norm_adv_by_std_in_grpo"] is True
    if inside_the_loss:
        assert config["algorithm"]["adv_estimator"] == "grpo"
        assert actor["policy_loss"]["loss_mode"] == f"f_{loss}"
        assert actor["policy_loss"]["_target_"] == "verl_fgrpo.config.FocalPolicyLossConfig"
        assert actor["policy_loss"]["focal_gamma"] == 1.0
    else:
        assert config["algorithm"]["adv_estimator"] == "f_grpo"
        assert actor["policy_loss"]["loss_mode"] == loss


@pytest.mark.parametrize("name", ["unlikeliness", "ds_grpo", "maxrl", "w_reinforce", "passk_training"])
@pytest.mark.parametrize("cpu_last", [False, True])
def test_sibling_presets_keep_their_trainer_mode_beside_the_cpu_preset(name, cpu_last):
    overrides = [f"+focal={name}", "+platform=cpu"]
    config = compose(*(overrides if cpu_last else reversed(overrides)))
    assert config["algorithm"]["adv_estimator"] == f"f_{name}" and config["algorithm"]["focal_gamma"] == 0
    assert config["trainer"]["v1"]["trainer_mode"] == "sync"


@pytest.mark.parametrize("engine", ["dp", "megatron"])
def test_presets_compose_with_the_other_engines(engine):
    config = compose("+focal=dapo_loss", f"model_engine={engine}")
    assert config["actor_rollout_ref"]["actor"]["policy_loss"]["focal_gamma"] == 0.5


def test_the_built_wheel_works_in_a_ray_worker_without_the_checkout(tmp_path):
    source = tmp_path / "source"  # a copy: building in the checkout would leave a build folder there
    source.mkdir()
    shutil.copytree(ROOT / "verl_fgrpo", source / "verl_fgrpo", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)],
        check=True,
        timeout=1200,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        timeout=1200,
    )
    result = python(
        """
        import os, pathlib, ray, verl, verl_fgrpo

        @ray.remote(num_cpus=0)
        def worker():
            import verl, verl_fgrpo
            from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
            names = [n for r in (ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY) for n in r if n.startswith("f_")]
            preset = pathlib.Path(verl_fgrpo.__file__).parent / "presets" / "focal" / "grpo.yaml"
            from verl_fgrpo.host.state import registration
            return verl_fgrpo.__file__, registration.failures, len(names), preset.exists()

        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        print(*ray.get(worker.remote()))
        """,
        {"PYTHONPATH": str(site)},
        cwd=tmp_path,
    )
    file, error, names, preset = result.stdout.split()[-4:]
    assert Path(file).is_relative_to(site), f"loaded {file}, not the wheel"
    here = [name for registry in (ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY) for name in registry]
    expected = str(len([name for name in here if name.startswith("f_")]))
    assert (error, names, preset) == ("[]", expected, "True")


@pytest.mark.parametrize("line", ["raise ImportError('no libcudart')", "raise AttributeError('no x')", "1 / 0"])
def test_a_verl_that_cannot_be_imported_is_told(tmp_path, line):
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl" / "__init__.py").write_text(line + "\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    for command in ([], ["doctor"], ["explain", "+focal=grpo"], ["preflight", "compose"]):
        module = "verl_fgrpo.cli" if command else "verl_fgrpo"
        done = subprocess.run(
            [sys.executable, "-m", module, *command], capture_output=True, text=True, env=env, timeout=1200
        )
        told = done.stdout + done.stderr
        assert done.returncode == 1 and "verl cannot be imported" in told and "Traceback" not in told
