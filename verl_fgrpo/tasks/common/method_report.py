"""Many methods on the same problems, start models and budget: one table and one figure of pass@1 against pass@k."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.report import Row, plot_trade_off
from verl_fgrpo.tasks.common.experiment import START
from verl_fgrpo.tasks.common.seeds import over_seeds

REFERENCE = "grpo"  # differences are against this method
DIFFERENCE = ("difference", "difference_low", "difference_high", "difference_seeds_low", "difference_seeds_high")


def method_rows(counts: Mapping[int, Mapping[str, ProblemCounts]], ks: Sequence[int]) -> list[Row]:
    """pass@k of every method, mean over seeds (`over_seeds`), and its paired difference to `REFERENCE`.

    Args:
        counts: by seed and method; every seed has the same methods, and within a seed the same problems.
        ks: the k of pass@k.

    Returns:
        A row per method (`run`) and k: value, low, high, seeds_low, seeds_high; difference, difference_low,
        difference_high, difference_seeds_low, difference_seeds_high (None for the reference and the start model).

    Raises:
        ValueError: seeds with different methods, or without the reference.
    """
    names = {tuple(of_seed) for of_seed in counts.values()}
    if len(names) != 1 or REFERENCE not in next(iter(names)):
        raise ValueError(f"every seed must have the same methods, {REFERENCE} among them; got {sorted(names)}")
    rows: list[Row] = []
    for method in next(iter(names)):
        for k in ks:
            scores = [of_seed[method].pass_at_k(k) for of_seed in counts.values()]
            row: Row = {"run": method, "k": k, **over_seeds(scores).columns()}
            if method in (REFERENCE, START):
                rows.append(row | dict.fromkeys(DIFFERENCE))
                continue
            references = [of_seed[REFERENCE].pass_at_k(k) for of_seed in counts.values()]
            difference = over_seeds(scores, references).columns()
            rows.append(row | dict(zip(DIFFERENCE, difference.values(), strict=True)))
    return rows


def write_methods_report(rows: Sequence[Row], stem: Path, settings: Mapping[str, str], title: str) -> str:
    """Write the table (Markdown, CSV, JSON) and the figure (PNG, SVG); returns the Markdown."""
    ks = sorted({row["k"] for row in rows})
    header = ["method"]
    for k in ks:
        header += [f"pass@{k}", f"minus {REFERENCE}", "(seeds)"]
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


def _points(difference: float) -> str:
    """A difference in percentage points, with its sign and without "-0.0"."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"
