"""A prepared folder: data files and start model made once with one setting; after an interruption, made to the end.

settings.json   what was asked for, written first
manifest.json   lengths and versions, written last: the folder is complete
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_json
from verl_fgrpo.core.provenance import provenance


def prepare_folder(
    out: Path, settings: Mapping[str, Any], make: Callable[[], dict[str, Any]], say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs `make`, which makes what is missing, unless `out` is complete; returns the manifest.

    Args:
        out: the folder.
        settings: what decides its contents (JSON values).
        make: returns what the manifest holds besides settings and versions.
        say: told what happens.

    Raises:
        ValueError: `out` was begun with other settings.
    """
    wanted = json.loads(json.dumps(settings))
    settings_file, manifest_file = out / "settings.json", out / "manifest.json"
    if settings_file.exists() and (differing := _differences(json.loads(settings_file.read_text()), wanted)):
        raise ValueError(
            f"{out} was made with {differing}: one folder holds one setting; choose another --out, the old "
            "settings, or delete the folder"
        )
    if manifest_file.exists():
        say(f"already there: {out}")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(settings_file, wanted)
        write_json(manifest_file, {"settings": wanted, **make(), **provenance()})
        say(f"done: {out}")
    return json.loads(manifest_file.read_text())  # type: ignore[no-any-return]


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes verl's data rows as Parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from verl_fgrpo.core.files import new_file

    with new_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of `write_rows`, in order."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    """Settings that differ, as `name = found (asked: wanted)`."""
    parts = []
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            parts.append(_differences(a, b, f"{prefix}{key}."))
        elif a != b:
            parts.append(f"{prefix}{key} = {a} (asked: {b})")
    return ", ".join(part for part in parts if part)
