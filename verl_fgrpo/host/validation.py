"""Unbiased pass@k of a run's validations, from verl's dumps: a table, and RUN/passk.csv.

    verl-fgrpo val-passk RUN                          also a folder of STEP.jsonl (trainer.validation_data_dir)
    verl-fgrpo val-passk RUN --val-file val.parquet   tells the benchmarks apart

For runs made without this plugin; with it the same numbers are in verl's own log as val-passk/BENCHMARK/pass@K. There
a session that failed counts as wrong. It leaves no row in a dump, so here k ends at the smallest number of samples.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.core.dumps import final_rows, find_dumps, read_whole
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.sources import PromptSources, run_files
from verl_fgrpo.core.tables import csv_text, markdown_table
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.report import pass_at_k_rows, pass_cells
from verl_fgrpo.host.val_metrics import AVERAGE

COLUMNS = ("step", "benchmark", "k", "pass_at_k", "low", "high", "problems", "samples")
Row = dict[str, Any]


def read_counts(path: Path, benchmarks: PromptSources | None = None, threshold: float = 0.5) -> ProblemCounts:
    """Samples and correct samples per problem of one validation.

    verl gives each row of the validation file a fresh uid at each validation: a group is one problem. Problem ids are
    derived from prompt and gold answer, so they are the same at every step.

    Args:
        path: STEP.jsonl.
        benchmarks: of the validation file. Without it the benchmark is the sample's own `data_source` if the reward
            function put one there, else "all".
        threshold: a score above it is correct, where there is no `acc`.

    Raises:
        CutLineError, ValueError: as `core.dumps.final_rows`; a prompt of no benchmark.
    """
    correct: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    homes: dict[tuple[str, str], tuple[str, str]] = {}
    seen: Counter[str] = Counter()
    for row in final_rows(path):
        problem = row.problem_id
        group = (row.group, problem)
        if group not in homes:
            own = [row.data_source or "all"] if benchmarks is None else benchmarks.of(row.input, row.gts)
            turn, seen[problem] = seen[problem], seen[problem] + 1
            # A problem of several benchmarks has a group for each, in any order.
            homes[group] = (own[turn % len(own)], problem if turn == 0 else f"{problem}-{turn}")
        correct[homes[group]].append(row.is_correct(threshold))
    names, ids = zip(*correct, strict=True)
    counts = correct.values()
    return ProblemCounts.of([len(samples) for samples in counts], [sum(samples) for samples in counts], ids, names)


def pass_at_k_of(step: int, counts: ProblemCounts) -> list[Row]:
    """pass@k of one validation for k = 1, 2, 4, ... up to the smallest number of samples of the benchmark.

    `low` and `high` are a 95% interval over problems (bootstrap). With several benchmarks there is also the benchmark
    `AVERAGE`, their unweighted mean, for each k that all of them have.
    """
    rows = [
        {"step": step, "benchmark": row["benchmark"], "k": row["k"], "pass_at_k": row["value"]}
        | {name: row[name] for name in ("low", "high", "problems", "samples")}
        for row in pass_at_k_rows({str(step): counts})
    ]
    names = counts.benchmark_names
    for k in sorted({row["k"] for row in rows}) if len(names) > 1 else ():
        values = [row["pass_at_k"] for row in rows if row["k"] == k]
        if len(values) == len(names):
            mean = {"step": step, "benchmark": AVERAGE, "k": k, "pass_at_k": sum(values) / len(values)}
            sizes = {"problems": len(counts.problem_ids), "samples": int(min(counts.num_samples))}
            rows.append(mean | {"low": None, "high": None} | sizes)
    return rows


def summary(rows: Sequence[Row]) -> str:
    """Markdown: a line per step and benchmark, pass@k in percent."""
    index = ("step", "benchmark")
    values = [{**{name: row[name] for name in (*index, "k")}, "value": row["pass_at_k"]} for row in rows]
    return markdown_table(*pass_cells(values, index))


def main(arguments: Sequence[str]) -> int:
    """Print the table, after a line about steps left out if there are such, and write the CSV."""
    parser = command_parser("val-passk", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run, or of its validation dumps")
    parser.add_argument("--val-file", type=Path, nargs="+", help="parquet validated on; default: RUN/config.yaml")
    parser.add_argument("--threshold", type=float, default=0.5, help="a score above it is correct, without acc (0.5)")
    parser.add_argument("--csv", type=Path, help="default RUN/passk.csv")
    given = parser.parse_args(arguments)
    dumps = find_dumps(given.run, "validation")
    files = given.val_file or run_files(given.run, "data.val_files")
    benchmarks = PromptSources.of_files(files) if files else None
    if benchmarks is None:
        print("note: without --val-file the benchmarks are those that the reward function noted", file=sys.stderr)
    rows = []
    found = read_whole(dumps, lambda path: read_counts(path, benchmarks, given.threshold))
    if left_out := sorted({*dumps} - {*found}):
        print(f"Left out, for their dumps are not whole: steps {', '.join(map(str, left_out))}.\n")
    for step, counts in found.items():
        if (short := int(min(counts.num_samples))) < (full := int(max(counts.num_samples))):
            fewer = int((counts.num_samples < full).sum())
            print(
                f"note: step {step}: {fewer} of {len(counts.problem_ids)} problems have fewer than {full} samples, the "
                f"fewest {short}, and k goes no further",
                file=sys.stderr,
            )
        rows += pass_at_k_of(step, counts)
    csv = given.csv or given.run / "passk.csv"
    write_atomic(csv, csv_text(rows, COLUMNS))
    print(f"pass@k in percent, unbiased; with intervals in {csv}\n\n{summary(rows)}", end="")
    return 0
