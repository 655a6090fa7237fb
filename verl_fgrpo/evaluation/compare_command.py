"""`verl-fgrpo eval compare`: paired tests of runs against a base run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import COUNT, SEED
from verl_fgrpo.evaluation import compare, html
from verl_fgrpo.evaluation.metrics import TAUS, check_taus
from verl_fgrpo.evaluation.report import pass_at_k_rows, plain_cells, plot_pass_at_k
from verl_fgrpo.evaluation.report_command import Part, named_runs, readings, write_page, write_parts
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
    parser.add_argument("--ks", type=COUNT, nargs="+", default=[1, 256], help="values of k (at most m); default 1 256")
    parser.add_argument("--m", type=COUNT, default=256, help="subsample size")
    parser.add_argument("--iterations", type=COUNT, default=50_000)
    parser.add_argument("--taus", type=float, nargs="+", default=list(TAUS), help="success rates of cover@tau")
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--title", default="")
    parser.add_argument(
        "--allow-different-settings", action="store_true", help="compare runs sampled or graded in different ways"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained HTML file")
    parser.set_defaults(run_command=_compare)


def _compare(options: argparse.Namespace) -> None:
    check_taus(options.taus)
    folders = named_runs([options.base, *options.focal])
    more = named_runs(options.extra)
    runs = {name: load_run(path) for name, path in folders.items()}
    if not options.allow_different_settings:
        compare.refuse_different_settings(compare.settings_rows(runs), list(runs))
    result = compared(runs, options.ks, options.m, options.iterations, options.seed, options.taus)
    curves = {**{name: load_run(path) for name, path in more.items()}, **runs}
    paths = write_comparison(result, folders, options.out, curves, options.title, options.html)
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


def write_comparison(
    result: Comparison,
    folders: Mapping[str, Path],
    out: Path,
    curves: Mapping[str, RunData],
    title: str = "",
    html_file: Path | None = None,
) -> list[Path]:
    """Write compare.md, .csv, .json and pass_at_k.png, .svg of `curves` (the runs, and more for the figure only).

    With `html_file` also a page, with samples of the problems that were gained or lost.
    """
    runs, base = result.runs, result.base
    told = f"{result.paper()} {readings(runs)}"
    parts = [Part("Comparison", told, [compare.paper_cells(base, result.tests, result.ks[0], result.ks[-1])])]
    for number, (name, tests) in enumerate(result.tests.items()):
        tables = [compare.comparison_cells(tests), compare.metrics_cells(result.metrics[name])]
        parts.append(Part(f"{name} against {base}", result.how(name), tables))
        changed, shown = result.changed[name], None
        if html_file is not None:
            keys = [(row["benchmark"], row["problem_id"]) for row in changed]
            excerpts = [html.read_excerpts(folders[run], runs[run], keys) for run in (base, name)]
            problems = html.read_problems(folders[base])
            shown = html.changed_problems(changed, (base, name), problems, excerpts, number)
        tables = [plain_cells(changed[:SHOWN])] if changed else []
        parts.append(Part(f"Problems that {name} gained or lost against {base}", result.changes(name), tables, shown))
    rows = [{"run": name, "against": base, **row} for name, tests in result.tests.items() for row in tests]
    test = {"ks": list(result.ks), "m": result.m, "iterations": result.iterations, "seed": result.seed}
    stored = {"metrics": result.metrics, "changed": result.changed, "test": test}
    paths = write_parts(parts, runs, rows, out / "compare", **stored)
    counts = {name: run.counts() for name, run in curves.items()}
    paths += plot_pass_at_k(pass_at_k_rows(counts), out / "pass_at_k", title)
    if html_file is not None:
        title = title or f"Comparison with {base}"
        paths.append(write_page(parts, runs, html_file, title, out / "pass_at_k.svg", test=test))
    return paths
