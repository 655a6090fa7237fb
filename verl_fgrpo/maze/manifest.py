"""Whole-or-nothing files and folders, and the record of what made them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to; on success it is flushed to disk and renamed to `path`, on an exception `path` stays as it was."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill; on success it becomes `path`, which must not exist yet."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for file in partial.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    os.replace(partial, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` to `path`, whole or not at all."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Versions of Python and the packages that matter, and the git commit of this source (None outside a checkout)."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("verl-fgrpo", "torch", "transformers", "tokenizers", "numpy", "pyarrow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {"versions": versions, "git": _git()}


def _git() -> dict[str, Any] | None:
    def run(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not run("ls-files", Path(__file__).name):  # an installed package inside somebody else's repository
            return None
        return {"commit": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
