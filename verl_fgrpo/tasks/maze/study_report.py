"""The maze study's report: tables and figures of the recorded runs, see `study`."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.figures import COLOURS, GREY, figure_style, new_figure, save_figure
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.passk import powers_of_two
from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.core.tail_miss import RARE_SHARE, tail_miss_probability
from verl_fgrpo.tasks.common.study import Change, StudyRun, arm_rows, before_and_after, difference, results_table

REFERENCE = "grpo"
LARGE_K = 64  # pre-stated endpoints: pass@1 and pass@64 at the last step
NAMES = {
    "grpo": "GRPO",
    "gamma0.5": "F-GRPO, gamma 0.5",
    "gamma1": "F-GRPO, gamma 1",
    "grpo_low_lr": "GRPO, learning rate x 0.5",
    "gamma1_normalized": "F-GRPO, gamma 1, normalised",
}
#: what is compared at every checkpoint; the updates of the last two pairs are about as large
PAIRS = (
    ("gamma0.5", "grpo"),
    ("gamma1", "grpo"),
    ("grpo_low_lr", "grpo"),
    ("gamma1", "grpo_low_lr"),
    ("gamma1_normalized", "grpo"),
)


def write_study_report(runs: Sequence[StudyRun], results: Path) -> str:
    """Write report.md, results.{md,csv,json} and the figures; returns the Markdown.

    Args:
        runs: of `study.load_runs`.
        results: folder to write to.

    Raises:
        ValueError: no run of part "long".
    """
    long = [run for run in runs if not _is_size(run)]
    if not long:
        raise ValueError("no recorded run of part long (GRPO and F-GRPO at N = 8); train it first")
    step = max(run.last_step for run in long)
    while sum(step in run.correct for run in long) < 2 and step > 0:
        step = max(s for run in long for s in run.correct if s < step)
    rows = [row for arm in _arms(long) for row in arm_rows(long, arm, REFERENCE, step, powers_of_two(LARGE_K))]
    table = results_table(rows, NAMES, REFERENCE, (1, LARGE_K))
    write_table(rows, results / "results", table, reference=REFERENCE, step=step)
    by_arm = {(run.seed, run.arm): run for run in long if step in run.correct}
    pairs = [
        (run, by_arm[seed, "gamma1"])
        for (seed, arm), run in by_arm.items()
        if arm == "grpo" and (seed, "gamma1") in by_arm
    ]
    if pairs:
        save_figure(seed_figure(pairs, step), results / "seeds.png")
    save_figure(training_figure(long), results / "training.png")
    save_figure(difference_figure(rows, step), results / "differences.png")
    save_figure(maze_figure(long, step), results / "mazes.png")
    save_figure(weight_figure(long), results / "weights.png")
    seeds = sorted({run.seed for run in long})
    text = [
        "# Maze study: what the focal weight does as training goes on\n",
        f"Seeds {', '.join(map(str, seeds))}; step {step}. Each has mazes, start model and training of its own; the "
        "arms of a seed share mazes, start model, learning rate (but for the low one) and number of rollouts.\n",
        "Endpoints fixed before the runs: pass@1 and pass@64 on 256 held-out mazes (n = 128, unbiased) at the last "
        "step, as paired differences to GRPO. Intervals: 95%, bootstrap over the mazes of each seed, that is, other "
        "mazes and the same trainings; the values of the seeds stand beside them.\n",
        table,
        _pair_table(long),
        "\n![each seed before and after training](seeds.png)\n" if pairs else "",
        "![pass@1 and pass@64 during training](training.png)\n",
        "![differences to GRPO for every k](differences.png)\n",
        "![each held-out maze before and after training](mazes.png)\n",
        "![what the weight did during training](weights.png)\n",
    ]
    if len(runs) > len(long):
        save_figure(size_figure(runs), results / "group_size.png")
        text += [_size_table(runs), "\n![group size](group_size.png)\n"]
    report = "\n".join(text)
    write_atomic(results / "report.md", report)
    return report


def _is_size(run: StudyRun) -> bool:
    return run.arm.startswith("n") and run.arm[1:2].isdigit()


def _arms(runs: Sequence[StudyRun]) -> list[str]:
    known = {run.arm for run in runs}
    return [arm for arm in NAMES if arm in known] + sorted(known - set(NAMES))


def _name(arm: str) -> str:
    return NAMES.get(arm, arm)


def _pair_table(runs: Sequence[StudyRun]) -> str:
    """pass@1, pass@4 and pass@64 of an arm minus another one at every checkpoint, over the seeds that have both."""
    rows = []
    for arm, other in PAIRS:
        for step in sorted({step for run in runs for step in run.correct if step > 0}):
            if difference(runs, arm, other, 1, step) is not None:
                cells = [_difference_cell(runs, arm, other, k, step) for k in (1, 4, LARGE_K)]
                rows.append([f"{_name(arm)} minus {_name(other)}", step, *cells])
    if not rows:
        return ""
    text = (
        "\n## Is it more than a lower learning rate?\n\nDifferences at every checkpoint; in brackets [95% interval] "
        "and (each seed). The learning rate x 0.5 is as much lower as gamma 1 makes the gradient smaller.\n\n"
    )
    return text + markdown_table(["arms", "step", "pass@1", "pass@4", f"pass@{LARGE_K}"], rows)


def _difference_cell(runs: Sequence[StudyRun], arm: str, other: str, k: int, step: int) -> str:
    found = difference(runs, arm, other, k, step)
    if found is None:
        return ""
    middle, low, high = (100 * value for value in found[:3])
    by_seed = " ".join(f"{100 * value:+.1f}" for value in found.by_seed)
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}] ({by_seed})"


def _label(runs: Sequence[StudyRun], arm: str) -> str:
    """Name of an arm, with its seeds where others have more: then their means are not to be compared."""
    seeds = sorted({run.seed for run in runs if run.arm == arm})
    every = seeds == sorted({run.seed for run in runs})
    return _name(arm) + ("" if every else f" (seed {', '.join(map(str, seeds))} only)")


@figure_style()
def seed_figure(pairs: Sequence[tuple[StudyRun, StudyRun]], step: int) -> Any:
    """pass@1 and pass@64 before training, after GRPO and after F-GRPO with gamma 1; a line is a seed's pair of runs."""
    figure, axes = new_figure(7.6, 3.0, 1, 2)
    for axis, k in zip(axes, (1, LARGE_K), strict=True):
        for grpo, focal in pairs:
            scores = (grpo.scores(k, step), grpo.scores(k, 0), focal.scores(k, step))
            values = [100 * score.mean() for score in scores]
            axis.plot(range(3), values, color=GREY, linewidth=1, zorder=1)
            axis.scatter(range(3), values, color=[COLOURS[1], GREY, COLOURS[2]], s=28, zorder=2)
        axis.set_xticks(range(3), ["GRPO", "before\ntraining", "F-GRPO,\ngamma 1"])
        axis.set_xlim(-0.4, 2.4)
        axis.set_ylabel("solved (%)")
    axes[0].set_title("pass@1: one sample")
    axes[1].set_title(f"pass@{LARGE_K}: the best of {LARGE_K} samples")
    figure.suptitle(f"Held-out mazes before and after {step} steps of GRPO or F-GRPO; a line is a seed")
    return figure


