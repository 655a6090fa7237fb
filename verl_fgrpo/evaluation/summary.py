"""What is known of one graded run: a few numbers per sample, not the texts (about 25 bytes a sample in memory)."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.evaluation.benchmarks import BENCHMARKS
from verl_fgrpo.evaluation.counts import ProblemCounts, StopRule
from verl_fgrpo.evaluation.graders import DEFAULT_READING, reading_note
from verl_fgrpo.evaluation.grading import Judged
from verl_fgrpo.evaluation.problems import Problem, ProblemKey, load_problems
from verl_fgrpo.evaluation.samples import REFUSED, VERDICTS, Sample, SampleStore, Verdict, VerdictStore

Row = dict[str, Any]
Columns = tuple["array[int]", ...]  # of one problem, a number for each row


@dataclass(frozen=True)
class ProblemSamples:
    """Graded samples of one problem, sorted by sample index; [n] each."""

    indices: NDArray[np.int64]  # sample_idx
    verdicts: NDArray[np.int64]  # position in `VERDICTS`
    answers: NDArray[np.int64]  # a number for each different extracted answer, -1 where there is none
    texts: NDArray[np.int64]  # a hash of the response; empty where only verdicts were read
    tokens: NDArray[np.int64]  # of the response, -1 unknown
    cut: NDArray[np.int64]  # 1 cut at the token limit, 0 ended by itself, -1 unknown

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.verdicts == VERDICTS.index("correct"))

    @property
    def refused(self) -> bool:
        """Whether the server refused the prompt: such a sample holds no response."""
        return bool(np.any(self.verdicts == VERDICTS.index(REFUSED)))

    def first(self, count: int) -> "ProblemSamples":
        """The samples with index below `count`."""
        end = int(np.searchsorted(self.indices, count))
        return ProblemSamples(*(getattr(self, name)[:end] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class RunData:
    """Results of one run."""

    problems: dict[ProblemKey, ProblemSamples]  # samples by (benchmark, problem_id)
    asked: Mapping[ProblemKey, Problem] = field(default_factory=dict)  # as they were sampled and graded
    unsampled: tuple[ProblemKey, ...] = ()  # problems of the run that have no sample at all
    num_samples: int | None = None  # asked for per problem; None if not known (imported samples)
    stop_after_correct: int | None = None  # of a sequential run, in which `num_samples` is the cap
    sampling: Mapping[str, Any] = field(default_factory=dict)  # settings of the store of samples
    grading: Mapping[str, Any] = field(default_factory=dict)  # settings of the store of verdicts
    refusals: Mapping[ProblemKey, str] = field(
        default_factory=dict
    )  # the server's words on a prompt that has no response
    unbound: int = 0  # verdicts of a version before 0.2, which do not say on which response they are
    reading: str = ""  # one line on how answers were read, and how many verdicts depend on it

    @property
    def benchmarks(self) -> list[str]:
        return sorted({benchmark for benchmark, _ in self.problems}, key=_benchmark_order)

    def counted(self, benchmark: str | None = None) -> dict[ProblemKey, ProblemSamples]:
        """The samples that count, by problem in a fixed order; of one benchmark, or of all."""
        keys = sorted(self.problems, key=lambda key: (_benchmark_order(key[0]), key))
        found = {key: self._counted(key) for key in keys if benchmark in (None, key[0])}
        return {key: samples for key, samples in found.items() if samples is not None}

    def counts(self) -> ProblemCounts:
        """Samples and correct samples of the counted problems; any verdict but "correct" is not correct."""
        counted = self.counted()
        if not counted:
            raise ValueError("no problem of the run is sampled to its end: rerun `verl-fgrpo eval sample` to resume")
        return ProblemCounts.of(
            [len(samples) for samples in counted.values()],
            [int(samples.correct.sum()) for samples in counted.values()],
            [problem_id for _, problem_id in counted],
            [benchmark for benchmark, _ in counted],
            self.stop_after_correct,
            self.num_samples if self.stop_after_correct else None,
        )

    def _counted(self, key: ProblemKey) -> ProblemSamples | None:
        """The samples of a problem that count: the first `num_samples`, or those up to the stop, in index order.

        None if the server refused the prompt, or a sequential run is neither at its stop nor at the cap.
        """
        samples, r = self.problems[key], self.stop_after_correct
        if samples.refused:
            return None
        if self.num_samples is None:
            return samples
        samples = samples.first(self.num_samples)
        if r is None:
            return samples if len(samples) else None
        n = int(np.searchsorted(samples.correct.cumsum(), r)) + 1
        if n <= len(samples):
            return samples.first(n) if samples.indices[n - 1] == n - 1 else None
        return samples if len(samples) == self.num_samples else None

    def shortfall(self) -> list[str]:
        """What keeps this from being a finished run, one sentence each; nothing for a finished run."""
        refused = [key for key in sorted(self.problems) if self.problems[key].refused]
        words = next(filter(None, map(self.refusals.get, refused)), "no reason given")[:120]
        why = f"were refused by the server or never answered, the first with {words!r},"
        asked = {key: samples for key, samples in self.problems.items() if not samples.refused}
        told = [
            f"{len(keys)} problems {what} and are not counted ({_named(keys)})"
            for keys, what in ((self.unsampled, "have no samples"), (refused, why))
            if keys
        ]
        if self.unbound:
            told.append(f"{self.unbound} verdicts, of a version before 0.2, do not say on which response they are")
        if self.stop_after_correct is not None:
            if keys := sorted(set(asked) - set(self.counted())):
                told.append(f"{len(keys)} problems are not sampled to their stop and are not counted ({_named(keys)})")
            return told
        sizes = [len(samples) for samples in asked.values()]
        wanted = self.num_samples or max(sizes, default=0)
        if short := [size for size in sizes if size < wanted]:
            told.append(f"{len(short)} problems have fewer than {wanted} samples (the fewest: {min(short)})")
        return told


def collect(
    verdicts: Iterable[Verdict], samples: Iterable[Sample] = (), judged: Judged | None = None, **about: Any
) -> RunData:
    """Gather verdicts by problem; lengths and texts from the samples, as far as given.

    Args:
        judged: tells whether a verdict is on the response, problem and gold answer that are there now; those of
            earlier versions do not say what they are on, and count.
        about: more of `RunData`.

    Raises:
        ValueError: an unknown verdict, a verdict twice, a sample without verdict, a verdict on a sample that is gone
            or has changed.
    """
    graded: dict[ProblemKey, Columns] = {}
    answers: dict[str | None, int] = {None: -1}
    readings: Counter[tuple[str, str]] = Counter()  # (verdict, what the default reading says) where that is kept
    refusals: dict[ProblemKey, str] = {}
    codes = {verdict: code for code, verdict in enumerate(VERDICTS)}
    for row in verdicts:
        if row.verdict not in codes:
            raise ValueError(f"verdict {row.verdict!r} must be one of {VERDICTS}")
        if (found := graded.get((row.benchmark, row.problem_id))) is None:
            found = graded[row.benchmark, row.problem_id] = _columns(4)
        if row.verdict == REFUSED:
            refusals.setdefault((row.benchmark, row.problem_id), row.detail)
        readings[row.verdict, row.detail if row.detail.startswith(DEFAULT_READING) else ""] += 1
        found[0].append(row.sample_idx)
        found[1].append(codes[row.verdict])
        found[2].append(answers.setdefault(row.answer, len(answers)))
        found[3].append(_digest(row.digest))
    drawn: dict[ProblemKey, Columns] = {}
    finish = {"length": 1, "stop": 0}
    for sample in samples:
        if (found := drawn.get((sample.benchmark, sample.problem_id))) is None:
            found = drawn[sample.benchmark, sample.problem_id] = _columns(5)
            graded.setdefault((sample.benchmark, sample.problem_id), _columns(4))
        found[0].append(sample.sample_idx)
        found[1].append(hash(sample.response))
        found[2].append(sample.num_tokens)
        found[3].append(finish.get(sample.finish_reason, -1))
        found[4].append(_digest(judged.digest(sample)) if judged else 0)
    none = _columns(5) if judged else None
    joined = {key: _joined(key, columns, drawn.get(key, none)) for key, columns in graded.items()}
    options = about.get("grading", {}).get("options", {})
    unbound = sum(digests.count(0) for *_, digests in graded.values()) if judged else 0
    return RunData(
        joined, refusals=refusals, unbound=unbound, reading=reading_note(options, readings.elements()), **about
    )


def _joined(key: ProblemKey, graded: Columns, drawn: Columns | None) -> ProblemSamples:
    indices, verdicts, answers, bound = _by_index(graded)
    if drawn is None:
        unknown = np.full(len(indices), -1)
        return ProblemSamples(indices, verdicts, answers, np.empty(0, np.int64), unknown, unknown)
    their_indices, texts, tokens, cut, digests = _by_index(drawn)
    if ungraded := len(np.setdiff1d(their_indices, indices)):
        raise ValueError(f"{ungraded} samples of {'/'.join(key)} are not graded yet: run `verl-fgrpo eval grade` first")
    if foreign := len(np.setdiff1d(indices, their_indices)):
        raise ValueError(
            f"{foreign} verdicts on {'/'.join(key)} belong to samples that are gone: run `verl-fgrpo eval grade "
            "--regrade`"
        )
    if len(np.unique(indices)) != len(indices) or len(indices) != len(their_indices):
        raise ValueError(f"{'/'.join(key)}: a sample or verdict is stored twice")
    if stale := int(np.sum((bound != 0) & (digests != 0) & (bound != digests))):
        raise ValueError(
            f"{stale} verdicts on {'/'.join(key)} are on responses or gold answers that have changed: run `verl-fgrpo "
            "eval grade`, which grades those again"
        )
    return ProblemSamples(indices, verdicts, answers, texts, tokens, cut)


def _columns(count: int) -> Columns:
    return tuple(array("q") for _ in range(count))


def _digest(text: str) -> int:
    """A digest of 16 hexadecimal digits as a signed number; 0 without one."""
    return int(text or "0", 16) - (2**63 if text else 0)


def _by_index(columns: Columns) -> list[NDArray[np.int64]]:
    arrays = [np.array(column, dtype=np.int64) for column in columns]
    order = np.argsort(arrays[0], kind="stable")
    return [values[order] for values in arrays]


def load_run(run: Path | str) -> RunData:
    """Read a run folder.

    Raises:
        ValueError: not a run folder, samples without verdict, verdicts without sample.
    """
    run = Path(run)
    samples, verdicts = SampleStore(run / "samples"), VerdictStore(run / "verdicts")
    problems = load_problems([run / "problems.jsonl"])
    settings = {"sampling": samples.settings, "grading": verdicts.settings}
    rule = StopRule.load(run)
    judged = Judged(problems, verdicts.settings)
    data = collect(verdicts.read(), samples.read(), judged, **settings, **asdict(rule) if rule else {})
    unsampled = tuple(problem.key for problem in problems if problem.key not in data.problems)
    if not data.problems:
        raise ValueError(f"{run} has no samples: run `verl-fgrpo eval sample` first")
    return replace(data, unsampled=unsampled, asked={problem.key: problem for problem in problems})


def verdict_rows(runs: Mapping[str, RunData]) -> list[Row]:
    """How many samples got each verdict: one row per run and benchmark, all verdicts always shown."""
    rows = []
    for run, data in runs.items():
        for benchmark in data.benchmarks:
            codes = [samples.verdicts for (name, _), samples in data.problems.items() if name == benchmark]
            total = np.bincount(np.concatenate(codes), minlength=len(VERDICTS))
            rows.append({"run": run, "benchmark": benchmark, **dict(zip(VERDICTS, map(int, total), strict=True))})
    return rows


def _named(keys: Sequence[ProblemKey]) -> str:
    return ", ".join("/".join(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")


def _benchmark_order(name: str) -> tuple[int, str]:
    """The paper's order, unknown benchmarks after it by name."""
    return (list(BENCHMARKS).index(name) if name in BENCHMARKS else len(BENCHMARKS), name)
