"""The maze study: every finished (arm, seed) is one JSON file of counts, and the report is made from those files alone.

RESULTS/runs/seed<S>-<arm>.json   settings, correct samples of every held-out maze at every checkpoint, training curves
RESULTS/report.md, *.csv, *.png   made from them; nothing here needs the checkpoints any more
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.dumps import dump_files, read_groups
from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.evaluation.significance import bootstrap_over_problems
from verl_fgrpo.tasks.common.records import load_records, save_record

__all__ = ["StudyRun", "difference", "load_runs", "save_run", "training_curves"]


@dataclass(frozen=True)
class StudyRun:
    """One trained arm.

    Attributes:
        arm: its name in the recipe, e.g. "gamma0.5".
        seed: of mazes, start model and training.
        settings: what it was trained with.
        num_samples: samples of each held-out maze at each checkpoint.
        mazes: fingerprint of the held-out mazes; arms of a seed share it.
        correct: step -> correct samples of each maze; step 0 is the start model.
        training: column -> value at each training step (`step`, `update_scale`, ...), from the rollout dumps.
        made: versions, commit and time.
    """

    arm: str
    seed: int
    settings: Mapping[str, str]
    num_samples: int
    mazes: str
    correct: Mapping[int, Sequence[int]]
    training: Mapping[str, Sequence[Any]]
    made: Mapping[str, Any]

    @property
    def last_step(self) -> int:
        """Step of the newest checkpoint."""
        return max(self.correct)

    def scores(self, k: int, step: int | None = None) -> NDArray[np.float64]:
        """pass@k of every held-out maze after `step` steps (default: the last)."""
        correct = self.correct[self.last_step if step is None else step]
        return np.asarray(pass_at_k(np.full(len(correct), self.num_samples), np.asarray(correct), k))


def save_run(
    results: Path,
    arm: str,
    seed: int,
    settings: Mapping[str, str],
    num_samples: int,
    mazes: str,
    correct: Mapping[int, Sequence[int]],
    training: Mapping[str, Sequence[Any]],
) -> Path:
    """Write a run's file, see `StudyRun`; a recorded one is never replaced.

    Raises:
        ValueError: the arm and seed are recorded already.
    """
    record = {
        "settings": settings,
        "num_samples": num_samples,
        "mazes": mazes,
        "correct": correct,
        "training": training,
    }
    return save_record(results, seed, arm, record)


def training_curves(rollouts: Path, gamma: float, normalize: bool = False) -> dict[str, list[Any]]:
    """What the weight did at each step, recomputed from verl's rollout dumps.

    Args:
        rollouts: `trainer.rollout_data_dir` of the run.
        gamma: focal exponent of the run.
        normalize: whether weights were divided by their mean over the active groups (`algorithm.focal_normalize`).

    Returns:
        step; mean_success_rate; active_share (0 < X < N); weight_mean over groups; update_scale, sum g |A| / sum |A|
        over rollouts, A as GRPO gives it; histogram, number of groups with X = 0, 1, ..., N correct rollouts.

    Raises:
        ValueError: the folder holds no dump.
    """
    files = dump_files(rollouts)
    if not files:
        raise ValueError(f"{rollouts} holds no STEP.jsonl; train with trainer.rollout_data_dir={rollouts}")
    curves: dict[str, list[Any]] = {
        name: [] for name in ("step", "mean_success_rate", "active_share", "weight_mean", "update_scale", "histogram")
    }
    for step, path in files.items():
        groups = read_groups(path)
        mu = np.array([group.success_rate for group in groups])
        weight = (1.0 - mu) ** gamma
        active = (mu > 0) & (mu < 1)
        if normalize and active.any():
            weight /= weight[active].mean()
        size = 2.0 * np.sqrt(mu * (1.0 - mu))  # mean |A| of a group of 0/1 rewards, up to a constant of N
        counts = np.bincount([group.num_correct for group in groups], minlength=max(group.size for group in groups) + 1)
        curves["step"].append(step)
        curves["mean_success_rate"].append(round(float(mu.mean()), 4))
        curves["active_share"].append(round(float(np.mean(active)), 4))
        curves["weight_mean"].append(round(float(weight.mean()), 4))
        curves["update_scale"].append(round(float((weight * size).sum() / size.sum()), 4) if size.any() else None)
        curves["histogram"].append(counts.tolist())
    return curves


def load_runs(results: Path) -> list[StudyRun]:
    """Every recorded run, by seed and arm.

    Raises:
        ValueError: none, or arms of one seed that were tested on different mazes.
    """
    runs = [
        StudyRun(**row | {"correct": {int(step): counts for step, counts in row["correct"].items()}})
        for row in load_records(results)
    ]
    for seed in {run.seed for run in runs}:
        if len({(run.mazes, run.num_samples) for run in runs if run.seed == seed}) > 1:
            raise ValueError(f"runs of seed {seed} were tested on different mazes or samples; their pairs mean nothing")
    return runs


def difference(
    runs: Sequence[StudyRun], arm: str, reference: str, k: int, step: int
) -> tuple[float, float, float, list[float]] | None:
    """pass@k of `arm` minus `reference` after `step` steps, paired over mazes and seeds.

    Args:
        runs: all recorded runs.
        arm, reference: names of arms.
        k: of pass@k.
        step: of the checkpoints compared.

    Returns:
        Mean, 95% interval (bootstrap over the mazes of each seed: other mazes, the same trainings) and the difference
        of every seed; None if no seed has both arms at that step.
    """
    by_key = {(run.seed, run.arm): run for run in runs if step in run.correct}
    seeds = sorted(seed for seed, name in by_key if name == arm and (seed, reference) in by_key)
    if not seeds:
        return None
    base = [by_key[seed, reference].scores(k, step) for seed in seeds]
    other = [by_key[seed, arm].scores(k, step) for seed in seeds]
    strata = [str(seed) for seed, values in zip(seeds, base, strict=True) for _ in values]
    result = bootstrap_over_problems(np.concatenate(base), np.concatenate(other), groups=strata)
    per_seed = [float((o - b).mean()) for o, b in zip(other, base, strict=True)]
    return result.estimate, *result.interval, per_seed
