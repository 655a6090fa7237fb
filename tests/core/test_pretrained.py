"""Model folders that are damaged or hostile: told in one line, and no code of theirs runs, whatever stdin says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_math import write_model

from verl_fgrpo.core.pretrained import load_pretrained, render_chat


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")


def with_code(folder: Path) -> None:
    config = folder / "config.json"
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    own = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))


@pytest.mark.parametrize("harm", [cut, pickled, with_code])
def test_a_damaged_or_hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Any) -> None:
    folder = tmp_path / "model"
    write_model(folder)
    harm(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    with pytest.raises(ValueError, match=f"{folder} cannot be loaded .*; restore it"):
        load_pretrained("AutoModelForCausalLM", folder)
    assert not (folder / "ran").exists()


def test_a_template_that_refuses_is_told() -> None:
    import jinja2

    def refuse(*_: Any, **__: Any) -> str:
        raise jinja2.TemplateError("System role not supported")

    with pytest.raises(ValueError, match="chat template of m fails .*System role not supported"):
        render_chat(SimpleNamespace(apply_chat_template=refuse, name_or_path="m"), [])
