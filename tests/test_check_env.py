"""What scripts/check_env.py and setup_env.sh say of a checkout, wherever that stands."""

import importlib.metadata
import json
import os
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
missing = runpy.run_path(str(ROOT / "scripts" / "check_env.py"))["missing"]


class Installed:
    """The distribution of an editable installation from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_text(self, name: str) -> str:
        assert name == "direct_url.json"
        return json.dumps({"dir_info": {"editable": True}, "url": self.folder.as_uri()})


@pytest.mark.parametrize("name", ["plain", "my checkout", "a=b,c (1) [x] 'q' ü", "50%20", "name#1?"])
def test_a_checkout_is_its_own_wherever_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, requirements = tmp_path / name, tmp_path / "requirements.txt"
    checkout.mkdir()
    requirements.write_text("")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(checkout))
    assert missing(checkout, requirements) == []
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(tmp_path / f"{name}2"))
    assert missing(checkout, requirements) == [f"verl_fgrpo is installed from elsewhere, not from {checkout}"]


@pytest.mark.parametrize(
    "name", ["my checkout", "it's", 'a"b', "a(1)", "a[x]", "a{b}", "a$b", "a`b", "a\\b", "a&b", "a;b", "a*b"]
)
def test_an_interpreter_whose_path_ray_would_split_is_refused_before_the_installation(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name / "scripts").mkdir(parents=True)
    script = tmp_path / name / "scripts" / "setup_env.sh"
    script.write_text((ROOT / "scripts" / "setup_env.sh").read_text())
    command = ["bash", "-euo", "pipefail", "-c", 'source "$1"; setup_env', "bash", str(script)]
    told = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert told.returncode == 1
    assert told.stderr.startswith("error: Ray cannot start workers with ") and "set PYTHON to one" in told.stderr
    assert not (tmp_path / name / ".venv").exists()
