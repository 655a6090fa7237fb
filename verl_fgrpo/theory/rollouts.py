"""Success rates per prompt from rollouts on disk, and how many prompts sit where rare correct solutions are missed.

Two kinds of source: a folder of verl's rollout dumps (`core.dumps`), where a prompt is known by its problem id because
uids are new in every pass over the data; and graded samples, a JSONL(.gz) or Parquet file with `problem_id` (and
`benchmark`, if any) and one of `correct`, `verdict`, `score`, or a folder of verdicts written by verl-fgrpo eval.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.dumps import dump_files, read_groups, read_whole
from verl_fgrpo.core.files import read_log
from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.core.tail_miss import tail_miss_probability
from verl_fgrpo.evaluation.summary import load_run

Row = Mapping[str, Any]
Prompt = tuple[str | None, str]  # data source or benchmark, problem id


@dataclass(frozen=True)
class SuccessCounts:
    """How often each prompt was solved. Arrays of shape [prompts], int64; `prompts` names them in the same order."""

    prompts: tuple[Prompt, ...]
    num_rollouts: NDArray[np.int64]
    num_correct: NDArray[np.int64]
    group_size: int  # the most common number of rollouts drawn together for one prompt

    @property
    def success_rate(self) -> NDArray[np.float64]:
        """num_correct / num_rollouts of every prompt."""
        return self.num_correct / self.num_rollouts

    def only(self, prompts: Iterable[Prompt]) -> "SuccessCounts":
        """The same counts for some of the prompts."""
        wanted = set(prompts)
        keep = np.array([prompt in wanted for prompt in self.prompts], dtype=bool)
        kept = tuple(prompt for prompt in self.prompts if prompt in wanted)
        return SuccessCounts(kept, self.num_rollouts[keep], self.num_correct[keep], self.group_size)


@dataclass(frozen=True)
class DangerReport:
    """Where a set of prompts stands. Shares are fractions of `num_prompts`."""

    num_prompts: int
    group_size: int
    mean_success_rate: float
    share_never_solved: float  # success rate 0: inactive
    share_always_solved: float  # success rate 1: inactive
    share_in_danger: float  # risk above the danger level
    mean_risk: float
    histogram: NDArray[np.int64]  # prompts per tenth of the success rate, [0, 0.1), ..., [0.9, 1]


def read_success_counts(
    source: Path, *, steps: Sequence[int] | None = None, success_threshold: float = 0.5
) -> SuccessCounts:
    """Count rollouts and correct rollouts per prompt in a dump folder or graded file.

    Args:
        source: see the module docstring.
        steps: for rollout dumps, the steps to pool; default all.
        success_threshold: a rollout is correct if its `score` is above (as `algorithm.focal_success_threshold`).

    Raises:
        ValueError: nothing to read, a column missing, a score that is no number, steps that are not there.
        FileNotFoundError: no such path.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: name a folder of rollout dumps, or a graded file")
    present = dump_files(source)
    if steps is not None and not present:
        raise ValueError(f"steps were asked for, but {source} is no folder of verl rollout dumps (<step>.jsonl)")
    if missing := sorted(set(steps or ()) - set(present)):
        raise ValueError(f"{source} has no dump of steps {missing}; it holds {min(present)} to {max(present)}")
    rollouts: Counter[Prompt] = Counter()
    correct: Counter[Prompt] = Counter()
    sizes: Counter[int] = Counter()
    chosen = {step: present[step] for step in steps or present}
    found = read_whole(chosen, lambda path: read_groups(path, success_threshold))
    for groups in found.values():
        for group in groups:
            prompt = (group.data_source, group.problem_id)
            rollouts[prompt] += group.size
            correct[prompt] += group.num_correct
            sizes[group.size] += 1
    if not present:
        for prompt, is_correct in _graded_outcomes(source, success_threshold):
            rollouts[prompt] += 1
            correct[prompt] += is_correct
        sizes.update(rollouts.values())
    if not rollouts:
        raise ValueError(f"{source} holds no rollouts")
    return SuccessCounts(
        prompts=tuple(rollouts),
        num_rollouts=np.array(list(rollouts.values()), dtype=np.int64),
        num_correct=np.array([correct[prompt] for prompt in rollouts], dtype=np.int64),
        group_size=sizes.most_common(1)[0][0],
    )


