"""Which proofs a policy keeps: distinct proofs per theorem, and who became likelier in training, by rank.

Uplift by rank: the start model's samples of a theorem are ranked by its own log-probability; of the correct ones at
each rank, the share whose log-probability is higher under the trained model. A share that falls with the rank is rank
bias: likely proofs are reinforced, rare ones forgotten (arXiv 2506.02355, section 4).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.dumps import dump_files, final_rows, read_whole
from verl_fgrpo.evaluation.samples import VerdictStore
from verl_fgrpo.tasks.common.experiment import VERDICT_FOLDER
from verl_fgrpo.tasks.proofs.rewards import proof_of
from verl_fgrpo.tasks.proofs.search import canonical
from verl_fgrpo.tasks.proofs.theorems import Theorem

RANKED_SAMPLES = 32  # of a theorem, as in the paper


@dataclass(frozen=True)
class Found:
    """The canonical form of each correct sample of a run, by problem id and sample index."""

    correct: dict[str, dict[int, str]]

    def distinct(self, problem_id: str) -> set[str]:
        """Different proofs, bound names aside."""
        return set(self.correct.get(problem_id, {}).values())


def read_found(run_folder: Path) -> Found:
    """The correct samples of a graded run."""
    correct: dict[str, dict[int, str]] = defaultdict(dict)
    for row in VerdictStore(run_folder / VERDICT_FOLDER).read():
        if row.verdict == "correct" and row.answer is not None:
            correct[row.problem_id][row.sample_idx] = row.answer
    return Found(dict(correct))


def distinct_counts(found: Found, problem_ids: Sequence[str]) -> NDArray[np.float64]:
    """Distinct correct proofs of each theorem."""
    return np.array([len(found.distinct(problem_id)) for problem_id in problem_ids], dtype=float)


def enumerated_share(found: Found, problem_ids: Sequence[str], theorems: Sequence[Theorem]) -> NDArray[np.float64]:
    """Of each theorem's enumerated proofs, the share that was found."""
    return np.array(
        [
            len(found.distinct(problem_id) & set(theorem.proofs)) / len(theorem.proofs)
            for problem_id, theorem in zip(problem_ids, theorems, strict=True)
        ]
    )


def rank_correct(log_probs: Sequence[float], correct: Sequence[int]) -> dict[int, int]:
    """Rank (1 is the most likely of all samples) of each correct sample; ties in the order of the samples."""
    order = sorted(range(len(log_probs)), key=lambda index: (-log_probs[index], index))
    ranks = {index: rank for rank, index in enumerate(order, start=1)}
    return {index: ranks[index] for index in correct}


def uplift_by_rank(rises: Sequence[tuple[int, bool]], bins: Sequence[tuple[int, int]]) -> list[tuple[int, float]]:
    """(number of correct samples, share that became likelier) of each bin of ranks; NaN for an empty bin."""
    rows = []
    for low, high in bins:
        inside = [rose for rank, rose in rises if low <= rank <= high]
        rows.append((len(inside), float(np.mean(inside)) if inside else float("nan")))
    return rows


def unique_proofs_per_step(dump_folder: Path) -> dict[int, int]:
    """Distinct (theorem, proof) pairs among the correct rollouts of each training step."""

    def unique(path: Path) -> int:
        correct = (row for row in final_rows(path) if row.is_correct())
        return len({(str(row.gts), canonical(proof_of(row.output))) for row in correct})

    return read_whole(dump_files(dump_folder), unique)


def moving_average(values: Sequence[float], weight: float = 0.05) -> list[float]:
    """Exponential moving average that begins with the first value; `weight` is that of the newest."""
    averages: list[float] = []
    for value in values:
        averages.append(value if not averages else (1 - weight) * averages[-1] + weight * value)
    return averages


def pick_examples(
    start: Mapping[tuple[str, str], float], trained: Mapping[tuple[str, str], float], count: int = 6
) -> list[tuple[str, str]]:
    """(problem id, proof) pairs that training moved most, down and up in turn, each theorem once."""
    change = {key: trained[key] - start[key] for key in start}
    falling, rising = sorted(change, key=lambda key: change[key]), sorted(change, key=lambda key: -change[key])
    chosen: list[tuple[str, str]] = []
    for pair in zip(falling, rising, strict=True):
        for key in pair:
            if key[0] not in {problem_id for problem_id, _ in chosen} and len(chosen) < count:
                chosen.append(key)
    return chosen
