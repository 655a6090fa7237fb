"""pass@k of every validation of a verl run, while it trains: table, CSV and TensorBoard scalars.

    verl-fgrpo val-passk RUN            what is there now
    verl-fgrpo val-passk RUN --watch    and every new validation as it comes

RUN/validation/STEP.jsonl    read: what verl dumps at a validation (`trainer.validation_data_dir`)
RUN/config.yaml              read: which file was validated on (written by `verl_fgrpo.runs.preflight`)
RUN/passk.csv                written: step, benchmark, k, pass_at_k, low, high, problems, samples
RUN/tensorboard/passk/       written: scalars val-passk/BENCHMARK/pass@K, next to verl's own

verl's own `best@k` draws k of the n samples with replacement, which is below pass@k in the mean; `mean@n` is pass@1.
Here it is the unbiased estimator (`evaluation.passk.pass_at_k`; arXiv 2107.03374, eq. 1).

The scalars have a folder, and so a run name in TensorBoard, of their own, because TensorBoard follows only the newest
event file of a folder: beside verl's file in the same folder it would stop reading verl's.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.evaluation.problems import gold_answers, problem_id_of
from verl_fgrpo.evaluation.report import ProblemCounts, pass_at_k_rows

__all__ = ["AVERAGE", "Benchmarks", "Incomplete", "describe", "main", "pass_at_k_of", "read_dump", "update"]

#: Name of the rows that hold the unweighted mean over benchmarks (arXiv 2602.06717, L.3 compares checkpoints by it).
AVERAGE = "average"
COLUMNS = ("step", "benchmark", "k", "pass_at_k", "low", "high", "problems", "samples")
SUCCESS_THRESHOLD = 0.5  # for dumps without `acc`: a score above it is correct
SETTLED = 10.0  # seconds without a change after which a file counts as written

Row = dict[str, str]


class Incomplete(ValueError):
    """A dump that is still being written, or was cut off when the run was killed."""


def _plain(text: str) -> str:
    """Without white space, which decoding a tokenised prompt can change."""
    return "".join(text.split())


class Benchmarks:
    """Tells the benchmark of a dumped sample: verl dumps prompt and gold answer, but no `data_source`.

    A sample belongs to the row of the validation file that has its gold answers and whose messages all occur in the
    prompt, apart from white space; to the longest of them if several do.

    Args:
        rows: of the validation file, with prompt, reward_model and data_source.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._names: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
        self._by_answer: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        self.size = 0
        for row in rows:
            answers = gold_answers(row["reward_model"]["ground_truth"])
            texts = tuple(_plain(str(message["content"])) for message in row["prompt"])
            if (answers, texts) not in self._names:
                self._by_answer[answers].append(texts)
            self._names[answers, texts].append(str(row["data_source"]))
            self.size += 1

    @classmethod
    def of_files(cls, files: Sequence[Path | str]) -> Benchmarks:
        """Read parquet files in verl's schema."""
        import pyarrow.parquet as pq

        columns = ["prompt", "reward_model", "data_source"]
        return cls(row for file in files for row in pq.read_table(file, columns=columns).to_pylist())

    def of(self, prompt: str, answers: tuple[str, ...]) -> list[str]:
        """Benchmarks of the rows with this prompt and answer: one, or several if the problem is in several.

        Raises:
            ValueError: none; the run was validated on another file.
        """
        text = _plain(prompt)
        found = [texts for texts in self._by_answer.get(answers, []) if all(part in text for part in texts)]
        if not found:
            raise ValueError(
                f"no row of the validation file has the gold answer {answers} and the prompt {prompt[-200:]!r}; give "
                "the file that the run was validated on with --val-file"
            )
        return self._names[answers, max(found, key=lambda texts: sum(map(len, texts)))]


@dataclass
class _Group:
    """The samples of one row of the validation file."""

    prompt: str
    answers: tuple[str, ...]
    benchmark: str | None
    sessions: dict[str, tuple[int, bool]]


