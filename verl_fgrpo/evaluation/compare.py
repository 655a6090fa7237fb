"""Paired comparison of runs on the same problems: tables of both tests, lost and gained problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.evaluation.benchmarks import BENCHMARKS
from verl_fgrpo.evaluation.report import ProblemCounts
from verl_fgrpo.evaluation.significance import bootstrap_over_problems, subsample_tests

__all__ = ["changed_problems", "compare_runs", "comparison_markdown", "paper_table"]

Row = dict[str, Any]


def compare_runs(
    base: ProblemCounts,
    focal: ProblemCounts,
    ks: Sequence[int],
    m: int = 256,
    iterations: int = 50_000,
    bootstrap_iterations: int = 10_000,
    seed: int = 0,
) -> list[Row]:
    """Both paired tests for every benchmark, block average and k.

    Args:
        base, focal: the same problems (in any order).
        ks: values of k, at most m.
        m, iterations: of the subsampling test (arXiv 2602.06717, L.4: 256 and 50,000).
        bootstrap_iterations: of the bootstrap over problems.
        seed: of both; every benchmark starts from it.

    Returns:
        Rows with benchmark, k, base, focal, difference, low, high, p (subsampling), boot_low, boot_high, boot_p,
        significant (the subsampling interval excludes 0), problems.

    Raises:
        ValueError: the runs do not have the same problems; m above n; k above m.
    """
    base, focal = _aligned(base, focal)
    names = np.array(base.benchmarks)
    parts: list[tuple[str, NDArray[np.bool_], NDArray[np.str_] | None]] = [
        (name, names == name, None) for name in base.benchmark_names
    ]
    for block in ("math", "ood"):
        members = [name for name in base.benchmark_names if name in BENCHMARKS and BENCHMARKS[name].block == block]
        if len(members) > 1:
            chosen = np.isin(names, members)
            parts.append((f"avg {block} of {', '.join(members)}", chosen, names[chosen]))
    rows = []
    for name, chosen, groups in parts:
        tests = subsample_tests(
            base.num_correct[chosen],
            focal.num_correct[chosen],
            base.num_samples[chosen],
            ks,
            m=m,
            iterations=iterations,
            rng=seed,
            focal_num_samples=focal.num_samples[chosen],
            groups=groups,
        )
        for k, test in tests.items():
            boot = bootstrap_over_problems(
                pass_at_k(base.num_samples[chosen], base.num_correct[chosen], k),
                pass_at_k(focal.num_samples[chosen], focal.num_correct[chosen], k),
                iterations=bootstrap_iterations,
                rng=seed,
                groups=groups,
            )
            rows.append(
                {
                    "benchmark": name,
                    "k": k,
                    "base": test.base,
                    "focal": test.focal,
                    "difference": test.difference,
                    "low": test.interval[0],
                    "high": test.interval[1],
                    "p": test.p_value,
                    "boot_low": boot.interval[0],
                    "boot_high": boot.interval[1],
                    "boot_p": boot.p_value,
                    "significant": test.significant,
                    "problems": test.num_problems,
                }
            )
    return rows


def changed_problems(base: ProblemCounts, focal: ProblemCounts) -> list[Row]:
    """Problems solved at least once by one run and never by the other: change "lost" or "gained", counts of both."""
    base, focal = _aligned(base, focal)
    rows = []
    for index, (benchmark, problem_id) in enumerate(zip(base.benchmarks, base.problem_ids, strict=True)):
        before, after = int(base.num_correct[index]), int(focal.num_correct[index])
        if (before == 0) != (after == 0):
            rows.append(
                {
                    "change": "gained" if before == 0 else "lost",
                    "benchmark": benchmark,
                    "problem_id": problem_id,
                    "base_correct": before,
                    "base_samples": int(base.num_samples[index]),
                    "focal_correct": after,
                    "focal_samples": int(focal.num_samples[index]),
                }
            )
    return sorted(
        rows, key=lambda row: (row["change"], row["benchmark"], -max(row["base_correct"], row["focal_correct"]))
    )


def paper_table(base_name: str, comparisons: Mapping[str, Sequence[Row]], low_k: int, high_k: int) -> str:
    """Markdown in the paper's form "pass@1 / pass@256"; a significantly better number is underlined, against the base.

    Args:
        base_name: the run all others are compared with.
        comparisons: run name -> rows of `compare_runs`.
        low_k, high_k: the two values of k of a cell.
    """
    first = next(iter(comparisons.values()))
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in first))
    lines = [
        f"pass@{low_k} / pass@{high_k} in percent; underlined: better than the other run of the pair, 95% subsampling "
        f"interval of the difference from {base_name} excludes 0.",
        "",
        "| run | " + " | ".join(benchmarks) + " |",
        "| --- |" + " ---: |" * len(benchmarks),
    ]
    only = len(comparisons) == 1
    cells = [_cell(first, name, low_k, high_k, "base", mark=only) for name in benchmarks]
    lines.append(f"| {base_name} | " + " | ".join(cells) + " |")
    for run, rows in comparisons.items():
        cells = [_cell(rows, name, low_k, high_k, "focal", mark=True) for name in benchmarks]
        lines.append(f"| {run} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comparison_markdown(rows: Sequence[Row]) -> str:
    """Markdown of `compare_runs`: differences in percentage points, with both intervals and p values."""
    lines = [
        "| benchmark | k | base | focal | difference | 95% subsampling | p | 95% bootstrap over problems | p |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for row in rows:
        difference = f"{100 * row['difference']:+.1f}"
        lines.append(
            f"| {row['benchmark']} | {row['k']} | {100 * row['base']:.1f} | {100 * row['focal']:.1f} "
            f"| {'**' + difference + '**' if row['significant'] else difference} "
            f"| [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}] | {row['p']:.2g} "
            f"| [{100 * row['boot_low']:+.1f}, {100 * row['boot_high']:+.1f}] | {row['boot_p']:.2g} |"
        )
    return "\n".join(lines) + "\n"


def _cell(rows: Sequence[Row], benchmark: str, low_k: int, high_k: int, side: str, mark: bool) -> str:
    texts = []
    for k in (low_k, high_k):
        row = next(row for row in rows if row["benchmark"] == benchmark and row["k"] == k)
        text = f"{100 * row[side]:.1f}"
        better = row["difference"] > 0 if side == "focal" else row["difference"] < 0
        texts.append(f"<u>{text}</u>" if mark and row["significant"] and better else text)
    return " / ".join(texts)


def _aligned(base: ProblemCounts, focal: ProblemCounts) -> tuple[ProblemCounts, ProblemCounts]:
    """Both in the order of `base`; ValueError unless they have the same problems."""
    base_keys = list(zip(base.benchmarks, base.problem_ids, strict=True))
    position = {key: index for index, key in enumerate(zip(focal.benchmarks, focal.problem_ids, strict=True))}
    if set(base_keys) != set(position):
        only_base = sorted(set(base_keys) - set(position))[:3]
        only_focal = sorted(set(position) - set(base_keys))[:3]
        raise ValueError(
            f"the runs have different problems (only in the first: {only_base}, only in the second: {only_focal}); the "
            "tests are paired: sample and grade the same problems, or choose the common benchmarks"
        )
    order = [position[key] for key in base_keys]
    reordered = ProblemCounts(
        tuple(focal.problem_ids[index] for index in order),
        focal.num_samples[order],
        focal.num_correct[order],
        tuple(focal.benchmarks[index] for index in order),
    )
    return base, reordered
