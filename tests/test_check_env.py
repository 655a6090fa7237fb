"""What scripts/check_env.py says of a checkout, wherever that stands."""

import importlib.metadata
import json
import runpy
from pathlib import Path

import pytest

missing = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "check_env.py"))["missing"]


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