def read_dump(path: Path, benchmarks: Benchmarks | None = None) -> ProblemCounts:
    """Samples and correct samples per problem of one dump.

    verl gives each row of the validation file a fresh uid at each validation, and dumps uid_session_output as `uid`:
    a group is one problem. Of a session with several outputs the last one counts, as in verl's own metrics. The ids of
    the problems are derived from prompt and gold answer, so they stay the same from step to step; dumps without `uid`
    (verl before 0.9) are grouped by them. A sample is correct if its `acc`, or without one its score, is above 0.5.

    Args:
        path: STEP.jsonl.
        benchmarks: of the validation file. Without it the benchmark is the sample's own `data_source` if the reward
            function put one there, else "all".

    Raises:
        Incomplete: the file lacks problems, ends within a line, or has unequal numbers of samples (or, without
            `benchmarks`, may lack problems) and changed within the last ten seconds.
        ValueError: a line that is no sample, or a sample of no benchmark.
    """
    changed = path.stat().st_mtime
    groups: dict[str, _Group] = {}
    count = 0
    has_uid = False
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.endswith(b"\n"):
                raise Incomplete(f"{path} ends within line {number}")
            row = _parsed(path, number, line)
            count += 1
            has_uid = row.get("uid") is not None
            answers = gold_answers(row["gts"])
            uid, session, output = _sample_key(row, number, answers)
            group = groups.setdefault(uid, _Group(str(row["input"]), answers, _text(row.get("data_source")), {}))
            if output >= group.sessions.get(session, (-1, False))[0]:
                group.sessions[session] = (output, _correct(row))
    settled = time.time() - changed >= SETTLED
    counts = _counted(groups.values(), benchmarks, has_uid)
    if benchmarks is not None and len(counts.problem_ids) != benchmarks.size:
        raise Incomplete(f"{path} holds {len(counts.problem_ids)} of {benchmarks.size} problems ({count} samples)")
    if not settled and (benchmarks is None or len({len(group.sessions) for group in groups.values()}) > 1):
        raise Incomplete(f"{path} changed within the last {SETTLED:.0f} s ({count} samples so far)")
    return counts


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number} is not JSON ({error})") from error
    if not isinstance(row, dict) or any(row.get(name) is None for name in ("input", "gts", "score")):
        raise ValueError(f"{path}, line {number} is not a sample that verl dumps: input, gts and score must be there")
    return row


def _sample_key(row: Mapping[str, Any], number: int, answers: tuple[str, ...]) -> tuple[str, str, int]:
    """(problem within this dump, session, output) of a row."""
    if row.get("uid") is None:
        return problem_id_of(_plain(str(row["input"])), answers), str(number), 0
    parts = str(row["uid"]).rsplit("_", 2)
    if len(parts) == 3 and parts[2].isdigit():
        return parts[0], parts[1], int(parts[2])
    return str(row["uid"]), str(number), 0


def _correct(row: Mapping[str, Any]) -> bool:
    value = row.get("acc")
    return float(row["score"] if value is None else value) > SUCCESS_THRESHOLD


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _counted(groups: Iterable[_Group], benchmarks: Benchmarks | None, has_uid: bool) -> ProblemCounts:
    names, ids, samples, correct = [], [], [], []
    seen: Counter[str] = Counter()
    for group in groups:
        identity = problem_id_of(_plain(group.prompt), group.answers)
        homes = [group.benchmark or "all"] if benchmarks is None else benchmarks.of(group.prompt, group.answers)
        # A problem of several benchmarks: with uids one group for each of them, in any order; without, one for all.
        for name in [homes[seen[identity] % len(homes)]] if has_uid else homes:
            turn, seen[identity] = seen[identity], seen[identity] + 1
            names.append(name)
            ids.append(identity if turn == 0 else f"{identity}-{turn}")
            samples.append(len(group.sessions))
            correct.append(sum(right for _, right in group.sessions.values()))
    if not ids:
        raise Incomplete("the file is empty")
    return ProblemCounts.of(samples, correct, ids, names)


