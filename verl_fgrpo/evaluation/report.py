"""Tables and figures of runs on their own: pass@k and the metrics beside it, with intervals over problems.

A table is a list of dictionaries with the same keys in every row. Rates are fractions in [0, 1] in the data files and
percent in Markdown and figures.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.figures import COLOURS, GREY, MARKERS, figure_style, new_figure, save_figure
from verl_fgrpo.core.passk import powers_of_two
from verl_fgrpo.evaluation.benchmarks import BLOCKS, block_of
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.metrics import TAUS, common_k, problem_metrics
from verl_fgrpo.evaluation.significance import BootstrapResult, bootstrap_columns
from verl_fgrpo.evaluation.summary import RunData

Row = dict[str, Any]
Cells = tuple[list[str], list[list[object]], int]  # header, rows, columns aligned left: for Markdown and HTML


def pass_at_k_rows(
    runs: Mapping[str, ProblemCounts],
    ks: Sequence[int] | None = None,
    iterations: int = 2_000,
) -> list[Row]:
    """pass@k of every run and benchmark with 95% intervals from a bootstrap over problems.

    pass@k = mean over problems of the unbiased estimate (arXiv 2602.06717, L.4; sequential runs by their own).

    Args:
        runs: name -> counts.
        ks: values of k; by default 1, 2, 4, ... up to the smallest n of each (run, benchmark), or the cap.
        iterations: bootstrap rounds.

    Returns:
        Rows with run, benchmark, k, value, low, high, problems, samples (the smallest n).

    Raises:
        ValueError: a k above the samples of some problem.
    """
    rows: list[Row] = []
    for run, counts in runs.items():
        for benchmark in counts.benchmark_names:
            part = counts.of_benchmark(benchmark)
            asked = powers_of_two(part.largest_k) if ks is None else ks
            values = np.stack([part.pass_at_k(k) for k in asked], axis=1)
            size = {"problems": len(values), "samples": int(np.min(part.num_samples))}
            for k, band in zip(asked, bootstrap_columns(values, iterations=iterations), strict=True):
                rows.append({"run": run, "benchmark": benchmark, "k": int(k), **_value(band), **size})
    return rows


def metric_rows(runs: Mapping[str, RunData], taus: Sequence[float] = TAUS) -> list[Row]:
    """The metrics of `metrics.problem_metrics` with 95% intervals from a bootstrap over problems.

    All runs of a benchmark get the same k, so that their numbers can be compared.

    Returns:
        Rows with benchmark, run, metric, value, low, high, bias (what kind of estimate it is), percent.
    """
    rows: list[Row] = []
    for benchmark in dict.fromkeys(name for data in runs.values() for name in data.counts().benchmark_names):
        having = {run: data for run, data in runs.items() if data.counted(benchmark)}
        max_k, k = common_k(list(having.values()), benchmark)
        for run, data in having.items():
            metrics = problem_metrics(data, benchmark, max_k, k, taus)
            values = np.stack([metric.values for metric in metrics.values()], axis=1)
            bands = bootstrap_columns(values, iterations=2_000)
            for (name, metric), band in zip(metrics.items(), bands, strict=True):
                kind = {"bias": metric.bias, "percent": metric.percent}
                rows.append({"benchmark": benchmark, "run": run, "metric": name, **_value(band), **kind})
    return rows


def _value(band: BootstrapResult) -> Row:
    return {"value": band.estimate, "low": band.interval[0], "high": band.interval[1]}


def detail_rows(runs: Mapping[str, RunData]) -> list[Row]:
    """Of every run and benchmark: problems, samples drawn, tokens, share of samples cut and of problems unsolved.

    Columns: problems (counted), samples (all that are stored), fewest and most samples of a problem, mean_tokens and
    truncated (over the samples where it is known; None where it never is), unsolved (no correct sample counted).
    """
    rows = []
    for run, data in runs.items():
        counts = data.counts()
        for benchmark in counts.benchmark_names:
            stored = [data.problems[key] for key in data.counted(benchmark)]
            tokens = np.concatenate([one.tokens for one in stored])
            cut = np.concatenate([one.cut for one in stored])
            sizes = [len(one) for one in stored]
            size = {"problems": len(stored), "samples": sum(sizes), "fewest": min(sizes), "most": max(sizes)}
            known = {"mean_tokens": _known_mean(tokens), "truncated": _known_mean(cut)}
            unsolved = float(np.mean(counts.of_benchmark(benchmark).num_correct == 0))
            rows.append({"run": run, "benchmark": benchmark, **size, **known, "unsolved": unsolved})
    return rows


def _known_mean(values: NDArray[np.int64]) -> float | None:
    known = values[values >= 0]
    return float(known.mean()) if len(known) else None


def problem_rows(runs: Mapping[str, RunData]) -> list[Row]:
    """One row per run and counted problem: counts, pass@k at powers of two, distinct correct answers and texts."""
    rows = []
    for run, data in runs.items():
        counts = data.counts()
        ks = powers_of_two(counts.largest_k)
        values = np.stack([counts.pass_at_k(k) for k in ks], axis=1).tolist()
        sizes = zip(counts.num_samples.tolist(), counts.num_correct.tolist(), strict=True)
        for key, (n, c), at_k in zip(data.counted(), sizes, values, strict=True):
            stored = data.problems[key]
            right = stored.correct
            row: Row = {"run": run, "benchmark": key[0], "problem_id": key[1], "num_samples": n, "num_correct": c}
            row["stored_samples"] = len(stored)
            row["distinct_correct_answers"] = len(np.unique(stored.answers[right & (stored.answers >= 0)]))
            row["distinct_correct_texts"] = len(np.unique(stored.texts[right])) if len(stored.texts) else None
            row["mean_tokens"] = _known_mean(stored.tokens)
            rows.append(row | {f"pass@{k}": value for k, value in zip(ks, at_k, strict=True)})
    return rows


def block_rows(pass_rows: Sequence[Row]) -> list[Row]:
    """The paper's averages: plain means over the benchmarks of a block ("math", "ood"; arXiv 2602.06717, L.4).

    A block's row says which of its benchmarks it averages; a block of one benchmark is left out.
    """
    rows = []
    for block in BLOCKS:
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in pass_rows:
            if block_of(row["benchmark"]) == block:
                groups[row["run"], row["k"]].append(row)
        largest = max(map(len, groups.values()), default=0)
        for (run, k), members in groups.items():
            if len(members) == largest > 1:
                name = f"avg {block} of {', '.join(member['benchmark'] for member in members)}"
                value = float(np.mean([member["value"] for member in members]))
                problems, fewest = sum(one["problems"] for one in members), min(one["samples"] for one in members)
                row = {"run": run, "benchmark": name, "k": k, "value": value, "problems": problems, "samples": fewest}
                rows.append(row)
    return rows


def pass_cells(rows: Sequence[Row], index: Sequence[str] = ("benchmark", "run")) -> Cells:
    """Table of `pass_at_k_rows`: one line per `index`, one column per k, cells in percent."""
    ks = sorted({row["k"] for row in rows})
    lines: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[name] for name in index), {})[row["k"]] = row
    cells = [[*key, *(_cell(found.get(k), True) for k in ks)] for key, found in lines.items()]
    return [*index, *(f"pass@{k}" for k in ks)], cells, len(index)


def metric_cells(rows: Sequence[Row]) -> Cells:
    """Table of `metric_rows`: one line per benchmark and metric, one column per run."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        name = f"{row['metric']} (%)" if row["percent"] else row["metric"]
        lines.setdefault((row["benchmark"], name, row["bias"]), {})[row["run"]] = row
    cells: list[list[object]] = [
        [*key, *(_cell(found[run], found[run]["percent"]) if run in found else "-" for run in runs)]
        for key, found in lines.items()
    ]
    return ["benchmark", "metric", "estimate", *runs], cells, 3


