"""A prepared folder: data files and start model made once with one setting; after an interruption, made to the end.

settings.json   what was asked for, written first
manifest.json   lengths and versions, written last: the folder is complete
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import claim, lock, read_json, write_json
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
        ValueError: `out` was begun with other settings, or another process makes it.
    """
    manifest_file = out / "manifest.json"
    claimed = claim(out, settings, remedy="choose another --out, the old settings, or delete the folder")
    with lock(out / ".lock"):
        if manifest_file.exists():
            say(f"already there: {out}")
        else:
            write_json(manifest_file, {"settings": claimed, **make(), **provenance()})
            say(f"done: {out}")
    return read_json(manifest_file)