def pass_at_k_of(step: int, counts: ProblemCounts) -> list[Row]:
    """pass@k of one validation for k = 1, 2, 4, ... up to the smallest number of samples of the benchmark, as text.

    `low` and `high` are a 95% interval over problems (bootstrap). With several benchmarks there is also `AVERAGE`, for
    each k that all of them have.
    """
    found = pass_at_k_rows({str(step): counts})
    rows = [
        {
            "step": str(step),
            "benchmark": str(row["benchmark"]),
            "k": str(row["k"]),
            "pass_at_k": f"{row['value']:.6f}",
            "low": f"{row['low']:.6f}",
            "high": f"{row['high']:.6f}",
            "problems": str(row["problems"]),
            "samples": str(row["samples"]),
        }
        for row in found
    ]
    names = counts.benchmark_names
    for k in sorted({row["k"] for row in found}):
        values = [row["value"] for row in found if row["k"] == k]
        if len(names) > 1 and len(values) == len(names):
            rows.append(
                {
                    "step": str(step),
                    "benchmark": AVERAGE,
                    "k": str(k),
                    "pass_at_k": f"{sum(values) / len(values):.6f}",
                    "low": "",
                    "high": "",
                    "problems": str(len(counts.problem_ids)),
                    "samples": str(int(counts.num_samples.min())),
                }
            )
    return rows


def update(
    run: Path,
    benchmarks: Benchmarks | None = None,
    dumps: Path | None = None,
    known: dict[Path, tuple[int, int]] | None = None,
    tensorboard: bool = True,
) -> tuple[list[Row], list[str]]:
    """Read the dumps, bring RUN/passk.csv and the scalars up to date.

    Rows of steps whose dump is gone stay. Nothing is written if nothing changed.

    Args:
        run: folder of the run.
        benchmarks: of the validation file.
        dumps: folder of the dumps; default RUN/validation.
        known: size and time of the dumps read before, which are not read again; brought up to date.
        tensorboard: also write scalars, if the package tensorboard is there.

    Returns:
        All rows of the CSV by step, and a note for each dump that was left out.
    """
    file = run / "passk.csv"
    rows = {_key(row): row for row in _read_rows(file)}
    before = dict(rows)
    known = {} if known is None else known
    notes = []
    folder = dumps or run / "validation"
    for path in sorted((path for path in folder.glob("*.jsonl") if path.stem.isdigit()), key=lambda p: int(p.stem)):
        status = path.stat()
        if known.get(path) == (status.st_size, status.st_mtime_ns):
            continue
        try:
            counts = read_dump(path, benchmarks)
        except ValueError as reason:
            notes.append(f"step {path.stem} is left out: {reason}")
            continue
        known[path] = (status.st_size, status.st_mtime_ns)
        if (short := int(counts.num_samples.min())) < (full := int(counts.num_samples.max())):
            fewer = int((counts.num_samples < full).sum())
            notes.append(
                f"step {path.stem}: {fewer} of {len(counts.problem_ids)} problems have fewer than {full} samples, the "
                f"fewest {short}, and k goes no further"
            )
        rows = {key: row for key, row in rows.items() if row["step"] != path.stem}
        rows |= {_key(row): row for row in pass_at_k_of(int(path.stem), counts)}
    rows = dict(sorted(rows.items(), key=lambda item: int(item[1]["step"])))
    if tensorboard:
        _write_scalars(run, rows, before)  # before the CSV: a kill in between repeats points instead of losing them
    if rows != before:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
        write_atomic(file, buffer.getvalue())
    return list(rows.values()), notes


def _key(row: Row) -> tuple[str, str, str]:
    return row["step"], row["benchmark"], row["k"]


def _read_rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    if any(set(row) != set(COLUMNS) for row in rows):
        raise ValueError(f"{file} has other columns than {', '.join(COLUMNS)}; move it away, it is made again")
    return rows


def _write_scalars(run: Path, rows: Mapping[Any, Row], before: Mapping[Any, Row]) -> None:
    """Append the values that are new or changed; all of them if there are no scalars yet."""
    folder = Path(os.environ.get("TENSORBOARD_DIR") or run / "tensorboard") / "passk"
    started = any(folder.glob("events.out.*"))
    new = [row for key, row in rows.items() if not started or before.get(key) != row]
    if not new:
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("note: the package tensorboard is missing, so pass@k goes to passk.csv alone", file=sys.stderr)
        return
    with SummaryWriter(str(folder)) as writer:
        for row in new:
            tag = f"val-passk/{row['benchmark']}/pass@{row['k']}"
            writer.add_scalar(tag, float(row["pass_at_k"]), int(row["step"]))