def plain_cells(rows: Sequence[Row]) -> Cells:
    """Table of rows with the same keys, cells as they are; "-" for what is not known."""
    return list(rows[0]), [["-" if value is None else value for value in row.values()] for row in rows], 2


@figure_style()
def plot_pass_at_k(rows: Sequence[Row], stem: Path | str, title: str = "") -> list[Path]:
    """Figure of `pass_at_k_rows`: pass@k against k on a log2 axis, a panel a benchmark; writes PNG and SVG."""
    from matplotlib.ticker import FuncFormatter

    problems = {row["benchmark"]: row["problems"] for row in rows}
    grey_first = len({row["run"] for row in rows}) > 2  # a start model, the first of three runs
    figure, axes = _lines_with_bands(rows, "benchmark", list(problems), "k", title, grey_first)
    for benchmark, axis in axes.items():
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        shown = "" if list(axes) == ["all"] else f"{_short(benchmark)} ({problems[benchmark]} problems)"
        axis.set(title=shown, xlabel="k (samples per problem)", ylabel="pass@k (%)")
    return save_figure(figure, stem)


@figure_style()
def plot_training_curve(rows: Sequence[Row], stem: Path | str, title: str = "") -> list[Path]:
    """Figure of pass@k over training: one panel per k, one line per run; writes PNG and SVG.

    Rows have step, run, k, value (fraction) and, optionally, low and high.
    """
    figure, axes = _lines_with_bands(rows, "k", sorted({row["k"] for row in rows}), "step", title)
    for k, axis in axes.items():
        axis.set(title=f"pass@{k}", xlabel="training step", ylabel=f"pass@{k} (%)")
    return save_figure(figure, stem)