def _mean_curve(runs: Sequence[StudyRun], k: int) -> tuple[list[int], list[float]]:
    steps = sorted(set.intersection(*(set(run.correct) for run in runs)))
    return steps, [100 * float(np.mean([run.scores(k, step).mean() for run in runs])) for step in steps]


@figure_style()
def training_figure(runs: Sequence[StudyRun]) -> Any:
    """pass@1 and pass@64 on held-out mazes against training steps: thick the mean over seeds, thin each seed."""
    figure, axes = new_figure(8.5, 3.6, 1, 2)
    for axis, k in zip(axes, (1, LARGE_K), strict=True):
        for arm, colour in zip(_arms(runs), cycle(COLOURS), strict=False):
            own = [run for run in runs if run.arm == arm]
            for run in own:
                steps = sorted(run.correct)
                values = [100 * run.scores(k, s).mean() for s in steps]
                axis.plot(steps, values, color=colour, linewidth=0.7, alpha=0.5)
            axis.plot(*_mean_curve(own, k), color=colour, marker="o", markersize=4, label=_label(runs, arm))
        axis.set_title(f"pass@{k}, held-out mazes")
        axis.set_xlabel("training steps")
        axis.set_ylabel("percent")
    axes[0].legend(fontsize=8)
    several = len({run.seed for run in runs}) > 1
    figure.suptitle("Thick: mean over seeds. Thin: one seed each" if several else "One seed")
    return figure


