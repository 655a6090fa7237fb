"""From verdicts and samples to the numbers of one run: counts, verdicts, majority, lengths, diversity."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.passk import pass_at_k, pass_hat_k, powers_of_two
from verl_fgrpo.evaluation.benchmarks import BENCHMARKS
from verl_fgrpo.evaluation.report import ProblemCounts
from verl_fgrpo.evaluation.samples import VERDICTS, Sample, SampleStore, Verdict, VerdictStore

__all__ = ["RunData", "benchmark_rows", "block_rows", "load_run", "majority_at_k", "verdict_rows"]

Row = dict[str, Any]


@dataclass
class ProblemResult:
    """What is kept of one problem's samples: a few counters, not the texts."""

    verdicts: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, bool]] = field(default_factory=Counter)
    no_answer: int = 0
    tokens: int = 0
    lengths_known: int = 0
    truncated: int = 0

    @property
    def num_samples(self) -> int:
        return sum(self.verdicts.values())


@dataclass
class RunData:
    """Results of one run by (benchmark, problem_id)."""

    problems: dict[tuple[str, str], ProblemResult]

    @property
    def benchmarks(self) -> list[str]:
        return sorted({benchmark for benchmark, _ in self.problems}, key=_benchmark_order)

    def counts(self) -> ProblemCounts:
        """Samples and correct samples per problem, in a fixed order; any verdict but "correct" is not correct."""
        keys = sorted(self.problems, key=lambda key: (_benchmark_order(key[0]), key))
        return ProblemCounts.of(
            [self.problems[key].num_samples for key in keys],
            [self.problems[key].verdicts["correct"] for key in keys],
            [problem_id for _, problem_id in keys],
            [benchmark for benchmark, _ in keys],
        )


def collect(verdicts: Iterable[Verdict], samples: Iterable[Sample] = ()) -> RunData:
    """Tally verdicts per problem; lengths and truncation from the samples, as far as given."""
    problems: dict[tuple[str, str], ProblemResult] = defaultdict(ProblemResult)
    for verdict in verdicts:
        if verdict.verdict not in VERDICTS:
            raise ValueError(f"verdict {verdict.verdict!r} must be one of {VERDICTS}")
        result = problems[verdict.benchmark, verdict.problem_id]
        result.verdicts[verdict.verdict] += 1
        if verdict.answer is None:
            result.no_answer += 1
        else:
            result.answers[verdict.answer, verdict.verdict == "correct"] += 1
    for sample in samples:
        found = problems.get((sample.benchmark, sample.problem_id))
        if found is not None and sample.num_tokens >= 0:
            found.tokens += sample.num_tokens
            found.lengths_known += 1
            found.truncated += sample.finish_reason == "length"
    return RunData(dict(problems))


def load_run(verdicts: Path | str, samples: Path | str | None = None) -> RunData:
    """Read a run; ValueError if some samples have no verdict yet."""
    verdict_store = VerdictStore(verdicts)
    if samples is None:
        return collect(verdict_store.read())
    sample_store = SampleStore(samples)
    ungraded = sum(map(len, sample_store.present().values())) - sum(map(len, verdict_store.present().values()))
    if ungraded > 0:
        raise ValueError(f"{ungraded} samples of {samples} are not graded yet: run `grade` first")
    return collect(verdict_store.read(), sample_store.read())


def majority_at_k(
    result: ProblemResult, ks: Sequence[int], rng: np.random.Generator, draws: int = 200
) -> NDArray[np.float64]:
    """Probability that the most frequent answer among k samples drawn without replacement is correct, for each k.

    Source: arXiv 2203.11171. All correct answers are one candidate, whatever their spelling; wrong answers are told
    apart by their extracted text, so two spellings of a wrong answer split its votes. Samples without an answer do not
    vote. A tie of the correct answer with t - 1 others counts 1/t. Monte Carlo over `draws`; exact for k = n.
    """
    wrong = [count for (_, correct), count in result.answers.items() if not correct]
    right = sum(count for (_, correct), count in result.answers.items() if correct)
    votes = np.array([right, *wrong, result.no_answer], dtype=np.int64)
    values = []
    for k in ks:
        drawn = rng.multivariate_hypergeometric(votes, k, size=1 if k == votes.sum() else draws)[:, :-1]
        top = drawn.max(axis=1)
        wins = (drawn[:, 0] == top) & (top > 0)
        values.append(float(np.mean(wins / np.maximum(1, (drawn == top[:, None]).sum(axis=1)))))
    return np.array(values)


