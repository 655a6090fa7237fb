"""Tables and figures from counts of correct samples per problem.

Everything is a pure function of `ProblemCounts`; a table is a list of dictionaries with the same keys in every row.
Rates are fractions in [0, 1] in the data files and percent in Markdown and figures.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.passk import as_counts, pass_at_k, powers_of_two
from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.evaluation.significance import bootstrap_over_problems

__all__ = [
    "ProblemCounts",
    "markdown_table",
    "pass_at_k_rows",
    "plot_pass_at_k",
    "plot_trade_off",
    "plot_training_curve",
    "write_table",
]

Row = dict[str, Any]

# Colour-blind safe (Okabe & Ito); the order of runs is the order of the mapping: base model, baseline, focal.
COLOURS = ("#7f7f7f", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B4513", "#7B3294")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")


@dataclass(frozen=True)
class ProblemCounts:
    """Counts of one run: for each of P problems, n samples of which c are correct.

    Attributes:
        problem_ids: [P] unique within a benchmark.
        num_samples: [P] n.
        num_correct: [P] c.
        benchmarks: [P] benchmark of each problem.
    """

    problem_ids: tuple[str, ...]
    num_samples: NDArray[np.int64]
    num_correct: NDArray[np.int64]
    benchmarks: tuple[str, ...]

    @classmethod
    def of(
        cls,
        num_samples: ArrayLike,
        num_correct: ArrayLike,
        problem_ids: Sequence[str] | None = None,
        benchmark: str | Sequence[str] = "all",
    ) -> ProblemCounts:
        """Build from arrays; a scalar `num_samples` and one `benchmark` name are repeated, ids default to 0, 1, ...

        Raises:
            ValueError: different lengths, c > n, no problems, a problem listed twice.
        """
        correct = as_counts(num_correct, "num_correct")
        if correct.ndim != 1 or correct.size == 0:
            raise ValueError(
                f"num_correct must be a non-empty vector, one count per problem; got shape {correct.shape}"
            )
        n = np.broadcast_to(as_counts(num_samples, "num_samples"), correct.shape)
        pass_at_k(n, correct, 1)  # the range checks
        size = len(correct)
        ids = tuple(str(index) for index in range(size)) if problem_ids is None else tuple(map(str, problem_ids))
        names = (benchmark,) * size if isinstance(benchmark, str) else tuple(benchmark)
        if len(ids) != size or len(names) != size:
            raise ValueError(f"{size} counts, {len(ids)} problem_ids and {len(names)} benchmarks must be equally many")
        if len(set(zip(names, ids, strict=True))) != size:
            raise ValueError("problem_ids must be unique within a benchmark")
        return cls(ids, n.copy(), correct, names)

    def of_benchmark(self, benchmark: str) -> ProblemCounts:
        chosen = [index for index, name in enumerate(self.benchmarks) if name == benchmark]
        return ProblemCounts(
            tuple(self.problem_ids[index] for index in chosen),
            self.num_samples[chosen],
            self.num_correct[chosen],
            (benchmark,) * len(chosen),
        )

    @property
    def benchmark_names(self) -> list[str]:
        return list(dict.fromkeys(self.benchmarks))


def pass_at_k_rows(
    runs: Mapping[str, ProblemCounts],
    ks: Sequence[int] | None = None,
    iterations: int = 2_000,
    seed: int = 0,
) -> list[Row]:
    """pass@k of every run and benchmark with 95% intervals from a bootstrap over problems.

    pass@k = mean over problems of `pass_at_k(n, c, k)` (arXiv 2602.06717, L.4).

    Args:
        runs: name -> counts.
        ks: values of k; by default 1, 2, 4, ... up to the smallest n of each (run, benchmark).
        iterations: bootstrap rounds.
        seed: of the bootstrap, the same for every row.

    Returns:
        Rows with run, benchmark, k, value, low, high, problems, samples (the smallest n).

    Raises:
        ValueError: a k above the samples of some problem.
    """
    rows: list[Row] = []
    for run, counts in runs.items():
        for benchmark in counts.benchmark_names:
            part = counts.of_benchmark(benchmark)
            smallest = int(part.num_samples.min())
            for k in powers_of_two(smallest) if ks is None else ks:
                values = pass_at_k(part.num_samples, part.num_correct, k)
                band = bootstrap_over_problems(values, iterations=iterations, rng=seed)
                rows.append(
                    {
                        "run": run,
                        "benchmark": benchmark,
                        "k": int(k),
                        "value": band.estimate,
                        "low": band.interval[0],
                        "high": band.interval[1],
                        "problems": len(values),
                        "samples": smallest,
                    }
                )
    return rows


def markdown_table(rows: Sequence[Row], index: Sequence[str] = ("benchmark", "run"), column: str = "k") -> str:
    """Markdown of long rows: one line per `index`, one column per value of `column`, cells in percent."""
    columns = sorted({row[column] for row in rows})
    lines: dict[tuple[Any, ...], dict[Any, Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[name] for name in index), {})[row[column]] = row
    prefix = "pass@" if column == "k" else f"{column} "
    header = [*index, *(f"{prefix}{value}" for value in columns)]
    text = [_markdown_line(header), _markdown_line(["---"] * len(index) + ["---:"] * len(columns))]
    for key, cells in lines.items():
        text.append(_markdown_line([*key, *(_percent(cells.get(value)) for value in columns)]))
    return "\n".join(text) + "\n"


def write_table(rows: Sequence[Row], stem: Path | str, markdown: str, **extra: Any) -> list[Path]:
    """Write `stem`.md, .csv and .json, each atomically; the JSON also holds `extra` and the provenance.

    Args:
        rows: the table, the same keys in every row.
        stem: path without suffix (a dot in the name is kept).
        markdown: the text for people, for instance of `markdown_table`.
        extra: JSON values such as the settings.

    Returns:
        The three paths.
    """
    if not rows:
        raise ValueError("rows is empty: there is nothing to write")
    stem = Path(stem)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = {"rows": list(rows), **extra, "provenance": provenance()}
    paths = [stem.with_name(stem.name + suffix) for suffix in (".md", ".csv", ".json")]
    write_atomic(paths[0], markdown)
    write_atomic(paths[1], buffer.getvalue())
    write_atomic(paths[2], json.dumps(content, indent=2, allow_nan=False) + "\n")
    return paths


def plot_pass_at_k(rows: Sequence[Row], stem: Path | str, title: str = "") -> list[Path]:
    """Figure of `pass_at_k_rows`: pass@k against k on a log2 axis, one panel per benchmark; writes PNG and SVG."""
    from matplotlib.ticker import FuncFormatter

    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    runs = list(dict.fromkeys(row["run"] for row in rows))
    first_colour = 0 if len(runs) > 2 else 1  # grey is for a start model, the first of three runs
    figure, axes = _panels(len(benchmarks))
    for axis, benchmark in zip(axes, benchmarks, strict=False):
        for number, run in enumerate(runs):
            line = sorted(
                (row for row in rows if row["benchmark"] == benchmark and row["run"] == run), key=lambda row: row["k"]
            )
            _line_with_band(axis, line, "k", run, number + first_colour)
        panel = next(row for row in rows if row["benchmark"] == benchmark)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_title("" if benchmarks == ["all"] else f"{benchmark} ({panel['problems']} problems)", fontsize=10)
        axis.set_xlabel("k (samples per problem)")
        axis.set_ylabel("pass@k (%)")
    axes[0].legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return _save(figure, Path(stem))


def plot_training_curve(rows: Sequence[Row], stem: Path | str, title: str = "") -> list[Path]:
    """Figure of pass@k over training: one panel per k, one line per run; writes PNG and SVG.

    Args:
        rows: with step, run, k, value (fraction) and, optionally, low and high.
        stem: path without suffix.
        title: above the panels.
    """
    runs = list(dict.fromkeys(row["run"] for row in rows))
    ks = sorted({row["k"] for row in rows})
    figure, axes = _panels(len(ks))
    for axis, k in zip(axes, ks, strict=False):
        for number, run in enumerate(runs):
            line = sorted((row for row in rows if row["k"] == k and row["run"] == run), key=lambda row: row["step"])
            # The first colour is the start model's in `plot_pass_at_k`; here every run is a training run.
            _line_with_band(axis, line, "step", run, number + 1)
        axis.set_title(f"pass@{k}", fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylabel(f"pass@{k} (%)")
    axes[0].legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return _save(figure, Path(stem))


def plot_trade_off(rows: Sequence[Row], stem: Path | str, title: str = "") -> list[Path]:
    """Figure of pass@(largest k) against pass@(smallest k), one point per run; up and right is better; PNG and SVG.

    Args:
        rows: with run, k, value (fraction), low and high.
        stem: path without suffix.
        title: above the panel.
    """
    ks = sorted({row["k"] for row in rows})
    figure, (axis, *_) = _panels(1)
    for number, run in enumerate(dict.fromkeys(row["run"] for row in rows)):
        x, y = (next(row for row in rows if row["run"] == run and row["k"] == k) for k in (ks[0], ks[-1]))
        bars = [[[100 * (row["value"] - row["low"])], [100 * (row["high"] - row["value"])]] for row in (x, y)]
        axis.errorbar(
            100 * x["value"],
            100 * y["value"],
            xerr=bars[0],
            yerr=bars[1],
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            elinewidth=0.8,
            alpha=0.9,
            label=run,
        )
    axis.set_xlabel(f"pass@{ks[0]} (%)")
    axis.set_ylabel(f"pass@{ks[-1]} (%)")
    figure.legend(frameon=False, fontsize=9, loc="outside right center")
    figure.set_size_inches(6.8, 4.2)
    if title:
        axis.set_title(title, fontsize=11)
    return _save(figure, Path(stem))


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    if count < 1:
        raise ValueError("there are no rows to draw")
    columns = min(3, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(5.2 if count == 1 else 4.2 * columns, 3.6 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes:
        axis.grid(True, alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line_with_band(axis: Any, line: Sequence[Row], x_name: str, label: str, number: int) -> None:
    if not line:
        return
    x = [row[x_name] for row in line]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axis.plot(x, [100 * row["value"] for row in line], color=colour, marker=marker, ms=4, lw=1.6, label=label)
    if all("low" in row and "high" in row for row in line):
        low, high = ([100 * row[name] for row in line] for name in ("low", "high"))
        axis.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def _save(figure: Any, stem: Path) -> list[Path]:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    paths = []
    # A fixed hash salt and no date: the same rows give the same SVG, byte for byte.
    with rc_context({"svg.hashsalt": "verl_fgrpo", "svg.fonttype": "none"}):
        for suffix in ("png", "svg"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
            path = stem.with_name(f"{stem.name}.{suffix}")
            write_atomic(path, buffer.getvalue())
            paths.append(path)
    return paths


def _percent(row: Row | None) -> str:
    if row is None:
        return ""
    text = f"{100 * row['value']:.1f}"
    if "low" in row:
        text += f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    return text


def _markdown_line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
