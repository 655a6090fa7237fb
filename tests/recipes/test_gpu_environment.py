"""The lock of GPU environments against what verl pins, and what its installer refuses."""

import os
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "gpu-py312.lock"


def locked():
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_the_lock_holds_what_the_requirements_ask_for():
    versions = locked()
    lines = [line for line in (ROOT / "requirements" / "gpu.txt").read_text().splitlines() if line and line[0] != "#"]
    for wanted in map(Requirement, lines):
        name = wanted.name.lower().replace("_", "-")
        assert wanted.specifier.contains(versions.get(name, versions.get(wanted.name.lower()))), wanted
    assert "flash-attn" not in versions  # a second step: its sdist needs torch to build
    assert any(name.startswith("nvidia-cublas") for name in versions)  # CUDA's libraries are in it


def test_the_lock_is_what_verl_pins_for_vllm():
    versions = locked()
    wanted = [Requirement(line) for line in requires("verl")]
    pins = {
        item.name.lower(): item.specifier
        for item in wanted
        if item.marker and item.marker.evaluate({"extra": "vllm"}) and item.specifier and not item.extras
    }
    assert {"torch", "vllm", "transformers", "torchvision", "torchaudio"} <= set(pins)
    for name, specifier in pins.items():
        assert specifier.contains(versions[name]), (name, specifier, versions[name])


@pytest.mark.parametrize(
    ("base", "message"),
    [("no-such-python", "which is not here"), ("python3.11-alike", "the locked versions are for Python 3.12")],
)
def test_the_installer_refuses_another_python(tmp_path, base, message):
    alike = tmp_path / "python3.11-alike"
    alike.write_text('#!/bin/sh\n[ "$1" = -c ] && echo False || echo Python 3.11.7\n')
    alike.chmod(0o755)
    environment = os.environ | {
        "BASE_PYTHON": base,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "VENV": str(tmp_path / "v"),
    }
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "setup_gpu.sh")], capture_output=True, text=True, env=environment
    )
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "v").exists()