def risk_of_prompts(success_rate: ArrayLike, rare_share: float, group_size: int) -> NDArray[np.float64]:
    """Tail-miss risk of each prompt if a share of its correct mass is rare: tau = rare_share * success rate.

    The estimated success rate is put in for the true one (Lemma 3.1 of arXiv 2602.06717), so a prompt seen all right or
    all wrong counts as never at risk; with few rollouts a prompt the result is coarse.

    Args:
        success_rate: mu per prompt, any shape.
        rare_share: rho in [0, 1], the share of correct mass one would not like to lose.
        group_size: N >= 1.

    Raises:
        ValueError: rare_share, a success rate or group_size out of range.
    """
    if not 0 <= rare_share <= 1:
        raise ValueError(f"rare_share must lie in [0, 1], got {rare_share!r}: it is the share of the correct mass")
    mu = np.asarray(success_rate, dtype=np.float64)
    return tail_miss_probability(rare_share * mu, mu, group_size)


def danger_report(
    counts: SuccessCounts, *, rare_share: float, group_size: int | None = None, danger: float = 0.5
) -> DangerReport:
    """Distribution of success rates, and the share of prompts whose tail-miss risk is above `danger`.

    Args:
        counts: from `read_success_counts`.
        rare_share: see `risk_of_prompts`.
        group_size: N of the training run; default the one seen in the data.
        danger: risk above which a prompt counts as in danger, in [0, 1). 0.5: more likely than not, a group updates the
            prompt without having seen its rare correct solutions.

    Raises:
        ValueError: no prompt, an argument out of range.
    """
    if not counts.prompts:
        raise ValueError("no prompts to report on")
    if not 0 <= danger < 1:
        raise ValueError(f"danger must be a probability in [0, 1), got {danger!r}")
    size = counts.group_size if group_size is None else group_size
    rate = counts.success_rate
    risk = risk_of_prompts(rate, rare_share, size)
    tenth = np.minimum(counts.num_correct * 10 // counts.num_rollouts, 9)
    return DangerReport(
        num_prompts=len(rate),
        group_size=size,
        mean_success_rate=float(rate.mean()),
        share_never_solved=float((counts.num_correct == 0).mean()),
        share_always_solved=float((counts.num_correct == counts.num_rollouts).mean()),
        share_in_danger=float((risk > danger).mean()),
        mean_risk=float(risk.mean()),
        histogram=np.bincount(tenth, minlength=10),
    )


def danger_zone(rare_share: float, group_size: int, danger: float = 0.5) -> tuple[float, float] | None:
    """The ends, on a grid of 0.001, of the success rates whose tail-miss risk is above `danger`; None without any."""
    grid = np.linspace(0.0, 1.0, 1001)
    inside = grid[risk_of_prompts(grid, rare_share, group_size) > danger]
    return (float(inside[0]), float(inside[-1])) if inside.size else None


def _graded_outcomes(source: Path, success_threshold: float) -> Iterator[tuple[Prompt, bool]]:
    if source.name == "verdicts" and (source.parent / "samples" / "manifest.json").exists():
        of = load_run(source.parent).problems  # refuses verdicts on responses that are gone or have changed
        yield from ((key, bool(one)) for key in of if not of[key].refused for one in of[key].correct)
        return
    for row in _graded_rows(source):
        if "problem_id" not in row:
            raise ValueError(f"{source}: column problem_id is missing; the columns are {sorted(row)}")
        if row.get("correct") is not None:
            correct = _number(row["correct"], "correct", source) > 0.5
        elif row.get("verdict") is not None:
            correct = row["verdict"] == "correct"
        elif row.get("score") is not None:
            correct = _number(row["score"], "score", source) > success_threshold
        else:
            raise ValueError(f"{source}: a row has none of correct, verdict, score; its columns are {sorted(row)}")
        yield (row.get("benchmark"), str(row["problem_id"])), correct


def _graded_rows(source: Path) -> Iterator[Row]:
    if source.is_dir():
        parts = sorted((source / "parts").glob("part-*.jsonl.gz"))
        if not parts:
            raise ValueError(f"{source} holds neither rollout dumps (<step>.jsonl) nor a store of verdicts (parts/)")
        for part in parts:
            yield from read_log(part)
    elif source.name.endswith(".jsonl.gz"):
        yield from read_log(source)
    else:
        yield from iter_rows(source)


def _number(value: Any, name: str, path: Path) -> float:
    try:
        number = float(value) if isinstance(value, (bool, int, float)) else np.nan
    except OverflowError:  # an integer of 400 digits
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(f"{path}: {name} must be a finite number, got {str(value)[:80]!r}")
    return number
