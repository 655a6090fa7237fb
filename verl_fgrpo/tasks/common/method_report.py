"""Many methods on the same problems, start models and budget: one table and one figure of pass@1 against pass@k."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.report import Row, plot_trade_off
from verl_fgrpo.evaluation.significance import bootstrap_over_problems
from verl_fgrpo.tasks.common.experiment import START

DIFFERENCE = ("difference", "difference_low", "difference_high", "difference_seeds_low", "difference_seeds_high")


def method_rows(
    counts: Mapping[int, Mapping[str, ProblemCounts]], ks: Sequence[int], reference: str = "grpo"
) -> list[Row]:
    """pass@k of every method, mean over seeds, and its paired difference to the reference method.

    Intervals (95%) come from a bootstrap over the problems of each seed. They say what other problems would change; the
    spread over seeds, which also has other training in it, stands beside them as its smallest and largest value.

    Args:
        counts: by seed and method; every seed has the same methods, and within a seed the same problems.
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
            scores = [_scores(of_seed[method], k) for of_seed in counts.values()]
            row: Row = {"run": method, "k": k, **over_seeds(scores)}
            if method in (reference, START):
                rows.append(row | dict.fromkeys(DIFFERENCE))
                continue
            references = [_scores(of_seed[reference], k) for of_seed in counts.values()]
            difference = over_seeds(scores, references)
            rows.append(row | dict(zip(DIFFERENCE, difference.values(), strict=True)))
    return rows


def over_seeds(
    scores: Sequence[NDArray[np.float64]], references: Sequence[NDArray[np.float64]] | None = None
) -> dict[str, float]:
    """Mean over problems of all seeds (or its difference to references), bootstrap interval, extremes over seeds."""
    strata = [str(seed) for seed, values in enumerate(scores) for _ in values]
    together = np.concatenate(scores)
    if references is None:
        band = bootstrap_over_problems(together, groups=strata)
        by_seed = [float(values.mean()) for values in scores]
    else:
        band = bootstrap_over_problems(np.concatenate(references), together, groups=strata)
        by_seed = [float(np.mean(one - other)) for one, other in zip(scores, references, strict=True)]
    return {
        "value": band.estimate,
        "low": band.interval[0],
        "high": band.interval[1],
        "seeds_low": min(by_seed),
        "seeds_high": max(by_seed),
    }


def write_methods_report(
    rows: Sequence[Row], stem: Path, settings: Mapping[str, str], title: str, reference: str = "grpo"
) -> str:
    """Write the table (Markdown, CSV, JSON) and the figure (PNG, SVG); returns the Markdown."""
    ks = sorted({row["k"] for row in rows})
    header = ["method"]
    for k in ks:
        header += [f"pass@{k}", f"minus {reference}", "(seeds)"]
    lines = []
    for method in dict.fromkeys(row["run"] for row in rows):
        cells: list[object] = [method]
        for k in ks:
            row = next(row for row in rows if row["run"] == method and row["k"] == k)
            cells.append(f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]")
            if row["difference"] is None:
                cells += [None, None]
            else:
                middle, low, high, smallest, largest = (_points(row[name]) for name in DIFFERENCE)
                cells += [f"{middle} [{low}, {high}]", f"{smallest} to {largest}"]
        lines.append(cells)
    table = markdown_table(header, lines)
    write_table(rows, stem, table, settings=dict(settings))
    plot_trade_off(rows, stem, title)
    return table


def _scores(counts: ProblemCounts, k: int) -> NDArray[np.float64]:
    return pass_at_k(counts.num_samples, counts.num_correct, k)


def _points(difference: float) -> str:
    """A difference in percentage points, with its sign and without "-0.0"."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"