@figure_style()
def difference_figure(rows: Sequence[dict[str, Any]], step: int) -> Any:
    """pass@k minus that of GRPO for every k, with 95% intervals over mazes."""
    figure, (axis,) = new_figure(6.0, 3.6)
    arms = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if arm != REFERENCE]
    for offset, arm in enumerate(arms):
        own = [row for row in rows if row["arm"] == arm and row["difference"] is not None]
        if not own:
            continue
        x = [row["k"] * 1.06 ** (offset - (len(arms) - 1) / 2) for row in own]
        y = [100 * row["difference"] for row in own]
        spread = [
            [max(0.0, 100 * (r["difference"] - r["d_low"])) for r in own],  # equal values differ by rounding
            [max(0.0, 100 * (r["d_high"] - r["difference"])) for r in own],
        ]
        colour = COLOURS[(offset + 1) % len(COLOURS)]
        axis.errorbar(x, y, yerr=spread, marker="o", markersize=4, color=colour, label=_name(arm), capsize=2)
    axis.axhline(0, color=GREY, linewidth=1)
    axis.set_xscale("log", base=2)
    axis.set_xticks(powers_of_two(LARGE_K), [str(k) for k in powers_of_two(LARGE_K)])
    axis.set_xlabel("k")
    axis.set_ylabel("pass@k minus GRPO (points)")
    axis.set_title(f"Paired differences to GRPO after {step} steps, 95% intervals over mazes")
    axis.legend(fontsize=8)
    return figure


@figure_style()
def maze_figure(runs: Sequence[StudyRun], step: int) -> Any:
    """Success rate of each held-out maze before and after training, an axis per arm; on the ground it was lost."""
    shown = [arm for arm in ("grpo", "gamma1") if any(run.arm == arm and step in run.correct for run in runs)]
    figure, axes = new_figure(4.2 * max(len(shown), 1), 4.0, 1, max(len(shown), 1), sharey=True)
    for axis, arm in zip(axes, shown, strict=False):
        own = [run for run in runs if run.arm == arm and step in run.correct]
        before_and_after(axis, own, step, _name(arm), "maze")
    axes[0].set_ylabel(f"success rate after {step} steps (%)")
    axes[0].legend(fontsize=8, loc="right")
    figure.suptitle("Each point is one held-out maze, 128 samples before and after")
    return figure


@figure_style()
def weight_figure(runs: Sequence[StudyRun]) -> Any:
    """Update scale and share of active groups over training, mean over seeds, smoothed over 10 steps."""
    import pandas as pd

    figure, axes = new_figure(8.5, 3.4, 1, 2)
    labels = {"update_scale": "update scale, sum g|A| / sum |A|", "active_share": "share of active groups"}
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for arm, colour in zip(_arms(runs), cycle(COLOURS), strict=False):
            own = [run for run in runs if run.arm == arm]
            length = min(len(run.training["step"]) for run in own)
            mean = pd.DataFrame([run.training[column][:length] for run in own], dtype=float).mean().to_numpy()
            window = min(10, length)
            smooth = np.convolve(mean, np.ones(window) / window, mode="valid")
            axis.plot(own[0].training["step"][window - 1 : length], smooth, color=colour, label=_name(arm))
        axis.set_xlabel("training steps")
        axis.set_title(label)
        axis.set_ylim(0, 1.05)
    axes[0].legend(fontsize=8)
    figure.suptitle("What the focal weight did to the update (moving average over 10 steps)")
    return figure


