"""verl's rollout and validation dumps: one STEP.jsonl a step in `trainer.rollout_data_dir` or `validation_data_dir`.

A row is one output of an agent loop: `input`, `output`, `gts` (gold answer, any JSON), `score`, `step`; validation
dumps and the legacy trainer add what the reward function returned (`acc`, ...). The v1 trainers (verl 0.9) add the
batch key uid_session_index as `uid`; a uid is new in every pass over the data. What a reader must know:

- rows that fill the batch up for the workers (key pad<hex>_i_0) belong to no prompt;
- of a session with several outputs the one with the highest index counts, once, as in verl's own metrics;
- without `uid` (before 0.9, legacy trainer) rows of a file with equal prompt and gold answer are one group;
- a run killed while it writes leaves a line without an end.
"""

import hashlib
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from verl_fgrpo.core.rows import CutLineError, Row, read_jsonl, shown

T = TypeVar("T")

_PAD_UID = re.compile(r"pad[0-9a-f]+")
_KEY = re.compile(r"(.+)_([0-9]{1,9})_([0-9]{1,9})", re.DOTALL)
_TRUTH = {"True": 1.0, "False": 0.0}  # the legacy trainer writes numpy values as text


@dataclass(frozen=True)
class DumpRow:
    """One row of a dump."""

    where: str  # file and line
    step: int  # number in the file's name, else the row's own `step`; -1 without either
    input: str  # text as verl decoded it, without special tokens
    output: str  # the same; "" if the file has none
    gts: Any  # gold answer as the data set had it
    score: float  # summed reward; NaN if the reward function gave that
    # what the reward function reported as such; the number itself if it returned a bare number, which verl
    # stores as `acc` before its penalty for long responses
    acc: float | None
    data_source: str | None  # if the reward function put it there
    group: str  # uid of the prompt's group; "" in files without uids
    session: str  # uid_session; `where` without uids
    index: int  # of the output within its session

    @property
    def is_padding(self) -> bool:
        """Whether verl added the row to fill the batch up."""
        return _PAD_UID.fullmatch(self.group) is not None

    @property
    def problem_id(self) -> str:
        """16 hexadecimal digits derived from prompt and gold answer: the same in every step and run."""
        content = json.dumps([self.input, self.gts], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def is_correct(self, threshold: float = 0.5) -> bool:
        """`is_success` of the row.

        Raises:
            ValueError: the score decides and is NaN.
        """
        if self.acc is None and math.isnan(self.score):
            raise ValueError(
                f"{self.where}: score is NaN, which is neither right nor wrong; find out why the "
                "reward function returned it, or delete the line"
            )
        return is_success(self.acc, self.score, threshold)


def is_success(acc: float | None, score: float, threshold: float) -> bool:
    """Whether a rollout is correct: by an `acc` of 0 or 1; else by the bare number stored as `acc`, or by the score."""
    if acc in (0.0, 1.0):
        return acc == 1.0
    return (score if acc is None else acc) > threshold


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt in one step, each session once."""

    step: int
    uid: str  # the problem_id in files without uids
    problem_id: str
    data_source: str | None
    scores: tuple[float, ...]  # of the final outputs, in the order of the file
    num_correct: int  # how many of them are correct

    @property
    def size(self) -> int:
        """Number of rollouts."""
        return len(self.scores)

    @property
    def success_rate(self) -> float:
        """num_correct / size."""
        return self.num_correct / self.size

    @property
    def is_active(self) -> bool:
        """Whether the scores differ, so that group-relative advantages are not all 0."""
        return len(set(self.scores)) > 1


def dump_files(folder: Path) -> dict[int, Path]:
    """The dumps of a folder by step, ascending; empty if it holds none.

    Raises:
        ValueError: two files of one step (1.jsonl, 01.jsonl), or a compressed one, which would be left out.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.jsonl*")):
        name = re.fullmatch(r"([0-9]{1,18})\.jsonl(\.(?:gz|xz|bz2|zst))?", path.name)
        if name and name[2]:
            raise ValueError(f"{path} is compressed, so its step would be left out; unpack it, or move it away")
        if name and (other := found.setdefault(int(name[1]), path)) != path:
            raise ValueError(f"{other} and {path.name} are of the same step; move one of them away")
    return dict(sorted(found.items()))


def find_dumps(run: Path, kind: Literal["rollout", "validation"]) -> dict[int, Path]:
    """The dumps of a run by step: `run` is a folder of dumps, or the run's folder.

    In a run's folder they are sought in `rollouts` or `validation`, as the recipes name them, then where config.yaml or
    Hydra's .hydra/config.yaml has `trainer.rollout_data_dir` or `trainer.validation_data_dir`, then in the one folder
    below it that holds dumps and is (not) called something with "val".

    Raises:
        ValueError: none there, or several; the message says how verl makes them.
    """
    key = f"trainer.{kind}_data_dir"
    name = "rollouts" if kind == "rollout" else "validation"
    places = [run, run / name]
    if configured := run_setting(run, key):
        places.append(Path(str(configured)))
    for place in places:
        if found := dump_files(place):
            return found
    below = sorted(path for path in run.iterdir() if path.is_dir()) if run.is_dir() else []
    others = [path for path in below if ("val" in path.name) == (kind == "validation") and dump_files(path)]
    if len(others) == 1:
        return dump_files(others[0])
    told = f"no {kind} dumps (STEP.jsonl) in {', '.join(map(str, places))}; name their folder"
    if others:
        told = f"several folders in {run} hold dumps ({', '.join(path.name for path in others)}); name one"
    raise ValueError(f"{told}, or train with {key}=RUN/{name}")


def run_setting(run: Path, key: str) -> Any:
    """A setting of the run in this folder, from config.yaml or Hydra's .hydra/config.yaml; None if it is not known."""
    from omegaconf import OmegaConf

    for file in (run / "config.yaml", run / ".hydra" / "config.yaml"):
        if file.is_file():
            try:
                return OmegaConf.select(OmegaConf.load(file), key)
            except Exception as error:  # YAML's, OmegaConf's, or a TypeError for a list
                told = " ".join(str(error).split())
                raise ValueError(f"{file} does not tell {key} ({told}); repair it, or move it away") from error
    return None


def read_rows(path: Path) -> Iterator[DumpRow]:
    """All rows of a file as they stand, padding and every output of a session included; one line at a time in memory.

    A byte-order mark, CRLF and empty lines are tolerated.

    Raises:
        CutLineError: the last line is cut off.
        ValueError: a line that is no row of a dump: file, line, field, value, rule and remedy.
    """
    stem = path.stem.partition(".")[0]
    step = int(stem) if re.fullmatch(r"[0-9]{1,18}", stem) else None
    first: Any = None
    for row in read_jsonl(path):
        first = row.get("step") if first is None else first
        if step is not None and row.get("step", first) != first:
            raise row.error("step", f"{shown(first)}, as above: a dump holds one step; split the file")
        yield _dump_row(row, step)


def final_rows(path: Path) -> Iterator[DumpRow]:
    """The rows that count: without padding, the output of the highest index of each session.

    A later output of a session has a longer prompt (the conversation so far); its `input` is replaced by the prompt of
    the group's first output, so that all sessions of a group are known as one problem. The file is read twice, so that
    its outputs need not be held in memory.

    Raises:
        CutLineError: as `read_rows`, or no row counts.
        ValueError: as `read_rows`, before the first row.
    """
    final: dict[str, tuple[int, int]] = {}
    prompts: dict[str, tuple[int, str]] = {}
    empty = path.stat().st_size < 9 and path.read_bytes().strip(b"\xef\xbb\xbf \r\n") == b"[]"
    for place, row in enumerate(() if empty else read_rows(path)):
        if row.is_padding:
            continue
        if row.index >= final.get(row.session, (-1, 0))[0]:
            final[row.session] = (row.index, place)
        if row.group and row.index < prompts.get(row.group, (math.inf, ""))[0]:
            prompts[row.group] = (row.index, row.input)
    if not final:
        raise CutLineError(f"{path} holds no rollouts: its run was killed before it wrote any; move it away")
    kept = {place for _, place in final.values()}
    for place, row in enumerate(read_rows(path)):
        if place in kept:
            yield replace(row, input=prompts[row.group][1]) if row.index else row


def read_whole(dumps: Mapping[int, Path], read: Callable[[Path], T]) -> dict[int, T]:
    """What `read` makes of each dump by step; one that its run left unfinished is left out, and told on stderr."""
    found, left_out = {}, []
    for step, path in dumps.items():
        try:
            found[step] = read(path)
        except CutLineError as error:
            left_out.append(f"step {step} is left out: {error}")
    if left_out and not found:
        raise ValueError(f"no dump is whole; {left_out[-1]}")
    for told in left_out:
        print(f"note: {told}", file=sys.stderr)
    return found


def read_groups(path: Path, threshold: float | Callable[[DumpRow], float] = 0.5) -> list[Group]:
    """The groups of one dump, in order of first appearance.

    Args:
        path: STEP.jsonl.
        threshold: a score above it is correct where no `acc` decides; one for all, or of a row (its data source, say).

    Raises:
        CutLineError, ValueError: as `read_rows`, or a NaN score that decides.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    correct: defaultdict[str, int] = defaultdict(int)
    first: dict[str, DumpRow] = {}
    for row in final_rows(path):
        uid = row.group or row.problem_id
        first.setdefault(uid, row)
        scores[uid].append(row.score)
        correct[uid] += row.is_correct(threshold(row) if callable(threshold) else threshold)
    return [
        Group(row.step, uid, row.problem_id, row.data_source, tuple(scores[uid]), correct[uid])
        for uid, row in first.items()
    ]


def _dump_row(row: Row, step: int | None) -> DumpRow:
    if "input" not in row or "score" not in row:
        raise ValueError(
            f"{row.where} is no row of a verl dump: its columns are {sorted(row)}, but verl writes input, output, gts "
            "and score; give a folder or file of trainer.rollout_data_dir or trainer.validation_data_dir"
        )
    uid, source = (row.name(column) if row.get(column) not in (None, "") else "" for column in ("uid", "data_source"))
    own_step = row.get("step")
    key = _KEY.fullmatch(uid)
    return DumpRow(
        where=row.where,
        step=step if step is not None else own_step if isinstance(own_step, int) else -1,
        input=row.text("input"),
        output=row.text("output", ""),
        gts=row.get("gts"),
        score=_number(row, "score"),
        acc=None if row.get("acc") is None else _number(row, "acc"),
        data_source=source or None,
        group=key[1] if key else uid,
        session=f"{key[1]}_{key[2]}" if key else row.where,
        index=int(key[3]) if key else 0,
    )


def _number(row: Row, column: str) -> float:
    value = row[column]
    try:
        number = _TRUTH[value] if value in ("True", "False") else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number) or (column == "acc" and math.isnan(number)):
        raise row.error(column, "a number; repair the line or leave it out")
    return number
