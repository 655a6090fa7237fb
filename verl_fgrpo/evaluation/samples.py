"""The store of samples and of verdicts on them: one row per sample, append-only, compressed, resumable at each row.

    store/
      manifest.json               the settings all samples share; opening with others is refused
      parts/part-00000.jsonl.gz   rows, see `files.LogWriter`; every session writes a part of its own
      parts/part-00000.json       who wrote the part: versions, git commit, time

A sample is identified by (benchmark, problem_id, sample_idx), with sample_idx = 0, 1, ..., n - 1. Topping up means
asking for a larger n later; merging means joining stores made with equal settings, for instance on several machines.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TextIO, TypeVar

from verl_fgrpo.core.files import LogWriter, read_log, write_atomic
from verl_fgrpo.core.provenance import provenance

__all__ = [
    "VERDICTS",
    "RowStore",
    "RowWriter",
    "Sample",
    "SampleStore",
    "SampleStoreError",
    "Score",
    "ScoreStore",
    "Verdict",
    "VerdictStore",
    "key_of",
    "merge_stores",
    "sample_seed",
]

FORMAT = 1


class SampleStoreError(RuntimeError):
    """The store cannot be used as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        benchmark, problem_id: which problem.
        sample_idx: 0..n-1 within the problem.
        seed: seed given to the sampler for this sample; None where the engine takes none per sample.
        response: decoded text.
        num_tokens: generated tokens, the end token included.
        finish_reason: "stop" (ended by itself) or "length" (cut at the token limit).
    """

    benchmark: str
    problem_id: str
    sample_idx: int
    seed: int | None
    response: str
    num_tokens: int
    finish_reason: str


@dataclass(frozen=True)
class Verdict:
    """What grading said about one sample.

    Attributes:
        benchmark, problem_id, sample_idx: which sample.
        verdict: exactly one of `VERDICTS`.
        answer: the extracted answer, for majority votes and for counting distinct answers; None if there is none.
        detail: why it timed out or failed; "" otherwise.
    """

    benchmark: str
    problem_id: str
    sample_idx: int
    verdict: str
    answer: str | None
    detail: str


@dataclass(frozen=True)
class Score:
    """Likelihood of one sample under a model: `nll` in nats, summed over its `num_tokens` response tokens."""

    benchmark: str
    problem_id: str
    sample_idx: int
    nll: float
    num_tokens: int


VERDICTS = ("correct", "wrong", "unparsed", "timeout", "error")
Key = tuple[str, str, int]
RowT = TypeVar("RowT", Sample, Verdict, Score)


def key_of(row: Sample | Verdict | Score) -> Key:
    return (row.benchmark, row.problem_id, row.sample_idx)


def sample_seed(seed: int, benchmark: str, problem_id: str, sample_idx: int) -> int:
    """Seed of one sample, in [0, 2**31): the same whatever was sampled before it, so that resuming changes nothing."""
    text = json.dumps([seed, benchmark, problem_id, sample_idx])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class RowStore(Generic[RowT]):
    """A folder of rows (samples, or verdicts on them) made with the same settings.

    Args:
        path: folder; made if absent.
        settings: everything that defines the rows' distribution (model, weights hash, prompt hash, temperature, ...),
            JSON values only. Required for a new store; for an existing one it must be equal, or None to read.

    Raises:
        SampleStoreError: no store there and no settings given, settings that differ, or a newer format.
    """

    row_type: type[RowT]

    def __init__(self, path: Path | str, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        manifest_path = self.path / "manifest.json"
        kind = self.row_type.__name__.lower()
        if manifest_path.exists():
            self.manifest: dict[str, Any] = json.loads(manifest_path.read_text())
            if (self.manifest.get("format"), self.manifest.get("kind", "sample")) != (FORMAT, kind):
                raise SampleStoreError(
                    f"{manifest_path} has kind {self.manifest.get('kind')!r}, format {self.manifest.get('format')!r};"
                    f" expected {kind!r} of format {FORMAT}"
                )
            if settings is not None:
                _refuse_other_settings(self.path, self.manifest["settings"], _as_json(settings))
        elif settings is None:
            raise SampleStoreError(f"no {kind} store at {self.path}: {manifest_path.name} is missing")
        else:
            self.manifest = {"format": FORMAT, "kind": kind, "settings": _as_json(settings), "created": provenance()}
            write_atomic(manifest_path, json.dumps(self.manifest, indent=2, sort_keys=True) + "\n")
        self.settings: dict[str, Any] = self.manifest["settings"]

    def part_paths(self) -> list[Path]:
        return sorted((self.path / "parts").glob("part-*.jsonl.gz"))

    def read(self) -> Iterator[RowT]:
        """All rows, part by part, in the order written."""
        names = [field.name for field in fields(self.row_type)]
        for part in self.part_paths():
            for row in read_log(part):
                yield self.row_type(**{name: row[name] for name in names})

    def present(self) -> dict[tuple[str, str], set[int]]:
        """{(benchmark, problem_id): sample indices stored}. Raises SampleStoreError on a key stored twice."""
        found: dict[tuple[str, str], set[int]] = defaultdict(set)
        for row in self.read():
            indices = found[row.benchmark, row.problem_id]
            if row.sample_idx in indices:
                raise SampleStoreError(f"{self.path}: {key_of(row)} is stored twice")
            indices.add(row.sample_idx)
        return dict(found)

    def missing(self, problems: Iterable[tuple[str, str]], num_samples: int) -> list[Key]:
        """Keys still to be made for `num_samples` rows of every (benchmark, problem_id), problem by problem."""
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        present = self.present()
        return [
            (benchmark, problem_id, index)
            for benchmark, problem_id in problems
            for index in sorted(set(range(num_samples)) - present.get((benchmark, problem_id), set()))
        ]

    def writer(self, flush_rows: int = 256, flush_seconds: float = 5.0) -> RowWriter[RowT]:
        """Open a new part for writing (use as a context manager). One writer per store at a time."""
        return RowWriter(self, flush_rows, flush_seconds)


class SampleStore(RowStore[Sample]):
    """Samples drawn with the same settings; see `RowStore`."""

    row_type = Sample


class VerdictStore(RowStore[Verdict]):
    """Verdicts on the samples of one store, all graded with the same settings; see `RowStore`."""

    row_type = Verdict


class ScoreStore(RowStore[Score]):
    """Likelihoods of the samples of one store under one model; see `RowStore`."""

    row_type = Score


class RowWriter(Generic[RowT]):
    """Appends rows to a new part of a store; see `RowStore.writer`. Refuses a key that is already stored."""

    def __init__(self, store: RowStore[RowT], flush_rows: int, flush_seconds: float) -> None:
        self._store: RowStore[RowT] = store
        parts = store.path / "parts"
        parts.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(store.path)
        try:
            self._present = store.present()
            taken = [int(path.name.split(".")[0].removeprefix("part-")) for path in store.part_paths()]
            name = f"part-{max(taken, default=-1) + 1:05d}"
            write_atomic(parts / f"{name}.json", json.dumps(provenance(), indent=2, sort_keys=True) + "\n")
            self._log = LogWriter(parts / f"{name}.jsonl.gz", flush_rows, flush_seconds)
        except BaseException:
            self._lock.close()
            raise

    def __contains__(self, key: Key) -> bool:
        benchmark, problem_id, sample_idx = key
        return sample_idx in self._present.get((benchmark, problem_id), ())

    def append(self, row: RowT) -> None:
        key = key_of(row)
        if key in self:
            raise SampleStoreError(f"{self._store.path}: {key} is already stored")
        self._present.setdefault(key[:2], set()).add(row.sample_idx)
        self._log.append(asdict(row))

    def flush(self) -> None:
        """Put everything appended so far safely on disk."""
        self._log.flush()

    def close(self) -> None:
        self._log.close()
        self._lock.close()

    def __enter__(self) -> RowWriter[RowT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def merge_stores(sources: Sequence[Path | str], destination: Path | str) -> int:
    """Copy the samples of several stores with equal settings into one; returns how many were added.

    A sample present in two sources (or already in the destination) is taken once if equal; merging can be repeated.

    Raises:
        SampleStoreError: settings differ, or one key has two different samples.
    """
    stores = [SampleStore(source) for source in sources]
    if not stores:
        raise ValueError("sources is empty: name at least one store")
    for store in stores[1:]:
        _refuse_other_settings(store.path, stores[0].settings, store.settings)
    target = SampleStore(destination, stores[0].settings)
    seen = {key_of(sample): _digest(sample) for sample in target.read()}
    added = 0
    with target.writer() as writer:
        for store in stores:
            for sample in store.read():
                digest = _digest(sample)
                if seen.setdefault(key_of(sample), digest) != digest:
                    raise SampleStoreError(
                        f"sample {key_of(sample)} of {store.path} differs from the one already merged: shards overlap. "
                        "Give each machine sample indices of its own."
                    )
                if key_of(sample) not in writer:
                    writer.append(sample)
                    added += 1
    return added


def _digest(sample: Sample) -> bytes:
    return hashlib.sha256(json.dumps(asdict(sample), sort_keys=True).encode()).digest()


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they will be read back (tuples become lists), so that comparing is comparing like with like."""
    result: dict[str, Any] = json.loads(json.dumps(dict(settings), sort_keys=True))
    return result


def _refuse_other_settings(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    different = sorted(
        key for key in {*stored, *asked} if key not in stored or key not in asked or stored[key] != asked[key]
    )
    if different:
        lines = [f"  {key}: stored {stored.get(key)!r}, now {asked.get(key)!r}" for key in different]
        raise SampleStoreError(
            f"{path} was made with other settings; samples of two distributions must not be mixed. Use another folder "
            "or the stored settings:\n" + "\n".join(lines)
        )


def _lock(path: Path) -> TextIO:
    handle = open(path / ".lock", "w")  # noqa: SIM115 - held open for as long as the writer lives
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise SampleStoreError(
            f"{path} is being written by another process. Wait for it, or sample into another folder and merge."
        ) from None
    return handle
