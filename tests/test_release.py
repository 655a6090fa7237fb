"""What a release ships: the wheel's contents, the workflows, and a training run with the wheel alone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml
from test_verl_runs import check_advantages, run_verl, success_rates

import verl_fgrpo

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that no build folder is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "verl_fgrpo", source / "verl_fgrpo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"verl_fgrpo-{verl_fgrpo.__version__}-py3-none-any.whl"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    package = {name for name in names if name.startswith("verl_fgrpo/")}
    files = (path for path in (ROOT / "verl_fgrpo").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert package == {path.relative_to(ROOT).as_posix() for path in files}
    assert {
        "verl_fgrpo/py.typed",
        "verl_fgrpo/presets/focal/grpo.yaml",
        "verl_fgrpo/presets/platform/cpu.yaml",
    } < package
    folder = f"verl_fgrpo-{verl_fgrpo.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"verl_fgrpo", folder}
    assert f"{folder}/licenses/LICENSE" in names


def test_entry_points_and_command_of_the_wheel(wheel):
    distribution = PathDistribution(zipfile.Path(wheel) / f"verl_fgrpo-{verl_fgrpo.__version__}.dist-info")
    found = {(point.group, point.name): point.value for point in distribution.entry_points}
    assert found == {
        ("verl.plugins", "verl_fgrpo"): "verl_fgrpo.host.register",
        ("verl.plugins", "verl_fgrpo_cpu"): "verl_fgrpo.cpu.entry",
        ("console_scripts", "verl-fgrpo"): "verl_fgrpo.cli:main",
    }
    required = {line.split(";")[0].strip() for line in distribution.requires if "extra ==" not in line}
    names = {re.split("[><=]", line)[0] for line in required}
    assert {"numpy", "omegaconf", "hydra-core"} <= names
    assert not names & {"torch", "verl", "ray", "transformers", "vllm"}  # the host's business


def test_the_version_stands_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", verl_fgrpo.__version__)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def commands(workflow):
    """Every `run:` of a workflow."""
    jobs = yaml.safe_load((WORKFLOWS / workflow).read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def test_github_runs_what_a_commit_must_pass():
    assert commands("test.yml") == ["bash .ci/run"]
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec bash scripts/test.sh"
    assert commands("full.yml") == ["bash scripts/test_full.sh"]
    assert commands("release.yml")[0] == "bash .ci/run"
    for file in WORKFLOWS.iterdir():
        workflow = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Python of a fresh environment: the wheel, and behind it what is installed here, without this checkout."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin/python"
    (packages,) = folder.glob("lib/python3*/site-packages")
    # a path alone: the .pth files in there, one of which holds this checkout, are not followed
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(list(map(str, install)), check=True)
    return python


def run(python, *command):
    """Run in the fresh environment, away from this checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *command], cwd=python.parent, env=clean, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.full
@pytest.mark.verl_start
def test_the_wheel_alone_trains_with_verl(environment, mazes, tmp_path, monkeypatch):
    where = run(environment, "-c", "import verl_fgrpo; print(verl_fgrpo.__file__)").strip()
    assert Path(where).is_relative_to(environment.parent.parent)
    assert run(environment.parent / "verl-fgrpo", "--version") == f"verl_fgrpo {verl_fgrpo.__version__}\n"
    assert " f_gpg " in run(environment.parent / "verl-fgrpo", "doctor")
    monkeypatch.setattr(sys, "executable", str(environment))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = tmp_path / "run"
    logged, _ = run_verl(mazes, folder, "+focal=grpo", "algorithm.focal_gamma=1.0", "trainer.total_training_steps=2")
    assert set(logged) == {1, 2}
    for step, metrics in logged.items():
        check_advantages(metrics, success_rates(folder, step), gamma=1.0)
