"""`verl-fgrpo eval report`: tables and figure of graded runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.report import markdown_table, pass_at_k_rows, plot_pass_at_k, write_table
from verl_fgrpo.evaluation.samples import SampleStore
from verl_fgrpo.evaluation.summary import RunData, benchmark_rows, block_rows, load_run, verdict_rows


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("report", help="tables and figure of one or more graded runs")
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=RUN")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.* and pass_at_k.*")
    parser.add_argument("--ks", type=int, nargs="+", help="values of k; default 1, 2, 4, ..., n")
    parser.add_argument("--title", default="")
    parser.set_defaults(run_command=_report)


def _report(options: argparse.Namespace) -> None:
    runs = {name: load_run(path / "verdicts", path / "samples") for name, path in named_runs(options.runs).items()}
    settings = {name: SampleStore(path / "samples").settings for name, path in named_runs(options.runs).items()}
    for path in write_report(runs, options.out, options.ks, options.title, settings):
        print(path)


def write_report(
    runs: Mapping[str, RunData],
    out: Path,
    ks: Sequence[int] | None = None,
    title: str = "",
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write report.md, .csv, .json and pass_at_k.png, .svg; returns the paths."""
    rows = pass_at_k_rows({name: run.counts() for name, run in runs.items()}, ks)
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    rows.sort(key=lambda row: order.index(row["benchmark"]))  # runs below each other, to be compared
    blocks = block_rows(rows)
    details = benchmark_rows(runs)
    verdicts = verdict_rows(runs)
    text = ["# pass@k\n", "Percent, with 95% intervals from a bootstrap over problems.\n", markdown_table(rows)]
    if blocks:
        text += ["\n## Block averages\n", markdown_table(blocks)]
    text += ["\n## More numbers\n", _details_markdown(details)]
    text += [
        "\n## Verdicts\n\nEvery sample has exactly one; all but `correct` count as not correct.\n",
        plain_markdown(verdicts),
    ]
    paths = write_table(
        rows, out / "report", "\n".join(text), blocks=blocks, details=details, verdicts=verdicts, settings=settings
    )
    return paths + plot_pass_at_k(rows, out / "pass_at_k", title)


def _details_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    percent = ("pass@1", "pass@k", "pass^k", "majority@k", "truncated", "unsolved")
    shown = []
    for row in rows:
        cells = {}
        for key, value in row.items():
            if value is None:
                cells[key] = "-"
            elif key in percent:
                cells[f"{key} (%)"] = f"{100 * value:.1f}"
            else:
                cells[key] = f"{value:.1f}" if isinstance(value, float) else str(value)
        shown.append(cells)
    return plain_markdown(shown)


def plain_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def named_runs(entries: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER entries; a folder alone is named after itself."""
    runs: dict[str, Path] = {}
    for entry in entries:
        name, _, path = entry.rpartition("=")
        folder = Path(path)
        name = name or folder.name
        if name in runs:
            raise ValueError(f"the name {name!r} is given twice")
        if not (folder / "samples" / "manifest.json").exists():
            raise ValueError(f"{folder} is not a run folder: {folder / 'samples' / 'manifest.json'} is missing")
        if not (folder / "verdicts" / "manifest.json").exists():
            raise ValueError(f"{folder} is not graded yet: run `verl-fgrpo eval grade --run {folder}`")
        runs[name] = folder
    return runs
