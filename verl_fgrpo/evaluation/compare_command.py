"""`verl-fgrpo eval compare`: paired tests of runs against a base run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.compare import changed_problems, compare_runs, comparison_markdown, paper_table
from verl_fgrpo.evaluation.report import pass_at_k_rows, plot_pass_at_k, write_table
from verl_fgrpo.evaluation.report_command import named_runs, plain_markdown
from verl_fgrpo.evaluation.summary import RunData, load_run


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--title", default="")
    parser.set_defaults(run_command=_compare)


def _compare(options: argparse.Namespace) -> None:
    (base_name, base_path), *_ = named_runs([options.base]).items()
    runs = {base_name: load_run(base_path / "verdicts", base_path / "samples")}
    for name, path in named_runs(options.focal).items():
        runs[name] = load_run(path / "verdicts", path / "samples")
    extra = {name: load_run(path / "verdicts", path / "samples") for name, path in named_runs(options.extra).items()}
    paths = write_comparison(
        runs, options.out, options.ks, options.m, options.iterations, options.seed, options.title, extra
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
) -> list[Path]:
    """Compare the first run with each other one; writes compare.md, .csv, .json and pass_at_k.png, .svg.

    Args:
        runs: at least two; the first is the base.
        out: folder.
        ks, m, iterations, seed: see `compare.compare_runs`.
        title: of the figure.
        extra: more runs for the figure only (the start model), drawn first.
    """
    counts = {name: run.counts() for name, run in runs.items()}
    base_name, *others = counts
    if not others:
        raise ValueError("at least two runs are needed")
    ks = sorted(set(ks))
    comparisons = {name: compare_runs(counts[base_name], counts[name], ks, m, iterations, seed=seed) for name in others}
    text = ["# Comparison\n", paper_table(base_name, comparisons, ks[0], ks[-1])]
    changed = {}
    for name, rows in comparisons.items():
        changed[name] = changed_problems(counts[base_name], counts[name])
        lost = sum(row["change"] == "lost" for row in changed[name])
        text += [
            f"\n## {name} against {base_name}\n",
            f"Percentage points; bold: the 95% interval of {iterations} subsamples of m = {m} excludes 0.\n",
            comparison_markdown(rows),
            f"\nSolved at least once by {base_name} and never by {name} (lost): {lost}; the reverse (gained): "
            f"{len(changed[name]) - lost}.\n",
        ]
        if changed[name]:
            text.append(plain_markdown(changed[name][:40]))
    flat = [{"run": name, "against": base_name, **row} for name, rows in comparisons.items() for row in rows]
    settings = {"ks": ks, "m": m, "iterations": iterations, "seed": seed}
    paths = write_table(flat, out / "compare", "\n".join(text), changed=changed, test=settings)
    curves = {**{name: run.counts() for name, run in (extra or {}).items()}, **counts}
    return paths + plot_pass_at_k(pass_at_k_rows(curves), out / "pass_at_k", title)
