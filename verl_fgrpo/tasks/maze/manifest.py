"""Files and folders written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to; on success it is synced and renamed to `path`, on an exception `path` stays as it was."""
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
