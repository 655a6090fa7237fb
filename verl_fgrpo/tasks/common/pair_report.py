"""One training run against another: pass@k, both paired tests, problems lost and gained, training curves.

report.md, pass_at_k.{md,csv,json,png,svg}, training.{...}, tests.{md,csv,json}, changed.{md,csv,json}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.passk import powers_of_two
from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.evaluation.compare import changed_problems, compare_runs, comparison_cells
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.report import Row, pass_at_k_rows, pass_cells, plot_pass_at_k, plot_training_curve
from verl_fgrpo.tasks.common.experiment import START, Checkpoint

PARAGRAPH = """\
{focal} against {base}, differences in percentage points. Paired subsampling test (m = {m} of {n} samples, 50,000
rounds): would other samples of these two models say the same? Bootstrap over problems: would other problems? There is
one training run each: neither covers the randomness of training.
"""


def write_pair_report(
    counts: Mapping[Checkpoint, ProblemCounts], folder: Path, base: str, focal: str, m: int, settings: str
) -> str:
    """Tables, tests and figures of the final checkpoints and of the training curves.

    Args:
        counts: of the start model and every checkpoint of both runs; the last step of a run is its result.
        folder: where the report goes.
        base, focal: names of the runs.
        m: subsample size of the paired test, and the largest k.
        settings: what to note about the runs.

    Returns:
        The report as Markdown; it is also in report.md.
    """
    last = {point.run: of_point for point, of_point in sorted(counts.items(), key=lambda item: item[0].step)}
    final = {run: last[run] for run in (START, base, focal)}
    n = int(min(min(of_run.num_samples) for of_run in final.values()))
    ks = [k for k in powers_of_two(n) if k <= m]
    rows = pass_at_k_rows(final, ks)
    table = markdown_table(*pass_cells(rows, ("run",)))
    write_table(rows, folder / "pass_at_k", table)
    at_k = {row["run"]: 100 * row["value"] for row in rows if row["k"] == ks[-1]}
    title = f"pass@{ks[-1]}: {at_k[START]:.1f} -> {at_k[base]:.1f} ({base}), {at_k[focal]:.1f} ({focal})"
    plot_pass_at_k(rows, folder / "pass_at_k", title)

    tests = compare_runs(final[base], final[focal], ks, m=m)
    test_table = markdown_table(*comparison_cells(tests))
    write_table(tests, folder / "tests", test_table, base=base, focal=focal)
    _write_curve(counts, folder, base, focal, sorted({1, ks[-1]}))
    parts = [
        f"# {final[base].benchmarks[0]}: {base} against {focal}",
        settings,
        f"{len(final[base].problem_ids)} held-out problems, {n} samples each. pass@k in percent, unbiased; intervals: "
        "bootstrap over problems, 95%.",
        table,
        PARAGRAPH.format(focal=focal, base=base, m=m, n=n),
        test_table,
        _changes(final[base], final[focal], folder, base, focal),
        _result(tests[-1], at_k[START], base, focal),
        "![pass@k](pass_at_k.png)",
        f"![pass@1 and pass@{ks[-1]} during training](training.png)",
    ]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    write_atomic(folder / "report.md", text)
    return text


def _write_curve(
    counts: Mapping[Checkpoint, ProblemCounts], folder: Path, base: str, focal: str, ks: Sequence[int]
) -> None:
    curve: list[Row] = []
    for point, of_point in counts.items():
        for run in (base, focal) if point.run == START else (point.run,):
            curve += [{"step": point.step, **row} for row in pass_at_k_rows({run: of_point}, ks)]
    # base first, so that it has the same colour in both figures
    curve.sort(key=lambda row: (row["run"] != base, row["step"], row["k"]))
    write_table(curve, folder / "training", markdown_table(*pass_cells(curve, ("run", "step"))))
    plot_training_curve(curve, folder / "training", "Held-out problems during training")


def _changes(base_counts: ProblemCounts, focal_counts: ProblemCounts, folder: Path, base: str, focal: str) -> str:
    """Problems that one run solves at least once and the other never."""
    changed = changed_problems(base_counts, focal_counts)
    header = ("change", "problem_id", "base_correct", "focal_correct")
    if changed:
        table = markdown_table(header, [[row[name] for name in header] for row in changed], left=2)
        write_table(changed, folder / "changed", table, base=base, focal=focal)
    gained = sum(row["change"] == "gained" for row in changed)
    return f"{focal} solves {gained} problems that {base} never solved and loses {len(changed) - gained} (changed.md)."


def _result(row: Row, start: float, base: str, focal: str) -> str:
    """One sentence that says what came out at the largest k."""
    if row["low"] > 0:
        finding = f"{focal} kept significantly more"
    elif row["high"] < 0:
        finding = f"{focal} kept significantly less"
    else:
        finding = f"the difference of {focal} is not significant"
    sharpened = f"pass@{row['k']} of {base} went from {start:.1f} (start model) to {100 * row['base']:.1f}"
    return f"Result: {sharpened}; {finding} ({100 * row['focal']:.1f}, p = {row['p']:.3g})."
