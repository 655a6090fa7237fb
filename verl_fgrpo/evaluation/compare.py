"""Paired comparison of runs on the same problems: both tests, the metrics beside pass@k, lost and gained problems."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.evaluation.benchmarks import BLOCKS, block_of
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.metrics import TAUS, common_k, problem_metrics
from verl_fgrpo.evaluation.report import Cells
from verl_fgrpo.evaluation.significance import (
    BootstrapResult,
    SubsampleTest,
    bootstrap_columns,
    problem_weights,
    subsample_tests,
)
from verl_fgrpo.evaluation.summary import RunData

Row = dict[str, Any]

#: what may differ between two runs that are compared: it says which model was sampled and when, or names no setting
MODEL_SETTINGS = (
    *("model", "weights", "revision", "run", "step", "seed"),
    *("imported", "sha256", "server_root", "dtype", "backend"),
)
SEQUENTIAL = (
    "The m-out-of-n subsampling test needs a number of samples fixed in advance; a run with --stop-after-correct has "
    "none, so its intervals are those of the bootstrap over problems alone."
)


def compare_runs(
    base: ProblemCounts,
    focal: ProblemCounts,
    ks: Sequence[int],
    m: int = 256,
    iterations: int = 50_000,
    bootstrap_iterations: int = 10_000,
    seed: int = 0,
) -> list[Row]:
    """Both paired tests for every benchmark, block average and k; the bootstrap alone if a run is sequential.

    Args:
        base, focal: the same problems (in any order).
        ks: values of k, at most m.
        m, iterations: of the subsampling test (arXiv 2602.06717, L.4: 256 and 50,000).
        bootstrap_iterations: of the other one.
        seed: of both; every benchmark starts from it.

    Returns:
        Rows with benchmark, k, base, focal, difference, low, high, p (subsampling; None if a run is sequential),
        boot_low, boot_high, boot_p, significant (the subsampling interval excludes 0; else the bootstrap's), problems.

    Raises:
        ValueError: the runs do not have the same problems; m above n; k above m.
    """
    base, focal = _aligned(base, focal)
    rows = []
    for name, chosen, groups in _parts(base):
        one, other = base.at(chosen), focal.at(chosen)
        tests: dict[int, SubsampleTest] = {}
        if base.stop_after_correct is None and focal.stop_after_correct is None:
            tests = subsample_tests(
                one.num_correct,
                other.num_correct,
                one.num_samples,
                ks,
                m,
                iterations,
                seed,
                focal_num_samples=other.num_samples,
                groups=groups,
            )
        values, others = (np.stack([part.pass_at_k(k) for k in ks], axis=1) for part in (one, other))
        boots = bootstrap_columns(values, others, bootstrap_iterations, seed, groups=groups)
        weights = problem_weights(len(values), groups)
        for k, boot, before, after in zip(ks, boots, weights @ values, weights @ others, strict=True):
            row = {"benchmark": name, "k": k, "base": float(before), "focal": float(after)}
            if (test := tests.get(k)) is None:
                significant = boot.interval[0] > 0 or boot.interval[1] < 0
                row |= {"difference": boot.estimate, "low": None, "high": None, "p": None}
            else:
                significant = test.significant
                low, high = test.interval
                row |= {"difference": test.difference, "low": low, "high": high, "p": test.p_value}
            rows.append({**row, **_boot(boot), "significant": significant, "problems": len(values)})
    return rows


def _boot(boot: BootstrapResult) -> Row:
    return {"boot_low": boot.interval[0], "boot_high": boot.interval[1], "boot_p": boot.p_value}


def compare_metrics(
    base: RunData,
    focal: RunData,
    taus: Sequence[float] = TAUS,
    iterations: int = 10_000,
    seed: int = 0,
) -> list[Row]:
    """The metrics beside pass@k of both runs with paired intervals from a bootstrap over problems.

    Returns:
        Rows with benchmark, metric, base, focal, difference, boot_low, boot_high, boot_p, bias, percent.
    """
    rows = []
    for benchmark in base.counts().benchmark_names:
        max_k, k = common_k([base, focal], benchmark)
        sides = [problem_metrics(run, benchmark, max_k, k, taus, seed) for run in (base, focal)]
        order = {key: position for position, key in enumerate(focal.counted(benchmark))}
        positions = [order[key] for key in base.counted(benchmark)]
        names = [name for name in sides[0] if name in sides[1]]
        values = np.stack([sides[0][name].values for name in names], axis=1)
        others = np.stack([sides[1][name].values[positions] for name in names], axis=1)
        for name, boot, before, after in zip(
            names, bootstrap_columns(values, others, iterations, seed), values.T, others.T, strict=True
        ):
            row = {"benchmark": benchmark, "metric": name, "base": float(before.mean()), "focal": float(after.mean())}
            kind = {"bias": sides[0][name].bias, "percent": sides[0][name].percent}
            rows.append({**row, "difference": boot.estimate, **_boot(boot), **kind})
    return rows


def changed_problems(base: ProblemCounts, focal: ProblemCounts) -> list[Row]:
    """Problems solved at least once by one run and never by the other: change "lost" or "gained", counts of both."""
    base, focal = _aligned(base, focal)
    rows = []
    for index, (benchmark, problem_id) in enumerate(zip(base.benchmarks, base.problem_ids, strict=True)):
        before, after = int(base.num_correct[index]), int(focal.num_correct[index])
        if (before == 0) != (after == 0):
            change = "gained" if before == 0 else "lost"
            row: Row = {"change": change, "benchmark": benchmark, "problem_id": problem_id}
            row |= {"base_correct": before, "base_samples": int(base.num_samples[index])}
            row |= {"focal_correct": after, "focal_samples": int(focal.num_samples[index])}
            rows.append(row)
    return sorted(
        rows, key=lambda row: (row["change"], row["benchmark"], -max(row["base_correct"], row["focal_correct"]))
    )


def settings_rows(runs: Mapping[str, RunData]) -> list[Row]:
    """Settings of sampling and of grading, one row each: group, setting, the value of every run, comparable.

    comparable is False where runs differ in something else than the model: temperature, token limit, prompts, grader.
    Where a run holds samples made elsewhere its sampling settings are unknown, and say so.
    """
    rows = []
    for group in ("sampling", "grading"):
        kept = {name: _flat(getattr(data, group)) for name, data in runs.items()}
        for setting in sorted({key for values in kept.values() for key in values}):
            values = {name: values.get(setting, "unknown") for name, values in kept.items()}
            free = group == "sampling" and setting.split(".")[0] in MODEL_SETTINGS
            same = len(set(values.values())) == 1
            rows.append({"group": group, "setting": setting, **values, "comparable": free or same})
    first = next(iter(runs.values())).asked
    for name, data in runs.items():
        if other := [key for key, problem in data.asked.items() if first.get(key, problem) != problem]:
            told = f"{len(other)} of them with another prompt, kind or gold answer ({'/'.join(other[0])}, ...)"
            values = {one: told if one == name else "these ids" for one in runs}
            rows.append({"group": "sampling", "setting": "problems", **values, "comparable": False})
    asked = {name: _asked(data) for name, data in runs.items()}
    return [*rows, {"group": "sampling", "setting": "samples per problem", **asked, "comparable": True}]


def refuse_different_settings(rows: Sequence[Row], names: Sequence[str]) -> None:
    """ValueError where runs cannot be compared as they are."""
    different = [row for row in rows if not row["comparable"]]
    if different:
        told = "; ".join(
            f"{row['group']} {row['setting']}: " + ", ".join(f"{name} has {row[name]}" for name in names)
            for row in different
        )
        raise ValueError(
            f"the runs were made with different settings ({told}): a difference between them need not come from the "
            "models. Sample or grade them alike, or give --allow-different-settings"
        )


def settings_cells(rows: Sequence[Row], names: Sequence[str]) -> Cells:
    """Table of `settings_rows`; bold where runs differ in more than the model."""
    lines: list[list[object]] = []
    for row in rows:
        values = [row[name] if row["comparable"] else f"**{row[name]}**" for name in names]
        lines.append([row["group"], row["setting"], *values])
    return ["of", "setting", *names], lines, 2 + len(names)


def paper_cells(base_name: str, comparisons: Mapping[str, Sequence[Row]], low_k: int, high_k: int) -> Cells:
    """Table in the paper's form "pass@1 / pass@256"; a significantly better number is bold, against the base.

    `comparisons` has the rows of `compare_runs` by the name of the other run.
    """
    first = next(iter(comparisons.values()))
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in first))
    only = len(comparisons) == 1
    lines: list[list[object]] = [[base_name, *(_pair(first, name, low_k, high_k, "base", only) for name in benchmarks)]]
    for run, rows in comparisons.items():
        lines.append([run, *(_pair(rows, name, low_k, high_k, "focal", True) for name in benchmarks)])
    return ["run", *benchmarks], lines, 1


def comparison_cells(rows: Sequence[Row]) -> Cells:
    """Table of `compare_runs`: differences in percentage points, with both intervals and p values."""
    lines: list[list[object]] = []
    for row in rows:
        difference = f"{100 * row['difference']:+.1f}"
        shown = [f"{100 * row['base']:.1f}", f"{100 * row['focal']:.1f}"]
        shown.append(f"**{difference}**" if row["significant"] else difference)
        shown += [_signed(row["low"], row["high"], 100), "-" if row["p"] is None else f"{row['p']:.2g}"]
        shown += [_signed(row["boot_low"], row["boot_high"], 100), f"{row['boot_p']:.2g}"]
        lines.append([row["benchmark"], row["k"], *shown])
    columns = ("base", "focal", "difference", "95% subsampling", "p", "95% bootstrap over problems", "p")
    return ["benchmark", "k", *columns], lines, 1


def metrics_cells(rows: Sequence[Row]) -> Cells:
    """Table of `compare_metrics`."""
    lines: list[list[object]] = []
    for row in rows:
        scale, digits = (100, 1) if row["percent"] else (1, 2)
        name = f"{row['metric']} (%)" if row["percent"] else row["metric"]
        shown = [f"{scale * row[side]:.{digits}f}" for side in ("base", "focal")]
        shown += [f"{scale * row['difference']:+.{digits}f}"]
        shown += [_signed(row["boot_low"], row["boot_high"], scale, digits), f"{row['boot_p']:.2g}"]
        lines.append([row["benchmark"], name, row["bias"], *shown])
    columns = ("base", "focal", "difference", "95% bootstrap over problems", "p")
    return ["benchmark", "metric", "estimate", *columns], lines, 3


def _signed(low: float | None, high: float | None, scale: int, digits: int = 1) -> str:
    return "-" if low is None or high is None else f"[{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"


def _pair(rows: Sequence[Row], benchmark: str, low_k: int, high_k: int, side: str, mark: bool) -> str:
    texts = []
    for k in (low_k, high_k):
        row = next(row for row in rows if row["benchmark"] == benchmark and row["k"] == k)
        text = f"{100 * row[side]:.1f}"
        better = row["difference"] > 0 if side == "focal" else row["difference"] < 0
        texts.append(f"**{text}**" if mark and row["significant"] and better else text)
    return " / ".join(texts)


def _parts(counts: ProblemCounts) -> list[tuple[str, NDArray[np.int64], NDArray[np.str_] | None]]:
    """(name, positions, benchmark of each position for a mean over benchmarks): benchmarks, then blocks of several."""
    names = np.array(counts.benchmarks)
    parts: list[tuple[str, NDArray[np.int64], NDArray[np.str_] | None]] = [
        (name, np.flatnonzero(names == name), None) for name in counts.benchmark_names
    ]
    for block in BLOCKS:
        members = [name for name in counts.benchmark_names if block_of(name) == block]
        if len(members) > 1:
            chosen = np.flatnonzero(np.isin(names, members))
            parts.append((f"avg {block} of {', '.join(members)}", chosen, names[chosen]))
    return parts


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
    return base, focal.at([position[key] for key in base_keys])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"versions.sympy": "1.13", ...}: nested settings under dotted names, as text."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": str(value)})
    return flat


def _asked(data: RunData) -> str:
    if data.num_samples is None:
        return "unknown"
    rule = f"until {data.stop_after_correct} correct, at most " if data.stop_after_correct else ""
    return f"{rule}{data.num_samples}"
