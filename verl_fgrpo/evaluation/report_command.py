"""`verl-fgrpo eval report`: tables and figure of graded runs."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.tables import markdown_escape, markdown_table, write_table
from verl_fgrpo.evaluation import report
from verl_fgrpo.evaluation.compare import settings_rows
from verl_fgrpo.evaluation.metrics import TAUS
from verl_fgrpo.evaluation.summary import RunData, load_run, verdict_rows

Row = dict[str, Any]

HOW = (
    "Percent, with 95% intervals from a bootstrap over problems: what other problems of the same kind would give. "
    "pass@k is unbiased.\n"
)
BESIDE = (
    "\n## Beside pass@k\n\nMeans over problems with 95% intervals from a bootstrap over problems. `estimate` says what "
    "the mean is an estimate of: unbiased; unbiased for the expected number among k samples (it grows with k); or a "
    "plug-in, biased towards the observed rate. Runs with --stop-after-correct r: AUC@K and cover@tau as ever, the "
    "others on the first r samples of each problem.\n\n"
)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("report", help="tables and figure of one or more graded runs")
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=RUN")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.*, problems.parquet, pass_at_k.*")
    parser.add_argument("--ks", type=int, nargs="+", help="values of k; default 1, 2, 4, ..., n")
    parser.add_argument("--taus", type=float, nargs="+", default=list(TAUS), help="success rates of cover@tau")
    parser.add_argument("--title", default="")
    parser.set_defaults(run_command=_report)


def _report(options: argparse.Namespace) -> None:
    runs = {name: load_run(path) for name, path in named_runs(options.runs).items()}
    for path in write_report(runs, options.out, options.ks, options.title, options.taus):
        print(path)


def write_report(
    runs: Mapping[str, RunData],
    out: Path,
    ks: Sequence[int] | None = None,
    title: str = "",
    taus: Sequence[float] = TAUS,
) -> list[Path]:
    """Write report.md, .csv, .json, problems.parquet and pass_at_k.png, .svg; returns the paths."""
    rows = report.pass_at_k_rows({name: run.counts() for name, run in runs.items()}, ks)
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    rows.sort(key=lambda row: order.index(row["benchmark"]))  # runs below each other, to be compared
    extra = {
        "blocks": report.block_rows(rows),
        "metrics": report.metric_rows(runs, taus),
        "details": report.detail_rows(runs),
        "verdicts": verdict_rows(runs),
        "settings": settings_rows(runs),
        "shortfall": {name: run.shortfall() for name, run in runs.items()},
    }
    paths = write_table(rows, out / "report", _markdown(runs, rows, extra), **extra)
    paths.append(write_parquet(report.problem_rows(runs), out / "problems.parquet"))
    return paths + report.plot_pass_at_k(rows, out / "pass_at_k", title)


def _markdown(runs: Mapping[str, RunData], rows: Sequence[Row], extra: Mapping[str, Any]) -> str:
    text = [first_line(runs), "# pass@k\n", HOW, report.markdown_table(rows)]
    if extra["blocks"]:
        text += ["\n## Block averages\n", report.markdown_table(extra["blocks"])]
    text += [BESIDE + report.metric_table(extra["metrics"])]
    text += ["\n## Samples\n", plain_markdown([_shown(row) for row in extra["details"]])]
    text += [
        "\n## Verdicts\n\nEvery sample has exactly one; all but `correct` count as not correct.\n",
        plain_markdown(extra["verdicts"]),
        "\n## Settings\n",
        settings_markdown(extra["settings"], list(runs)),
    ]
    return "\n".join(text)


def first_line(runs: Mapping[str, RunData]) -> str:
    """What makes a run less than a finished one, to stand above everything else; empty for finished runs."""
    told = [f"{name}: {sentence}" for name, run in runs.items() for sentence in run.shortfall()]
    return f"> **Not finished.** {markdown_escape('; '.join(told))}.\n" if told else ""


def settings_markdown(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Settings of every run side by side; bold where they differ in more than the model."""
    lines = []
    for row in rows:
        values = [row[name] if row["comparable"] else f"**{row[name]}**" for name in names]
        lines.append([row["group"], row["setting"], *values])
    return markdown_table(["of", "setting", *names], lines, left=2 + len(names))


def plain_markdown(rows: Sequence[Row]) -> str:
    """Markdown of rows with the same keys, cells as they are; "-" for what is not known."""
    cells = [["-" if value is None else value for value in row.values()] for row in rows]
    return markdown_table(list(rows[0]), cells, left=2)


def write_parquet(rows: Sequence[Row], path: Path) -> Path:
    """One row a problem and run, for pandas or Hugging Face datasets; a column that some run lacks is null there."""
    import pyarrow
    import pyarrow.parquet

    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    write_atomic(path, buffer.getvalue())
    return path


def named_runs(entries: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER entries, split at the first "="; an entry that is a folder itself is named after it.

    Raises:
        ValueError: a name twice, no run folder, a run that is not graded.
    """
    runs: dict[str, Path] = {}
    for entry in entries:
        name, equals, rest = entry.partition("=")
        path = Path(entry) if not equals or Path(entry).is_dir() else Path(rest)
        name = name if path != Path(entry) else path.name
        if not name or name in runs:
            raise ValueError(
                f"the name {name!r} is given twice" if name else f"{entry!r} has no name: give NAME=FOLDER"
            )
        if not (path / "samples" / "manifest.json").exists():
            raise ValueError(f"{path} is not a run folder: {path / 'samples' / 'manifest.json'} is missing")
        if not (path / "verdicts" / "manifest.json").exists():
            raise ValueError(f"{path} is not graded yet: run `verl-fgrpo eval grade --run {path}`")
        runs[name] = path
    return runs


def _shown(row: Row) -> Row:
    """A row of `detail_rows` for people."""
    shown = {key: value for key, value in row.items() if key not in ("mean_tokens", "truncated", "unsolved")}
    shown["mean tokens"] = None if row["mean_tokens"] is None else f"{row['mean_tokens']:.1f}"
    for name in ("truncated", "unsolved"):
        shown[f"{name} (%)"] = None if row[name] is None else f"{100 * row[name]:.1f}"
    return shown