def verdict_rows(runs: Mapping[str, RunData]) -> list[Row]:
    """How many samples got each verdict: one row per run and benchmark, all five always shown."""
    rows = []
    for run, data in runs.items():
        for benchmark in data.benchmarks:
            total: Counter[str] = Counter()
            for (name, _), result in data.problems.items():
                if name == benchmark:
                    total.update(result.verdicts)
            rows.append({"run": run, "benchmark": benchmark, **{verdict: total[verdict] for verdict in VERDICTS}})
    return rows


def benchmark_rows(runs: Mapping[str, RunData], seed: int = 0) -> list[Row]:
    """Everything but pass@k, per run and benchmark: means over problems.

    Columns: problems, samples (smallest n), k (the largest power of two <= n), pass^k and majority@k at that k,
    mean_tokens and truncated (share of samples cut at the limit; None without samples), unsolved (share of problems
    with no correct sample), distinct_correct (mean number of different correct answer texts over solved problems:
    spellings for math, paths for mazes).
    """
    rows = []
    for run, data in runs.items():
        for benchmark in data.benchmarks:
            results = [result for (name, _), result in sorted(data.problems.items()) if name == benchmark]
            n = np.array([result.num_samples for result in results])
            c = np.array([result.verdicts["correct"] for result in results])
            k = powers_of_two(int(n.min()))[-1]
            rng = np.random.default_rng(seed)
            known = sum(result.lengths_known for result in results)
            distinct = [sum(correct for _, correct in result.answers) for result in results]
            solved = [number for number, correct in zip(distinct, c, strict=True) if correct > 0]
            rows.append(
                {
                    "run": run,
                    "benchmark": benchmark,
                    "problems": len(results),
                    "samples": int(n.min()),
                    "k": k,
                    "pass@1": float(pass_at_k(n, c, 1).mean()),
                    "pass@k": float(pass_at_k(n, c, k).mean()),
                    "pass^k": float(pass_hat_k(n, c, k).mean()),
                    "majority@k": float(np.mean([majority_at_k(result, [k], rng)[0] for result in results])),
                    "mean_tokens": sum(result.tokens for result in results) / known if known else None,
                    "truncated": sum(result.truncated for result in results) / known if known else None,
                    "unsolved": float(np.mean(c == 0)),
                    "distinct_correct": float(np.mean(solved)) if solved else None,
                }
            )
    return rows


def block_rows(pass_rows: Sequence[Row]) -> list[Row]:
    """The paper's averages: plain means over the benchmarks of a block ("math", "ood"; arXiv 2602.06717, Table 1).

    A block's row says which of its benchmarks it averages; a block of one benchmark is left out.
    """
    rows = []
    for block in ("math", "ood"):
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in pass_rows:
            if row["benchmark"] in BENCHMARKS and BENCHMARKS[row["benchmark"]].block == block:
                groups[row["run"], row["k"]].append(row)
        largest = max(map(len, groups.values()), default=0)
        for (run, k), members in groups.items():
            if len(members) == largest > 1:
                rows.append(
                    {
                        "run": run,
                        "benchmark": f"avg {block} of {', '.join(member['benchmark'] for member in members)}",
                        "k": k,
                        "value": float(np.mean([member["value"] for member in members])),
                        "problems": sum(member["problems"] for member in members),
                        "samples": min(member["samples"] for member in members),
                    }
                )
    return rows


def _benchmark_order(name: str) -> tuple[int, str]:
    """The paper's order, unknown benchmarks after it by name."""
    return (list(BENCHMARKS).index(name) if name in BENCHMARKS else len(BENCHMARKS), name)
