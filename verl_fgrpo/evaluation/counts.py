"""Counts of one run: samples and correct samples of every problem, and by which rule they were drawn."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.files import read_json, typed, write_json
from verl_fgrpo.core.passk import (
    as_counts,
    pass_at_k,
    pass_at_k_curve,
    sequential_pass_at_k,
    sequential_pass_at_k_curve,
)
from verl_fgrpo.evaluation.samples import MAX_INDEX


@dataclass(frozen=True)
class StopRule:
    """How many samples of a problem are drawn: until `stop_after_correct` correct ones, at most `num_samples`.

    With `stop_after_correct` None always `num_samples`. RUN/plan.json keeps it: what is counted depends on it.
    """

    num_samples: int
    stop_after_correct: int | None = None

    def __post_init__(self) -> None:
        r = self.stop_after_correct
        if not 1 <= self.num_samples <= MAX_INDEX or (r is not None and not 1 <= r <= self.num_samples):
            raise ValueError(
                f"num_samples={self.num_samples} and stop_after_correct={r}: both must be at least 1, the first at "
                f"most {MAX_INDEX}, and the second not above the first"
            )

    @classmethod
    def load(cls, run: Path) -> "StopRule | None":
        """The rule of a run; None where nothing says so (samples made elsewhere)."""
        path = run / "plan.json"
        return typed(read_json(path), cls, path) if path.exists() else None

    def save(self, run: Path) -> None:
        """Keep the rule; one without a stop keeps the larger number of samples."""
        before = self.load(run)
        if before is not None and before.stop_after_correct is None and self.stop_after_correct is None:
            write_json(run / "plan.json", asdict(max(before, self, key=lambda rule: rule.num_samples)))
        else:
            write_json(run / "plan.json", asdict(self))


@dataclass(frozen=True)
class ProblemCounts:
    """For each of P problems, n samples of which c are correct.

    Attributes:
        problem_ids: [P] unique within a benchmark.
        num_samples: [P] n.
        num_correct: [P] c.
        benchmarks: [P] benchmark of each problem.
        stop_after_correct: None where n was fixed in advance; else every problem was sampled until so many correct
            samples or until `max_samples`, and n and c count up to the stop.
        max_samples: that cap.
    """

    problem_ids: tuple[str, ...]
    num_samples: NDArray[np.int64]
    num_correct: NDArray[np.int64]
    benchmarks: tuple[str, ...]
    stop_after_correct: int | None = None
    max_samples: int | None = None

    @classmethod
    def of(
        cls,
        num_samples: ArrayLike,
        num_correct: ArrayLike,
        problem_ids: Sequence[str] | None = None,
        benchmark: str | Sequence[str] = "all",
        stop_after_correct: int | None = None,
        max_samples: int | None = None,
    ) -> "ProblemCounts":
        """Build from arrays; a scalar `num_samples` and one `benchmark` name are repeated, ids default to 0, 1, ...

        Raises:
            ValueError: different lengths, c > n, no problems, a problem listed twice, counts that the stop rule cannot
                leave behind.
        """
        correct = as_counts(num_correct, "num_correct")
        if correct.ndim != 1 or correct.size == 0:
            raise ValueError(
                f"num_correct must be a non-empty vector, one count per problem; got shape {correct.shape}"
            )
        n = np.broadcast_to(as_counts(num_samples, "num_samples"), correct.shape)
        size = len(correct)
        ids = tuple(str(index) for index in range(size)) if problem_ids is None else tuple(map(str, problem_ids))
        names = (benchmark,) * size if isinstance(benchmark, str) else tuple(benchmark)
        if len(ids) != size or len(names) != size:
            raise ValueError(f"{size} counts, {len(ids)} problem_ids and {len(names)} benchmarks must be equally many")
        if len(set(zip(names, ids, strict=True))) != size:
            raise ValueError("problem_ids must be unique within a benchmark")
        if (stop_after_correct is None) != (max_samples is None):
            raise ValueError(f"{stop_after_correct=} and {max_samples=} belong together: give both or neither")
        counts = cls(ids, n.copy(), correct, names, stop_after_correct, max_samples)
        counts.pass_at_k(1)  # the range checks
        return counts

    def pass_at_k(self, k: int) -> NDArray[np.float64]:
        """[P] unbiased pass@k of every problem, by the estimator that belongs to how it was sampled."""
        if self.stop_after_correct is None or self.max_samples is None:
            return pass_at_k(self.num_samples, self.num_correct, k)
        return sequential_pass_at_k(self.num_samples, self.num_correct, self.stop_after_correct, self.max_samples, k)

    def pass_at_k_curve(self, max_k: int) -> NDArray[np.float64]:
        """[P, max_k] `pass_at_k` at k = 1, ..., max_k."""
        if self.stop_after_correct is None or self.max_samples is None:
            return pass_at_k_curve(self.num_samples, self.num_correct, max_k)
        return sequential_pass_at_k_curve(
            self.num_samples, self.num_correct, self.stop_after_correct, self.max_samples, max_k
        )

    @property
    def largest_k(self) -> int:
        """The largest k at which every problem has an unbiased pass@k."""
        return int(np.min(self.num_samples)) if self.max_samples is None else self.max_samples

    def at(self, positions: Sequence[int] | NDArray[np.integer]) -> "ProblemCounts":
        """The problems at these positions, in this order."""
        return replace(
            self,
            problem_ids=tuple(self.problem_ids[index] for index in positions),
            num_samples=self.num_samples[positions],
            num_correct=self.num_correct[positions],
            benchmarks=tuple(self.benchmarks[index] for index in positions),
        )

    def of_benchmark(self, benchmark: str) -> "ProblemCounts":
        return self.at([index for index, name in enumerate(self.benchmarks) if name == benchmark])

    @property
    def benchmark_names(self) -> list[str]:
        return list(dict.fromkeys(self.benchmarks))
