"""`verl-fgrpo eval report`: tables, figure and page of graded runs."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verl_fgrpo.core.command import COUNT, named_path, shown_text
from verl_fgrpo.core.files import write_atomic, write_parquet
from verl_fgrpo.core.tables import markdown_escape, markdown_table, write_table
from verl_fgrpo.evaluation import html, report
from verl_fgrpo.evaluation.compare import settings_cells, settings_rows
from verl_fgrpo.evaluation.metrics import TAUS, check_taus
from verl_fgrpo.evaluation.report import Cells
from verl_fgrpo.evaluation.summary import RunData, load_run, verdict_rows

Row = dict[str, Any]

HOW = (
    "Percent, with 95% intervals from a bootstrap over problems: what other problems of the same kind would give. "
    "pass@k is unbiased."
)
BESIDE = (
    "Means over problems with 95% intervals from a bootstrap over problems. The column estimate says what the mean is "
    "an estimate of: unbiased; unbiased for the number among k samples (it grows with k); or a plug-in, biased. Runs "
    "with --stop-after-correct r: AUC@K and cover@tau from all samples counted, the others from the first r of each "
    "problem."
)
PROBLEMS = "Problems: correct samples"
VERDICTS = "Every sample has exactly one; all but correct count as not correct."


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("report", help="tables, figure and page of one or more graded runs")
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=RUN")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.*, problems.parquet, pass_at_k.*")
    parser.add_argument("--ks", type=COUNT, nargs="+", help="values of k; default 1, 2, 4, ..., n")
    parser.add_argument("--taus", type=float, nargs="+", default=list(TAUS), help="success rates of cover@tau")
    parser.add_argument("--title", type=shown_text, default="")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained HTML file")
    parser.set_defaults(run_command=_report)


def _report(options: argparse.Namespace) -> None:
    check_taus(options.taus)
    runs = {name: load_run(path) for name, path in named_runs(options.runs).items()}
    for path in write_report(runs, options.out, options.ks, options.title, options.taus, options.html):
        print(path)


class Part(NamedTuple):
    """A part of a report: heading, text and tables; on the page `shown`, HTML, instead of the tables if given."""

    heading: str
    told: str
    tables: Sequence[Cells]
    shown: str | None = None


def write_report(
    runs: Mapping[str, RunData],
    out: Path,
    ks: Sequence[int] | None = None,
    title: str = "",
    taus: Sequence[float] = TAUS,
    html_file: Path | None = None,
) -> list[Path]:
    """Write report.md, .csv, .json, problems.parquet, pass_at_k.png, .svg and, if asked, a page; returns the paths."""
    rows = report.pass_at_k_rows({name: run.counts() for name, run in runs.items()}, ks)
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    rows.sort(key=lambda row: order.index(row["benchmark"]))  # runs below each other, to be compared
    problems = report.problem_rows(runs)
    stored: dict[str, Any] = {"blocks": report.block_rows(rows), "metrics": report.metric_rows(runs, taus)}
    stored |= {"details": report.detail_rows(runs), "verdicts": verdict_rows(runs)}
    parts = [Part("pass@k", HOW, [report.pass_cells(rows)])]
    if stored["blocks"]:
        parts.append(Part("Block averages", "", [report.pass_cells(stored["blocks"])]))
    parts += [
        Part("Beside pass@k", BESIDE, [report.metric_cells(stored["metrics"])]),
        Part("Samples", "", [report.plain_cells([_shown(row) for row in stored["details"]])]),
        Part("Verdicts", f"{VERDICTS} {readings(runs)}", [report.plain_cells(stored["verdicts"])]),
    ]
    paths = [*write_parts(parts, runs, rows, out / "report", **stored), out / "problems.parquet"]
    write_parquet(paths[-1], problems)
    paths += report.plot_pass_at_k(rows, out / "pass_at_k", title)
    if html_file is not None:
        parts.append(Part(PROBLEMS, "", [], html.problem_table(problems, list(runs))))
        paths.append(write_page(parts, runs, html_file, title or "pass@k", out / "pass_at_k.svg"))
    return paths


def write_parts(
    parts: Sequence[Part], runs: Mapping[str, RunData], rows: Sequence[Row], stem: Path, **stored: Any
) -> list[Path]:
    """Write `parts` and the settings as STEM.md; `rows`, `stored` and the settings as .csv and .json."""
    told = shortfall(runs)
    text = [f"> **Not finished.** {markdown_escape(told)}\n"] if told else []
    for level, part in zip(("#", *("##" for _ in parts)), [*parts, _settings(runs)], strict=True):
        text += [f"{level} {markdown_escape(part.heading)}\n", f"{markdown_escape(part.told)}\n" if part.told else ""]
        text += [f"{markdown_table(*cells)}\n" for cells in part.tables]
    stored |= {"settings": settings_rows(runs), "shortfall": {name: run.shortfall() for name, run in runs.items()}}
    return write_table(rows, stem, "\n".join(text), **stored)


def write_page(
    parts: Sequence[Part], runs: Mapping[str, RunData], file: Path, title: str, svg: Path, **about: Any
) -> Path:
    """Write `parts`, the figure behind the first of them, the settings and `about` as one HTML file."""
    sections = []
    for part in [*parts, _settings(runs)]:
        told = f"<p>{html.text(part.told)}</p>" if part.told else ""
        shown = "".join(html.table(*cells) for cells in part.tables) if part.shown is None else part.shown
        sections.append(html.section(part.heading, told + shown))
    sections.insert(1, html.figure(svg, "pass@k against k with 95% intervals"))
    about |= {name: {"sampling": run.sampling, "grading": run.grading} for name, run in runs.items()}
    write_atomic(file, html.page(title, shortfall(runs), sections, about))
    return file


def _settings(runs: Mapping[str, RunData]) -> Part:
    return Part("Settings", "Bold: different, and not the model's.", [settings_cells(settings_rows(runs), list(runs))])


def readings(runs: Mapping[str, RunData]) -> str:
    """How the answers of every run were read."""
    return "How answers were read: " + "; ".join(f"{name}: {run.reading}" for name, run in runs.items()) + "."


def shortfall(runs: Mapping[str, RunData]) -> str:
    """What keeps the runs from being finished ones, as one text; empty if nothing does."""
    told = [f"{name}: {sentence}" for name, run in runs.items() for sentence in run.shortfall()]
    return f"{'; '.join(told)}." if told else ""


def named_runs(entries: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER entries, see `named_path`; a folder alone is named after itself.

    Raises:
        ValueError: a name twice, no run folder, a run that is not graded.
    """
    runs: dict[str, Path] = {}
    for entry in entries:
        name, path = named_path(entry)
        name = name or ("" if entry.startswith("=") else path.name)
        if not name:
            raise ValueError(f"{entry!r} has no name: give NAME=FOLDER")
        if name in runs or name.encode("utf-8", "ignore").decode() != name:
            raise ValueError(f"the name {name!r} is given twice, or no text")
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
