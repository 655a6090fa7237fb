"""A metric of a verl run by step, from what verl's loggers wrote: file (JSON lines), console, TensorBoard."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_fgrpo.core.dumps import dump_files


def logged_values(run: Path, metric: str, log: Path | None = None) -> tuple[dict[int, float], str]:
    """Values of `metric` by step; of a step logged twice (a resumed run) the later counts.

    Args:
        run: folder of a run, or of dumps within it.
        metric: name in verl's log.
        log: the file to read; else the first kind that holds the metric, of RUN/*.jsonl and RUN/logs/*.jsonl (full
            precision), console logs (*.log, *.txt) there, and TensorBoard events under RUN.

    Returns:
        Values by step, and where they are from (or, without any, why there are none).

    Raises:
        FileNotFoundError: `log` does not exist.
    """
    if log is not None:
        read = _file_logger if log.suffix == ".jsonl" else _console
        values = dict(read(log, metric))
        return values, str(log) if values else f"{log} holds no {metric}"
    places = [place for root in ([run.parent] if dump_files(run) else [run]) for place in (root, root / "logs")]
    for suffixes, read in (((".jsonl",), _file_logger), ((".log", ".txt"), _console)):
        files = [path for place in places if place.is_dir() for path in place.iterdir() if path.suffix in suffixes]
        values = {}
        used = []
        for path in sorted(files, key=lambda path: path.stat().st_mtime):
            if found := dict(read(path, metric)):
                values |= found
                used.append(str(path))
        if values:
            return values, ", ".join(used)
    if values := _tensorboard(places[0], metric):
        return values, f"the TensorBoard events under {places[0]}"
    return {}, f"no log under {places[0]} holds {metric} (trainer.logger=[console,file] writes one; name it with --log)"


def file_rows(path: Path, word: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """Step and metrics of each line of verl's file logger, {"step": 1, "data": {"critic/score/mean": 0.5, ...}}.

    Lines without `word` and lines that are none of its are passed over, such as one that a kill has cut off; so are
    values that are no numbers.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row: Any = json.loads(line) if word in line else {}
                yield int(row["step"]), dict(row["data"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue


def _file_logger(path: Path, metric: str) -> Iterator[tuple[int, float]]:
    return _numbers((step, data[metric]) for step, data in file_rows(path, metric) if metric in data)


def _numbers(values: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, float]]:
    for step, value in values:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            yield step, float(value)


def _console(path: Path, metric: str) -> Iterator[tuple[int, float]]:
    """verl's console logger: step:1 - critic/score/mean:0.5 - ...; numpy numbers as np.float64(0.5)."""
    pattern = re.compile(rf"\bstep:(\d{{1,18}}) - (?:.* - )?{re.escape(metric)}:(?:np\.float\d+\()?([-+.\w]+)")
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from _numbers((int(found[1]), found[2]) for line in lines if (found := pattern.search(line)))


def _tensorboard(folder: Path, metric: str) -> dict[int, float]:
    """The scalar in any run under `folder`, in single precision; nothing without the package tensorboard."""
    folders = {path.parent for path in folder.rglob("events.out.tfevents.*")}
    if not folders:
        return {}
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        return {}
    values: dict[int, float] = {}
    for place in sorted(folders):
        events = EventAccumulator(str(place))
        events.Reload()
        if metric in events.Tags()["scalars"]:
            values |= {event.step: event.value for event in events.Scalars(metric)}
    return values
