"""`verl-fgrpo eval compare`: paired tests of runs against a base run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.tables import markdown_escape, write_table
from verl_fgrpo.evaluation import compare
from verl_fgrpo.evaluation.metrics import TAUS
from verl_fgrpo.evaluation.report import pass_at_k_rows, plot_pass_at_k
from verl_fgrpo.evaluation.report_command import first_line, named_runs, plain_markdown, settings_markdown
from verl_fgrpo.evaluation.summary import RunData, load_run

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
    parser.set_defaults(run_command=_compare)


def _compare(options: argparse.Namespace) -> None:
    folders = named_runs([options.base, *options.focal])
    more = named_runs(options.extra)
    runs = {name: load_run(path) for name, path in folders.items()}
    settings = compare.settings_rows(runs)
    if not options.allow_different_settings:
        compare.refuse_different_settings(settings, list(runs))
    paths = write_comparison(
        runs,
        options.out,
        options.ks,
        options.m,
        options.iterations,
        options.seed,
        options.title,
        {name: load_run(path) for name, path in more.items()},
        options.taus,
    )
    print((options.out / "compare.md").read_text())
    for path in paths:
        print(path)


def write_comparison(
    runs: Mapping[str, RunData],
    out: Path,
    ks: Sequence[int],
    m: int = 256,
    iterations: int = 50_000,
    seed: int = 0,
    title: str = "",
    extra: Mapping[str, RunData] | None = None,
    taus: Sequence[float] = TAUS,
) -> list[Path]:
    """Compare the first run with each other one; writes compare.md, .csv, .json and pass_at_k.png, .svg.

    Args:
        runs: at least two; the first is the base.
        out: folder.
        ks, m, iterations, seed: see `compare.compare_runs`.
        title: of the figure.
        extra: more runs for the figure only (the start model), drawn first.
        taus: of cover@tau.
    """
    counts = {name: run.counts() for name, run in runs.items()}
    base_name, *others = counts
    if not others:
        raise ValueError("at least two runs are needed")
    ks = sorted(set(ks))
    settings = compare.settings_rows(runs)
    tests = {
        name: compare.compare_runs(counts[base_name], counts[name], ks, m, iterations, seed=seed) for name in others
    }
    metrics = {name: compare.compare_metrics(runs[base_name], runs[name], taus, seed=seed) for name in others}
    changed = {name: compare.changed_problems(counts[base_name], counts[name]) for name in others}
    text = [first_line(runs), "# Comparison\n", compare.paper_table(base_name, tests, ks[0], ks[-1])]
    for name, rows in tests.items():
        text += [
            f"\n## {markdown_escape(name)} against {markdown_escape(base_name)}\n",
            _intervals(rows, iterations, m),
        ]
        text += [compare.comparison_markdown(rows), "\nBeside pass@k:\n", compare.metrics_markdown(metrics[name])]
        text.append(_changed_markdown(changed[name], base_name, name))
    text += ["\n## Settings\n\nBold: different, and not the model's.\n", settings_markdown(settings, list(runs))]
    flat = [{"run": name, "against": base_name, **row} for name, rows in tests.items() for row in rows]
    stored = {
        "metrics": metrics,
        "changed": changed,
        "settings": settings,
        "test": {"ks": ks, "m": m, "iterations": iterations, "seed": seed},
    }
    paths = write_table(flat, out / "compare", "\n".join(text), **stored)
    curves = {**{name: run.counts() for name, run in (extra or {}).items()}, **counts}
    return paths + plot_pass_at_k(pass_at_k_rows(curves), out / "pass_at_k", title)


def _intervals(rows: Sequence[Mapping[str, Any]], iterations: int, m: int) -> str:
    if any(row["p"] is None for row in rows):
        return f"Percentage points; bold: the 95% interval over problems excludes 0. {compare.SEQUENTIAL}\n"
    return f"Percentage points; bold: the 95% interval of {iterations} subsamples of m = {m} excludes 0.\n"


def _changed_markdown(rows: Sequence[dict[str, Any]], base: str, name: str) -> str:
    lost = sum(row["change"] == "lost" for row in rows)
    text = (
        f"\nSolved at least once by {markdown_escape(base)} and never by {markdown_escape(name)} (lost): {lost}; the "
        f"reverse (gained): {len(rows) - lost}.\n"
    )
    return text + "\n" + plain_markdown(rows[:SHOWN]) if rows else text
