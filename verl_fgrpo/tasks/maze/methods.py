"""Many methods on the same mazes, start models and budget: one table and one figure of pass@1 against pass@k.

OUT/seed<S>/<method>/                 runs of verl
OUT/seed<S>/samples/<method>-step<N>/ runs of verl-fgrpo eval
OUT/report/methods.{md,csv,json,png,svg}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.evaluation.report import ProblemCounts, Row, plot_trade_off, write_table
from verl_fgrpo.evaluation.significance import bootstrap_over_problems
from verl_fgrpo.tasks.maze.experiment import START, Checkpoint

__all__ = ["final_checkpoints", "method_rows", "write_methods_report"]


def final_checkpoints(out: Path, data: Path, seed: int, methods: Sequence[str], step: int) -> list[Checkpoint]:
    """The start model and the checkpoint after `step` steps of every method, of one seed.

    Raises:
        ValueError: a method has no Hugging Face weights at that step.
    """
    found = [Checkpoint(START, 0, data / "start_model")]
    for method in methods:
        model = out / f"seed{seed}" / method / f"global_step_{step}" / "actor" / "huggingface"
        if not any(model.glob("*.safetensors")):
            raise ValueError(f"{model} holds no weights; train {method} with seed {seed} for {step} steps first")
        found.append(Checkpoint(method, step, model))
    return found


def method_rows(
    counts: Mapping[int, Mapping[str, ProblemCounts]], ks: Sequence[int], reference: str = "grpo"
) -> list[Row]:
    """pass@k of every method, mean over seeds, and its paired difference to the reference method.

    Intervals (95%) come from a bootstrap over the mazes of each seed. They say what other mazes would change; the
    spread over seeds, which also has other training in it, stands beside them as its smallest and largest value.

    Args:
        counts: by seed and method; every seed has the same methods, and within a seed the same mazes.
        ks: the k of pass@k.
        reference: differences are against this method.

    Returns:
        A row per method (`run`) and k: value, low, high, seeds_low, seeds_high; difference, difference_low,
        difference_high, difference_seeds_low, difference_seeds_high (None for the reference and the start model).

    Raises:
        ValueError: seeds with different methods, or without the reference.
    """
    names = {tuple(of_seed) for of_seed in counts.values()}
    if len(names) != 1 or reference not in next(iter(names)):
        raise ValueError(f"every seed must have the same methods, {reference} among them; got {sorted(names)}")
    rows: list[Row] = []
    for method in next(iter(names)):
        for k in ks:
            scores = {seed: _scores(of_seed[method], k) for seed, of_seed in counts.items()}
            references = {seed: _scores(of_seed[reference], k) for seed, of_seed in counts.items()}
            strata = [str(seed) for seed, values in scores.items() for _ in values]
            value = bootstrap_over_problems(np.concatenate(list(scores.values())), groups=strata)
            by_seed = [float(values.mean()) for values in scores.values()]
            row: dict[str, Any] = {
                "run": method,
                "k": k,
                "value": value.estimate,
                "low": value.interval[0],
                "high": value.interval[1],
                "seeds_low": min(by_seed),
                "seeds_high": max(by_seed),
            }
            if method in (reference, START):
                names_of_difference = ("", "_low", "_high", "_seeds_low", "_seeds_high")
                rows.append(row | {f"difference{name}": None for name in names_of_difference})
                continue
            difference = bootstrap_over_problems(
                np.concatenate(list(references.values())), np.concatenate(list(scores.values())), groups=strata
            )
            by_seed = [float(np.mean(scores[seed] - references[seed])) for seed in scores]
            rows.append(
                row
                | {
                    "difference": difference.estimate,
                    "difference_low": difference.interval[0],
                    "difference_high": difference.interval[1],
                    "difference_seeds_low": min(by_seed),
                    "difference_seeds_high": max(by_seed),
                }
            )
    return rows


def write_methods_report(rows: Sequence[Row], stem: Path, settings: Mapping[str, str], reference: str = "grpo") -> str:
    """Write the table (Markdown, CSV, JSON) and the figure (PNG, SVG); returns the Markdown."""
    ks = sorted({row["k"] for row in rows})
    header = ["method"]
    for k in ks:
        header += [f"pass@{k}", f"minus {reference}", "(seeds)"]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for method in dict.fromkeys(row["run"] for row in rows):
        cells = [method]
        for k in ks:
            row = next(row for row in rows if row["run"] == method and row["k"] == k)
            cells.append(f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]")
            if row["difference"] is None:
                cells += ["", ""]
            else:
                parts = ("", "_low", "_high", "_seeds_low", "_seeds_high")
                middle, low, high, smallest, largest = (_points(row[f"difference{part}"]) for part in parts)
                cells += [f"{middle} [{low}, {high}]", f"{smallest} to {largest}"]
        lines.append("| " + " | ".join(cells) + " |")
    table = "\n".join(lines) + "\n"
    write_table(rows, stem, table, settings=dict(settings))
    plot_trade_off(rows, stem, "Mazes: same start models and training budget")
    return table


def _scores(counts: ProblemCounts, k: int) -> NDArray[np.float64]:
    return pass_at_k(counts.num_samples, counts.num_correct, k)


def _points(difference: float) -> str:
    """A difference in percentage points, with its sign and without "-0.0"."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"