def _lines_with_bands(
    rows: Sequence[Row], panel_name: str, panels: Sequence[Any], x_name: str, title: str, grey_first: bool = False
) -> tuple[Any, dict[Any, Any]]:
    """A figure with a panel for each value of the column `panel_name`, and in it a line for each run."""
    if not panels:
        raise ValueError("there are no rows to draw")
    columns, lines = min(3, len(panels)), math.ceil(len(panels) / 3)
    figure, axes = new_figure(5.2 if len(panels) == 1 else 4.2 * columns, 3.6 * lines, lines, columns)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes, panels, strict=False):
        for number, run in enumerate(dict.fromkeys(row["run"] for row in rows), -1 if grey_first else 0):
            line = [row for row in rows if row[panel_name] == panel and row["run"] == run]
            _line_with_band(axis, sorted(line, key=lambda row: row[x_name]), x_name, run, number)
    axes[0].legend()
    if title:
        figure.suptitle(_short(title, 120))
    return figure, dict(zip(panels, axes, strict=False))


@figure_style()
def plot_trade_off(rows: Sequence[Row], stem: Path | str, title: str = "") -> list[Path]:
    """Figure of pass@(largest k) against pass@(smallest k), one point per run; up and right is better; PNG and SVG.

    Rows have run, k, value (fraction), low and high.
    """
    ks = sorted({row["k"] for row in rows})
    figure, (axis, *_) = new_figure(6.8, 4.2)
    for number, run in enumerate(dict.fromkeys(row["run"] for row in rows)):
        x, y = (next(row for row in rows if row["run"] == run and row["k"] == k) for k in (ks[0], ks[-1]))
        bars = [[[max(0.0, 100 * (r["value"] - r["low"]))], [max(0.0, 100 * (r["high"] - r["value"]))]] for r in (x, y)]
        style = {"fmt": MARKERS[number % len(MARKERS)], "color": (GREY, *COLOURS)[number % (1 + len(COLOURS))]}
        point = 100 * x["value"], 100 * y["value"]
        axis.errorbar(*point, bars[1], bars[0], **style, elinewidth=0.8, alpha=0.9, label=_short(run))
    axis.set_xlabel(f"pass@{ks[0]} (%)")
    axis.set_ylabel(f"pass@{ks[-1]} (%)")
    figure.legend(loc="outside right center")
    if title:
        axis.set_title(_short(title, 120))
    return save_figure(figure, stem)


def _line_with_band(axis: Any, line: Sequence[Row], x_name: str, label: str, number: int) -> None:
    if not line:
        return
    x = [row[x_name] for row in line]
    colour, marker = (GREY if number < 0 else COLOURS[number % len(COLOURS)]), MARKERS[number % len(MARKERS)]
    axis.plot(x, [100 * row["value"] for row in line], color=colour, marker=marker, ms=4, label=_short(label))
    if all("low" in row and "high" in row for row in line):
        low, high = ([100 * row[name] for row in line] for name in ("low", "high"))
        axis.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def _short(name: str, longest: int = 60) -> str:
    """A name for a legend or title: not so long that it takes the room of the axes, and matplotlib hides none of it."""
    shown = name if len(name) <= longest else f"{name[: longest - 3]}..."
    return f" {shown}" if shown.startswith("_") else shown  # labels that begin with "_" would be left out


def _cell(row: Row | None, percent: bool) -> str:
    if row is None:
        return ""
    scale, digits = (100, 1) if percent else (1, 2)
    text = f"{scale * row['value']:.{digits}f}"
    if "low" in row:
        text += f" [{scale * row['low']:.{digits}f}, {scale * row['high']:.{digits}f}]"
    return text
