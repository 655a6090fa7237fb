"""A study: every finished (arm, seed) is one JSON file of counts, and its report is made from those files alone.

RESULTS/runs/seed<S>-<arm>.json   settings, correct samples of each held-out problem at each checkpoint, curves
RESULTS/report.md, *.csv, *.png   made from them; nothing here needs the checkpoints any more
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.dumps import dump_files, read_groups, read_whole
from verl_fgrpo.core.figures import COLOURS, GREY
from verl_fgrpo.core.numbers import check_gamma
from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.core.tables import markdown_table
from verl_fgrpo.tasks.common.records import load_records, save_record, trained_with
from verl_fgrpo.tasks.common.seeds import OverSeeds, over_seeds


@dataclass(frozen=True)
class StudyRun:
    """One trained arm.

    Attributes:
        arm: its name in the recipe, e.g. "gamma0.5".
        seed: of problems, start model and training.
        settings: what it was trained with.
        num_samples: samples of each held-out problem at each checkpoint.
        problems: fingerprint of the held-out problems; arms of a seed share it.
        correct: step -> correct samples of each problem; step 0 is the start model.
        training: column -> value at each training step (`step`, `update_scale`, ...), from the rollout dumps.
        made: versions, commit and time.
    """

    arm: str
    seed: int
    settings: Mapping[str, str]
    num_samples: int
    problems: str
    correct: Mapping[int, Sequence[int]]
    training: Mapping[str, Sequence[Any]]
    made: Mapping[str, Any]

    def __post_init__(self) -> None:
        if absent := {"focal_gamma", "group_size"} - set(self.settings):
            raise ValueError(f"settings without {', '.join(sorted(absent))}")
        check_gamma(self.settings["focal_gamma"], "focal_gamma")
        if not self.settings["group_size"].isdecimal():
            raise ValueError(f"group_size is {self.settings['group_size']!r}, but it must be a whole number")
        if len({len(counts) for counts in self.correct.values()}) != 1 or not all(
            0 <= count <= self.num_samples for counts in self.correct.values() for count in counts
        ):
            raise ValueError(f"correct must have for each step as many counts, of 0 to {self.num_samples} samples")
        if 0 not in self.correct:
            raise ValueError("correct must have step 0, the start model")
        columns = [self.training.get(name, ()) for name in ("step", "update_scale", "active_share")]
        numbers = all(isinstance(value, int | float | None) for column in columns for value in column)
        if not columns[0] or len({*map(len, columns)}) != 1 or not numbers:
            raise ValueError("training must have step, update_scale and active_share, a number or null for each step")

    @property
    def last_step(self) -> int:
        """Step of the newest checkpoint."""
        return max(self.correct)

    def scores(self, k: int, step: int | None = None) -> NDArray[np.float64]:
        """pass@k of every held-out problem after `step` steps (default: the last)."""
        correct = self.correct[self.last_step if step is None else step]
        return np.asarray(pass_at_k(np.full(len(correct), self.num_samples), np.asarray(correct), k))


def record_run(
    results: Path, seed: int, run: Path, num_samples: int, problems: str, correct: Mapping[int, Sequence[int]]
) -> Path:
    """Write the file of a finished run, see `StudyRun`, with its settings and what its rollout dumps tell.

    Raises:
        ValueError: the arm and seed are recorded already, or the run folder lacks settings or dumps.
    """
    settings = trained_with(run, "focal_gamma")
    normalize = "focal_normalize=True" in settings.pop("overrides", "") + settings.pop("extra", "")
    record = {
        "settings": settings,
        "num_samples": num_samples,
        "problems": problems,
        "correct": correct,
        "training": training_curves(run / "rollouts", float(settings["focal_gamma"]), normalize),
    }
    return save_record(results, seed, run.name, record)


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
    for step, groups in read_whole(files, read_groups).items():
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
        ValueError: none, or arms of one seed that were tested on different problems.
    """
    runs = load_records(results, StudyRun)
    for seed in {run.seed for run in runs}:
        if len({(run.problems, run.num_samples) for run in runs if run.seed == seed}) > 1:
            raise ValueError(f"runs of seed {seed} were tested on different problems; their pairs mean nothing")
    return runs


