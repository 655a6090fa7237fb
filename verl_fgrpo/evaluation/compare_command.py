"""`verl-fgrpo eval compare`: paired tests of runs against a base run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.tables import markdown_escape, markdown_table, write_table
from verl_fgrpo.evaluation import compare, html
from verl_fgrpo.evaluation.metrics import TAUS, check_taus
from verl_fgrpo.evaluation.report import pass_at_k_rows, plain_cells, plot_pass_at_k
from verl_fgrpo.evaluation.report_command import check_positive, first_line, named_runs, readings, shortfall
from verl_fgrpo.evaluation.summary import RunData, load_run

Row = dict[str, Any]
SHOWN = 40  # changed problems in Markdown; all are in the JSON file


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("compare", help="paired tests of runs against a base run")
    parser.add_argument("--base", required=True, metavar="NAME=RUN")
    parser.add_argument(
        "--focal", nargs="+", required=True, metavar="NAME=RUN", help="one or more runs to compare with it"
    )
    parser.add_argument("--extra", nargs="*", default=[], metavar="NAME=RUN", help="more curves for the figure only")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 256], help="values of k (at most m); default 1 256")
    parser.add_argument("--m", type=int, default=256, help="subsample size")
    parser.add_argument("--iterations", type=int, default=50_000)
    parser.add_argument("--taus", type=float, nargs="+", default=list(TAUS), help="success rates of cover@tau")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--title", default="")
    parser.add_argument(
        "--allow-different-settings", action="store_true", help="compare runs sampled or graded in different ways"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained HTML file")
    parser.set_defaults(run_command=_compare)


def _compare(options: argparse.Namespace) -> None:
    check_taus(options.taus)
    for name in ("ks", "m", "iterations"):
        given = getattr(options, name)
        check_positive(f"--{name}", given if isinstance(given, list) else [given])
    folders = named_runs([options.base, *options.focal])
    more = named_runs(options.extra)
    runs = {name: load_run(path) for name, path in folders.items()}
    if not options.allow_different_settings:
        compare.refuse_different_settings(compare.settings_rows(runs), list(runs))
    result = compared(runs, options.ks, options.m, options.iterations, options.seed, options.taus)
    curves = {**{name: load_run(path) for name, path in more.items()}, **runs}
    paths = write_comparison(result, options.out, curves, options.title)
    if options.html is not None:
        write_page(result, folders, options.out / "pass_at_k.svg", options.html, options.title)
        paths.append(options.html)
    print((options.out / "compare.md").read_text())
    for path in paths:
        print(path)


@dataclass(frozen=True)
class Comparison:
    """Everything that is told of runs against the first of them; of `tests`, `metrics`, `changed` by run."""

    runs: Mapping[str, RunData]
    ks: Sequence[int]
    m: int
    iterations: int
    seed: int
    tests: Mapping[str, list[Row]]
    metrics: Mapping[str, list[Row]]
    changed: Mapping[str, list[Row]]

    @property
    def base(self) -> str:
        return next(iter(self.runs))

    def how(self, name: str) -> str:
        if any(row["p"] is None for row in self.tests[name]):
            return f"Percentage points; bold: the 95% interval over problems excludes 0. {compare.SEQUENTIAL}"
        return f"Percentage points; bold: the 95% interval of {self.iterations} subsamples of m = {self.m} excludes 0."

    def paper(self) -> str:
        return (
            f"pass@{self.ks[0]} / pass@{self.ks[-1]} in percent; bold: better than the other run of the pair, where "
            "the 95% interval of their difference excludes 0 (subsampling; over problems for sequential runs)."
        )

    def changes(self, name: str) -> str:
        lost = sum(row["change"] == "lost" for row in self.changed[name])
        return (
            f"Solved at least once by {self.base} and never by {name} (lost): {lost}; the reverse (gained): "
            f"{len(self.changed[name]) - lost}."
        )


def compared(
    runs: Mapping[str, RunData],
    ks: Sequence[int],
    m: int = 256,
    iterations: int = 50_000,
    seed: int = 0,
    taus: Sequence[float] = TAUS,
) -> Comparison:
    """Compare the first run with each other one; see `compare.compare_runs` for ks, m, iterations and seed."""
    counts = {name: run.counts() for name, run in runs.items()}
    base, *others = counts
    if not others:
        raise ValueError("at least two runs are needed")
    ks = sorted(set(ks))
    return Comparison(
        runs,
        ks,
        m,
        iterations,
        seed,
        {name: compare.compare_runs(counts[base], counts[name], ks, m, iterations, seed=seed) for name in others},
        {name: compare.compare_metrics(runs[base], runs[name], taus, seed=seed) for name in others},
        {name: compare.changed_problems(counts[base], counts[name]) for name in others},
    )


def write_comparison(result: Comparison, out: Path, curves: Mapping[str, RunData], title: str = "") -> list[Path]:
    """Write compare.md, .csv, .json and pass_at_k.png, .svg of `curves` (the runs, and more for the figure only)."""
    settings = compare.settings_rows(result.runs)
    ends = result.ks[0], result.ks[-1]
    text = [first_line(result.runs), "# Comparison\n", result.paper() + "\n"]
    text.append(markdown_table(*compare.paper_cells(result.base, result.tests, *ends)))
    for name, rows in result.tests.items():
        text += [f"\n## {markdown_escape(name)} against {markdown_escape(result.base)}\n", result.how(name) + "\n"]
        text += [compare.comparison_markdown(rows), "\nBeside pass@k:\n"]
        text += [
            markdown_table(*compare.metrics_cells(result.metrics[name])),
            f"\n{markdown_escape(result.changes(name))}\n",
        ]
        if changed := result.changed[name]:
            text.append(markdown_table(*plain_cells(changed[:SHOWN])))
    text += [f"\n## Settings\n\nBold: different, and not the model's. {markdown_escape(readings(result.runs))}\n"]
    text.append(markdown_table(*compare.settings_cells(settings, list(result.runs))))
    flat = [{"run": name, "against": result.base, **row} for name, rows in result.tests.items() for row in rows]
    stored = {
        "metrics": result.metrics,
        "changed": result.changed,
        "settings": settings,
        "test": {"ks": result.ks, "m": result.m, "iterations": result.iterations, "seed": result.seed},
        "shortfall": {name: run.shortfall() for name, run in result.runs.items()},
    }
    paths = write_table(flat, out / "compare", "\n".join(text), **stored)
    return paths + plot_pass_at_k(
        pass_at_k_rows({name: run.counts() for name, run in curves.items()}), out / "pass_at_k", title
    )


def write_page(result: Comparison, folders: Mapping[str, Path], svg: Path, file: Path, title: str = "") -> None:
    """Write the comparison as one HTML file, with samples of the problems that were gained or lost."""
    ends = result.ks[0], result.ks[-1]
    sections = [
        html.section(
            "Result",
            f"<p>{html.text(result.paper())}</p>{html.table(*compare.paper_cells(result.base, result.tests, *ends))}"
            + html.figure(svg, "pass@k against k with 95% intervals"),
        )
    ]
    problems = html.read_problems(folders[result.base])
    for number, (name, rows) in enumerate(result.tests.items()):
        tables = html.table(*compare.comparison_cells(rows)) + html.table(*compare.metrics_cells(result.metrics[name]))
        sections.append(html.section(f"{name} against {result.base}", f"<p>{html.text(result.how(name))}</p>{tables}"))
        changed = result.changed[name]
        keys = [(row["benchmark"], row["problem_id"]) for row in changed]
        pair = (result.base, name)
        excerpts = [html.read_excerpts(folders[run], result.runs[run], keys) for run in pair]
        sections.append(html.changed_section(changed, pair, problems, excerpts, result.changes(name), number))
    settings = compare.settings_cells(compare.settings_rows(result.runs), list(result.runs))
    told = f"Bold: different, and not the model's. {readings(result.runs)}"
    sections.append(html.section("Settings", f"<p>{html.text(told)}</p>{html.table(*settings)}"))
    about: dict[str, Any] = {
        name: {"sampling": run.sampling, "grading": run.grading} for name, run in result.runs.items()
    }
    about["test"] = {"ks": list(result.ks), "m": result.m, "iterations": result.iterations, "seed": result.seed}
    write_atomic(file, html.page(title or f"Comparison with {result.base}", shortfall(result.runs), sections, about))
