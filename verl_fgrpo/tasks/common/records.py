"""Finished runs as files that are committed: RESULTS/runs/seed<S>-<arm>.json, written once and never replaced."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from verl_fgrpo.core.files import read_json, typed, write_atomic
from verl_fgrpo.core.numbers import check_gamma
from verl_fgrpo.core.provenance import provenance

T = TypeVar("T")


def record_path(results: Path, seed: int, arm: str) -> Path:
    """The file of a run, whether it exists or not."""
    return results / "runs" / f"seed{seed}-{arm.replace(' ', '_')}.json"


def left(results: Path, seed: int, arms: Sequence[str]) -> list[str]:
    """The arms of a seed that are not recorded yet.

    Raises:
        ValueError: `results` is a file.
    """
    if any(folder.exists() and not folder.is_dir() for folder in (results, results / "runs")):
        raise ValueError(f"{results} is no folder with runs/, where records are kept; name another")
    return [arm for arm in arms if not record_path(results, seed, arm).exists()]


def save_record(results: Path, seed: int, arm: str, record: Mapping[str, Any]) -> Path:
    """Write a run's file with `seed`, `arm` and `made` (versions, commit, time).

    Recorded already with the same content, it is left alone: a command that was killed can be repeated.

    Raises:
        ValueError: the arm and seed are recorded already, with another content.
    """
    path = record_path(results, seed, arm)
    row = {"arm": arm, "seed": seed, **record, "made": provenance()}
    text = json.dumps(row, separators=(",", ":")) + "\n"
    if not path.exists():
        write_atomic(path, text)
    elif {**json.loads(text), "made": None} != {**read_json(path), "made": None}:
        raise ValueError(f"{path} is recorded already and a finished run is never replaced; move the file away first")
    return path


def load_records(results: Path, kind: type[T]) -> list[T]:
    """Every recorded run as a `kind`, by the name of its file.

    Raises:
        ValueError: there is none, or one is not a `kind`.
    """
    rows = []
    for path in sorted((results / "runs").glob("seed*-*.json")):
        content = read_json(path)
        if "mazes" in content:  # the name in records of the maze study's first version
            content["problems"] = content.pop("mazes")
        rows.append(typed(content, kind, path))
    if not rows:
        raise ValueError(f"{results / 'runs'} holds no recorded run; train and record one with the task's recipe first")
    return rows


def trained_with(run: Path, *needed: str) -> dict[str, str]:
    """The settings that a run folder was claimed with.

    Raises:
        ValueError: no settings, none of a name that is needed, or a gamma that is none.
    """
    settings = typed(read_json(run / "settings.json"), dict[str, str], run / "settings.json")
    if absent := sorted(set(needed) - set(settings)):
        raise ValueError(f"{run / 'settings.json'} has no {absent[0]}; name the folder of a run of the recipe")
    if "focal_gamma" in settings:
        check_gamma(settings["focal_gamma"], f"{run / 'settings.json'}: focal_gamma")
    return settings