def describe(rows: Sequence[Row]) -> str:
    """Table for people: a line per step, a column per benchmark, pass@1 and pass@largest k in percent."""
    if not rows:
        return "no validation yet\n"
    names = sorted({row["benchmark"] for row in rows}, key=lambda name: (name == AVERAGE, name))
    by_place: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        by_place[row["step"], row["benchmark"]][int(row["k"])] = float(row["pass_at_k"])
    largest = max(int(row["k"]) for row in rows)
    lines = [["step", *names]]
    for step in dict.fromkeys(row["step"] for row in rows):
        cells = []
        for name in names:
            values = by_place.get((step, name), {})
            shown = [f"{100 * values[k]:.1f}" if k in values else "-" for k in dict.fromkeys((1, largest))]
            cells.append(" / ".join(shown))
        lines.append([step, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    title = "pass@1" if largest == 1 else f"pass@1 / pass@{largest}"
    text = [f"{title} in percent, unbiased; further k in passk.csv"]
    text += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(text) + "\n"


def _settings(run: Path, files: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """Validation files and folder of the dumps, from RUN/config.yaml where they are not given."""
    config_file = run / "config.yaml"
    if not config_file.exists():
        return list(files), None
    from omegaconf import OmegaConf

    config = OmegaConf.load(config_file)
    dumps = OmegaConf.select(config, "trainer.validation_data_dir")
    if not files:
        value = OmegaConf.select(config, "data.val_files") or []
        files = [Path(str(file)).expanduser() for file in ([value] if isinstance(value, str) else value)]
    moved = run / "validation"  # a run folder that was copied elsewhere
    return list(files), None if dumps is None or moved.is_dir() else Path(dumps)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Show, and with --watch follow, the pass@k of a run; 1 if there are dumps and none could be used."""
    parser = command_parser("val-passk", __doc__)
    parser.add_argument("run", type=Path, help="folder of the run (OUT of the recipe)")
    parser.add_argument(
        "--val-file", type=Path, nargs="+", default=[], help="parquet validated on; default: RUN/config.yaml"
    )
    parser.add_argument("--watch", action="store_true", help="go on until interrupted, or until --pid ends")
    parser.add_argument("--pid", type=int, help="with --watch: the process that trains")
    parser.add_argument("--interval", type=float, default=10.0, help="with --watch: seconds between looks")
    parser.add_argument("--no-tensorboard", action="store_true", help="write no scalars")
    given = parser.parse_args(arguments)
    if not given.run.is_dir():
        print(f"error: {given.run} is not a folder; give OUT of the recipe", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that a file being written is finished or removed
    try:
        return _follow(given)
    except KeyboardInterrupt:
        return 0


def _follow(given: argparse.Namespace) -> int:
    files, dumps = _settings(given.run, given.val_file)
    if files and (absent := [str(file) for file in files if not file.is_file()]):
        raise ValueError(f"the validation file {absent[0]} is gone; give it with --val-file")
    benchmarks = Benchmarks.of_files(files) if files else None
    if benchmarks is None:
        print(
            "note: no RUN/config.yaml and no --val-file, so the benchmarks cannot be told apart: one row 'all'",
            file=sys.stderr,
        )
    known: dict[Path, tuple[int, int]] = {}
    shown = ""
    while True:
        last = not given.watch or (given.pid is not None and not _alive(given.pid))
        rows, notes = update(given.run, benchmarks, dumps, known, tensorboard=not given.no_tensorboard)
        text = describe(rows)
        if text != shown or last:
            for note in notes:
                print(f"note: {note}", file=sys.stderr)
        if text != shown:
            print(text, end="", flush=True)
            shown = text
        if last:
            return 1 if notes and not rows else 0
        time.sleep(given.interval)