def _size_rows(runs: Sequence[StudyRun]) -> list[tuple[int, StudyRun]]:
    """(N, run) of part size: seeds that have other group sizes, and their runs with N = 8."""
    seeds = {run.seed for run in runs if _is_size(run)}
    kept = [run for run in runs if run.seed in seeds and (_is_size(run) or run.arm in ("grpo", "gamma1"))]
    return sorted(((int(run.settings["group_size"]), run) for run in kept), key=lambda pair: (pair[0], pair[1].arm))


def _size_table(runs: Sequence[StudyRun]) -> str:
    header = ["N", "gamma", "seed", "steps", "pass@1", f"pass@{LARGE_K}", f"start pass@{LARGE_K}", "mazes lost"]
    header += [f"minus GRPO, pass@{k}" for k in (1, LARGE_K)]
    rows = [
        [n, run.settings["focal_gamma"], run.seed, run.last_step]
        + [f"{100 * run.scores(k).mean():.1f}" for k in (1, LARGE_K)]
        + [f"{100 * run.scores(LARGE_K, 0).mean():.1f}"]
        + [int(Change.of([run], run.last_step).lost.sum())]
        + [_minus_grpo(runs, run, k) for k in (1, LARGE_K)]
        for n, run in _size_rows(runs)
    ]
    caption = (
        "Prompts a step times N is the same in all rows; a maze is lost if the start model solved it and no sample "
        "after training does. The figure's right part is Lemma 3.1 (arXiv 2602.06717) at the start model's success "
        f"rates, if a share of {RARE_SHARE:g} of every success rate were rare: where the paper expects the worst N.\n\n"
    )
    return "\n## Group size at an equal number of rollouts\n\n" + caption + markdown_table(header, rows, left=0)


def _minus_grpo(runs: Sequence[StudyRun], run: StudyRun, k: int) -> str:
    if not run.arm.endswith("gamma1"):
        return ""
    own = [other for other in runs if other.seed == run.seed]
    return _difference_cell(own, run.arm, run.arm.replace("gamma1", "grpo"), k, run.last_step)


@figure_style()
def size_figure(runs: Sequence[StudyRun]) -> Any:
    """pass@1 and pass@64 against the group size, gamma 0 and 1; beside them the tail miss that the lemma predicts."""
    figure, axes = new_figure(11.0, 3.4, 1, 3)
    for axis, k in zip(axes[:2], (1, LARGE_K), strict=True):
        for gamma, colour in (("0", COLOURS[0]), ("1", COLOURS[1])):
            own = [(n, run) for n, run in _size_rows(runs) if float(run.settings["focal_gamma"]) == float(gamma)]
            sizes = sorted({n for n, _ in own})
            values = [100 * np.mean([run.scores(k).mean() for n, run in own if n == size]) for size in sizes]
            axis.plot(sizes, values, marker="o", color=colour, label="GRPO" if gamma == "0" else "F-GRPO, gamma 1")
            axis.set_xscale("log", base=2)
            axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.set_title(f"pass@{k}, held-out mazes (%)")
    sizes = powers_of_two(256)[1:]
    starts = {run.seed: run.scores(1, 0) for _, run in _size_rows(runs)}
    mu = np.concatenate(list(starts.values()))
    axes[2].plot(sizes, [100 * tail_miss_probability(RARE_SHARE * mu, mu, n).mean() for n in sizes], color=GREY)
    axes[2].set_title(f"predicted tail miss, {RARE_SHARE:.0%} rare (% of groups)")
    axes[2].set_xscale("log", base=2)
    axes[2].set_xticks(sizes, [str(size) for size in sizes])
    for axis in axes:
        axis.set_xlabel("group size N")
    axes[0].legend(fontsize=8)
    figure.suptitle(f"Group size at equal rollouts a step, seed {', '.join(map(str, starts))}")
    return figure
