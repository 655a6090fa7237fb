"""`verl-fgrpo eval compare`: paired tests of runs against a base run."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import COUNT, DRAWS, SEED, shown_text
from verl_fgrpo.evaluation import compare, html
from verl_fgrpo.evaluation.metrics import TAUS, check_taus
from verl_fgrpo.evaluation.problems import load_problems
from verl_fgrpo.evaluation.report import pass_at_k_rows, plain_cells, plot_pass_at_k
from verl_fgrpo.evaluation.report_command import Part, named_runs, readings, write_page, write_parts
from verl_fgrpo.evaluation.summary import RunData, load_run

Row = dict[str, Any]
SHOWN = 40  # changed problems in Markdown; all are in the JSON file


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("compare", help="paired tests of runs against a base run")
    parser.add_argument("--base", required=True, metavar="NAME=RUN")
    parser.add_argument("--focal", nargs="+", required=True, metavar="NAME=RUN", help="runs to compare with it")
    parser.add_argument("--extra", nargs="*", default=[], metavar="NAME=RUN", help="more curves for the figure only")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--ks", type=COUNT, nargs="+", default=[1, 256], help="values of k (at most m); default 1 256")
    parser.add_argument("--m", type=COUNT, default=256, help="subsample size")
    parser.add_argument("--iterations", type=DRAWS, default=50_000)
    parser.add_argument("--taus", type=float, nargs="+", default=list(TAUS), help="success rates of cover@tau")
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--title", type=shown_text, default="")
    parser.add_argument("--allow-different-settings", action="store_true", help="of sampling or grading")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained HTML file")
    parser.set_defaults(run_command=_compare)


def _compare(options: argparse.Namespace) -> None:
    check_taus(options.taus)
    folders, more = named_runs([options.base, *options.focal]), named_runs(options.extra)
    runs = {name: load_run(path) for name, path in folders.items()}
    if not options.allow_different_settings:
        compare.refuse_different_settings(compare.settings_rows(runs), list(runs))
    extra = {name: load_run(path) for name, path in more.items()}
    test = {"ks": sorted(set(options.ks)), "m": options.m, "iterations": options.iterations, "seed": options.seed}
    paths = write_comparison(runs, folders, options.out, test, options.taus, extra, options.title, options.html)
    print((options.out / "compare.md").read_text())
    for path in paths:
        print(path)


def write_comparison(
    runs: Mapping[str, RunData],
    folders: Mapping[str, Path],
    out: Path,
    test: Mapping[str, Any],
    taus: Sequence[float] = TAUS,
    extra: Mapping[str, RunData] | None = None,
    title: str = "",
    html_file: Path | None = None,
) -> list[Path]:
    """Compare the first run with each other one: compare.md, .csv, .json and pass_at_k.png, .svg.

    With `html_file` also a page, with samples of the problems that were gained or lost.

    Args:
        test: ks (ascending), m, iterations and seed of `compare.compare_runs`.
        extra: more curves for the figure only.
    """
    counts = {name: run.counts() for name, run in runs.items()}
    base, *others = counts
    if not others:
        raise ValueError("at least two runs are needed")
    tests = {name: compare.compare_runs(counts[base], counts[name], **test) for name in others}
    metrics = {name: compare.compare_metrics(runs[base], runs[name], taus, seed=test["seed"]) for name in others}
    changes = {name: compare.changed_problems(counts[base], counts[name]) for name in others}
    low_k, high_k = test["ks"][0], test["ks"][-1]
    told = (
        f"pass@{low_k} / pass@{high_k} in percent; bold: better than the other run of the pair, where the 95% interval "
        f"of their difference excludes 0 (subsampling; over problems for sequential runs). {readings(runs)}"
    )
    parts = [Part("Comparison", told, [compare.paper_cells(base, tests, low_k, high_k)])]
    for number, name in enumerate(others):
        tables = [compare.comparison_cells(tests[name]), compare.metrics_cells(metrics[name])]
        parts.append(Part(f"{name} against {base}", _how(tests[name], test), tables))
        lists = _lists(changes[name], (base, name), runs, folders, number) if html_file is not None else None
        parts.append(_changed_part(changes[name], base, name, lists))
    rows = [{"run": name, "against": base, **row} for name in others for row in tests[name]]
    paths = write_parts(parts, runs, rows, out / "compare", metrics=metrics, changed=changes, test=test)
    curves = {**{name: run.counts() for name, run in (extra or {}).items()}, **counts}
    paths += plot_pass_at_k(pass_at_k_rows(curves), out / "pass_at_k", title)
    if html_file is not None:
        title = title or f"Comparison with {base}"
        paths.append(write_page(parts, runs, html_file, title, out / "pass_at_k.svg", test=test))
    return paths


def _changed_part(changed: Sequence[Row], base: str, name: str, shown: str | None) -> Part:
    lost = sum(row["change"] == "lost" for row in changed)
    gained = len(changed) - lost
    told = f"Solved at least once by {base} and never by {name} (lost): {lost}; the reverse (gained): {gained}."
    tables = [plain_cells(changed[:SHOWN])] if changed else []
    return Part(f"Problems that {name} gained or lost against {base}", told, tables, shown)


def _lists(
    changed: Sequence[Row],
    names: tuple[str, str],
    runs: Mapping[str, RunData],
    folders: Mapping[str, Path],
    number: int,
) -> str:
    """The changed problems with samples of both runs, HTML."""
    keys = [(row["benchmark"], row["problem_id"]) for row in changed]
    excerpts = [html.read_excerpts(folders[name], runs[name], keys) for name in names]
    problems = {problem.key: problem for problem in load_problems([folders[names[0]] / "problems.jsonl"])}
    return html.changed_problems(changed, names, problems, excerpts, number)


def _how(rows: Sequence[Row], test: Mapping[str, Any]) -> str:
    if any(row["p"] is None for row in rows):
        return f"Percentage points; bold: the 95% interval over problems excludes 0. {compare.SEQUENTIAL}"
    iterations, m = test["iterations"], test["m"]
    return f"Percentage points; bold: the 95% interval of {iterations} subsamples of m = {m} excludes 0."
