"""Tables and a figure of the recorded runs: pass@k of start model and arms, and the problems lost and gained.

verl-fgrpo countdown report --results docs/results/smollm2
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.core.figures import COLOURS, GREY, figure_style, new_figure, save_figure
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.passk import powers_of_two
from verl_fgrpo.core.tables import write_table
from verl_fgrpo.tasks.common.seeds import over_seeds
from verl_fgrpo.tasks.common.study import (
    Change,
    StudyRun,
    arm_rows,
    before_and_after,
    difference,
    load_runs,
    results_table,
)

REFERENCE = "grpo"
NAMES = {"grpo": "GRPO", "f_grpo": "F-GRPO", "grpo_low_lr": "GRPO, low rate"}
OWN_SETTINGS = ("preset", "focal_gamma", "learning_rate", "seed")


def main(arguments: Sequence[str]) -> int:
    """Write RESULTS/report.md, results.{md,csv,json} and results.png."""
    parser = command_parser("countdown report", __doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    given = parser.parse_args(arguments)
    print(write_report(load_runs(given.results), given.results))
    return 0


def write_report(runs: Sequence[StudyRun], results: Path) -> str:
    """Write report, tables and figure to `results`; returns the Markdown.

    Raises:
        ValueError: no GRPO run, or no validation step after 0 that all runs have.
    """
    steps = sorted(set.intersection(*(set(run.correct) for run in runs)) - {0})
    if not steps or REFERENCE not in {run.arm for run in runs}:
        raise ValueError(f"{results} has no run of {REFERENCE}, or no later step that all runs have; record such runs")
    step, ks = steps[-1], powers_of_two(min(run.num_samples for run in runs))
    arms = sorted({run.arm for run in runs}, key=lambda arm: (arm != REFERENCE, arm))
    rows = [row for arm in arms for row in arm_rows(runs, arm, REFERENCE, step, ks)]
    table = results_table(rows, NAMES, REFERENCE, sorted({1, ks[len(ks) // 2], ks[-1]}))
    write_table(rows, results / "results", table, reference=REFERENCE, step=step)
    save_figure(_figure(runs, rows, arms, step, ks), results / "results.png")
    settings = next(run for run in runs if run.arm == REFERENCE).settings
    shared = ", ".join(f"{name} {value}" for name, value in settings.items() if value and name not in OWN_SETTINGS)
    differing = "; ".join(
        f"{NAMES.get(arm, arm)}: gamma {run.settings['focal_gamma']}, learning rate "
        f"{run.settings.get('learning_rate', 'unknown')}"
        for arm in arms
        for run in [next(run for run in runs if run.arm == arm)]
    )
    further = [
        f"seed {run.seed}, {NAMES.get(run.arm, run.arm)} has step {run.last_step}"
        for run in runs
        if run.last_step > step
    ]
    text = [
        "# SmolLM2-135M-Instruct on countdown",
        f"After {step} steps, the last that all runs validated{'; '.join(['', *further])}. {shared}. {differing}.",
        f"{len(runs[0].correct[0])} held-out problems, {runs[0].num_samples} samples each, drawn by verl's own "
        "validation at temperature 1. pass@k in percent, unbiased. Intervals: 95%, bootstrap over problems, "
        "differences paired over problems. They say what other problems would give, not what other trainings would "
        f"(here: seed {', '.join(map(str, sorted({run.seed for run in runs})))}). Every run measures the start model "
        "(step 0) by itself.",
        table,
        _against_control(runs, step, ks),
        _changes(runs, arms, step),
        "![pass@k, and each problem before and after training](results.png)",
    ]
    report = "\n\n".join(part.strip() for part in text if part) + "\n"
    write_atomic(results / "report.md", report)
    return report


def _against_control(runs: Sequence[StudyRun], step: int, ks: Sequence[int]) -> str:
    """A sentence on F-GRPO minus the control of the same update scale, over the seeds that have both."""
    shown = []
    for k in ks:
        if found := difference(runs, "f_grpo", "grpo_low_lr", k, step):
            value, low, high, *seeds = (f"{100 * one:+.1f}" for one in (*found[:3], *found.by_seed))
            shown.append(f"k = {k} {value} [{low}, {high}]" + (f" ({' '.join(seeds)})" if len(seeds) > 1 else ""))
    return f"{NAMES['f_grpo']} minus {NAMES['grpo_low_lr']}, pass@k: {', '.join(shown)}." if shown else ""


def _changes(runs: Sequence[StudyRun], arms: Sequence[str], step: int) -> str:
    """A sentence an arm: problems that some samples solved before and none after, and the other way round."""
    lines = []
    for arm in arms:
        change = Change.of([run for run in runs if run.arm == arm], step)
        held = f"{len(change.before)} problems ({(change.before > 0).sum()} solved before)"
        lines.append(f"{NAMES.get(arm, arm)} loses {change.lost.sum()} of {held} and gains {change.gained.sum()}.")
    return " ".join(lines) + " Lost: solved by the start model's samples and by none after training."


@figure_style()
def _figure(
    runs: Sequence[StudyRun], rows: Sequence[dict[str, Any]], arms: Sequence[str], step: int, ks: Sequence[int]
) -> Any:
    figure, axes = new_figure(4.4 * (1 + len(arms)), 3.8, 1, 1 + len(arms))
    start = [over_seeds([run.scores(k, 0) for run in runs if run.arm == REFERENCE]) for k in ks]
    _curve(axes[0], ks, [(one.value, one.low, one.high) for one in start], "start model", GREY)
    for arm, colour in zip(arms, cycle(COLOURS), strict=False):
        own = [(row["value"], row["low"], row["high"]) for row in rows if row["arm"] == arm]
        _curve(axes[0], ks, own, NAMES.get(arm, arm), colour)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks(ks, [str(k) for k in ks])
    axes[0].set_xlabel("k")
    axes[0].set_ylabel("pass@k (%)")
    axes[0].set_title(f"Held-out problems after {step} steps")
    axes[0].legend(fontsize=8)
    for axis, arm in zip(axes[1:], arms, strict=True):
        own_runs = [run for run in runs if run.arm == arm]
        before_and_after(axis, own_runs, step, NAMES.get(arm, arm), "problem")
        axis.set_ylabel(f"success rate after {step} steps (%)")
        axis.legend(fontsize=8)
    figure.suptitle("SmolLM2-135M-Instruct on countdown. Left: 95% intervals over problems. Right: a point a problem")
    return figure


def _curve(axis: Any, ks: Sequence[int], found: Sequence[tuple[float, float, float]], name: str, colour: str) -> None:
    values, low, high = (100 * np.array(one) for one in zip(*found, strict=True))
    axis.plot(ks, values, marker="o", markersize=4, color=colour, label=name)
    axis.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