def difference(runs: Sequence[StudyRun], arm: str, reference: str, k: int, step: int) -> OverSeeds | None:
    """pass@k of `arm` minus `reference` after `step` steps, paired over problems and seeds.

    Args:
        runs: all recorded runs.
        arm, reference: names of arms.
        k: of pass@k.
        step: of the checkpoints compared.

    Returns:
        None if no seed has both arms at that step.
    """
    by_key = {(run.seed, run.arm): run for run in runs if step in run.correct}
    seeds = sorted(seed for seed, name in by_key if name == arm and (seed, reference) in by_key)
    if not seeds:
        return None
    base = [by_key[seed, reference].scores(k, step) for seed in seeds]
    other = [by_key[seed, arm].scores(k, step) for seed in seeds]
    return over_seeds(other, base)


def arm_rows(runs: Sequence[StudyRun], arm: str, reference: str, step: int, ks: Sequence[int]) -> list[dict[str, Any]]:
    """A row per k: pass@k of the arm over all its seeds, and its paired difference to the reference."""
    own = [run for run in runs if run.arm == arm and step in run.correct]
    rows = []
    for k in ks if own else ():
        start = np.concatenate([run.scores(k, 0) for run in own])
        after = over_seeds([run.scores(k, step) for run in own])
        row: dict[str, Any] = {"arm": arm, "k": k, "seeds": len(own), "start": float(start.mean())}
        row |= {"value": after.value, "low": after.low, "high": after.high}
        found = None if arm == reference else difference(runs, arm, reference, k, step)
        for name, number in zip(("difference", "d_low", "d_high"), found[:3] if found else (None,) * 3, strict=True):
            row[name] = number
        row["d_seeds"] = " ".join(f"{100 * one:+.1f}" for one in found.by_seed) if found else ""
        rows.append(row)
    return rows


def results_table(rows: Sequence[dict[str, Any]], names: Mapping[str, str], reference: str, ks: Sequence[int]) -> str:
    """Rows of `arm_rows` as Markdown, in percent: a line an arm, start, after and difference for each of the `ks`."""
    header = ["arm", "seeds"]
    for k in ks:
        header += [f"pass@{k}: start", "after", f"minus {names.get(reference, reference)}", "by seed"]
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells: list[object] = []
        for k in ks:
            row = next(row for row in rows if row["arm"] == arm and row["k"] == k)
            cells += [f"{100 * row['start']:.1f}"]
            cells += [f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"]
            if row["difference"] is None:
                cells += ["", ""]
            else:
                middle, low, high = (100 * row[name] for name in ("difference", "d_low", "d_high"))
                cells += [f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]", row["d_seeds"]]
        lines.append([names.get(arm, arm), next(row["seeds"] for row in rows if row["arm"] == arm), *cells])
    return markdown_table(header, lines)


class Change(NamedTuple):
    """Success rates of the held-out problems of some runs before and after training, (P,) each."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @classmethod
    def of(cls, runs: Sequence[StudyRun], step: int) -> "Change":
        """From the start model to step `step`."""
        return cls(*(np.concatenate([run.scores(1, at) for run in runs]) for at in (0, step)))

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Solved by some sample before and by none after."""
        return np.asarray((self.before > 0) & (self.after == 0))

    @property
    def gained(self) -> NDArray[np.bool_]:
        """The other way round."""
        return np.asarray((self.before == 0) & (self.after > 0))


def before_and_after(axis: Any, runs: Sequence[StudyRun], step: int, name: str, problem: str) -> None:
    """Draw the success rate of each held-out problem before and after training; on the ground those lost.

    Args:
        axis: of matplotlib.
        runs: of one arm.
        step: after training.
        name, problem: what to call the arm and a held-out problem.
    """
    change = Change.of(runs, step)
    lost = int(change.lost.sum())
    axis.scatter(100 * change.before, 100 * change.after, s=8, alpha=0.4, color=COLOURS[0], linewidths=0)
    axis.scatter(100 * change.before[change.lost], np.zeros(lost), s=12, color=COLOURS[1], label="lost")
    axis.plot([0, 100], [0, 100], color=GREY, linewidth=1)
    axis.set_title(f"{name}: {lost} of {len(change.before)} {problem}s lost, {change.gained.sum()} gained")
    axis.set_xlabel("success rate of the start model (%)")
