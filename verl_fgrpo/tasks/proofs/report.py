"""The report of the proofs experiment: pass@k, distinct proofs, uplift by rank, proofs before and after.

RESULTS/report.md, methods.{md,csv,json,png,svg}, distinct.{md,csv,json}, uplift.{md,csv,json,png,svg},
unique.{csv,...,png,svg}, examples.{md,csv,json}
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.figures import COLOURS, figure_style, new_figure, save_figure
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.evaluation.compare import changed_problems
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.tasks.common.experiment import START
from verl_fgrpo.tasks.common.method_report import REFERENCE, method_rows, write_methods_report
from verl_fgrpo.tasks.common.seeds import over_seeds
from verl_fgrpo.tasks.proofs.diversity import RANKED_SAMPLES, moving_average, pick_examples, uplift_by_rank
from verl_fgrpo.tasks.proofs.language import to_lean
from verl_fgrpo.tasks.proofs.record import OWN_SETTINGS, ProofRun

BINS = ((1, 4), (5, 8), (9, 16), (17, 24), (25, 32))


def write_report(results: Mapping[int, Mapping[str, ProofRun]], report: Path, k: int) -> str:
    """Write all tables and figures of the folder `report`; returns report.md.

    Args:
        results: of `record.load_runs`, grpo among the methods.
        report: folder to write to.
        k: of pass@k beside 1.
    """
    first = next(iter(results.values()))
    methods = [method for method in first if method != START]
    settings = {name: value for name, value in first[REFERENCE].settings.items() if name not in OWN_SETTINGS}
    trained = ", ".join(f"{name} {value}" for name, value in settings.items() if value)
    counts = {seed: {method: run.counts for method, run in of_seed.items()} for seed, of_seed in results.items()}
    title = "Proofs: same start models and training budget"
    passk = write_methods_report(method_rows(counts, [1, k]), report / "methods", settings, title)
    distinct = _write_distinct(results, report / "distinct")
    uplift = _write_uplift(results, methods, report / "uplift")
    unique = _write_unique(results, methods, report / "unique")
    parts = [
        f"# Proofs checked by Lean: {', '.join(methods)}",
        f"Seeds {', '.join(map(str, results))}; {len(first[START].statements)} held-out theorems a seed, "
        f"{first[START].num_samples} samples each. Trained with {trained}. "
        "Intervals: bootstrap over the theorems of each seed, 95%; they do not cover the randomness of training.",
        "## pass@k in percent",
        passk,
        "![pass@1 against pass@k](methods.png)",
        "## Distinct proofs per theorem, and share of the enumerated ones that was found",
        distinct,
        "## Uplift by rank",
        "Share of the start model's correct samples whose log-probability rose in training, by their rank among "
        f"{RANKED_SAMPLES} samples of a theorem (1 is the likeliest). Rank bias: it falls with the rank.",
        uplift,
        "![uplift by rank](uplift.png)",
        "## Unique proofs per training step",
        "![unique proofs](unique.png)" if unique else "The runs wrote no rollouts.",
        "## Theorems gained and lost",
        _gained_and_lost(counts, methods),
        "## Some proofs, and their probability before and after training",
        _write_examples(next(iter(results.values())), methods, report / "examples"),
    ]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    write_atomic(report / "report.md", text)
    return text


def _write_distinct(results: Mapping[int, Mapping[str, ProofRun]], stem: Path) -> str:
    rows: list[dict[str, Any]] = []
    for method in next(iter(results.values())):
        row: dict[str, Any] = {"run": method}
        counted = [np.array(of_seed[method].distinct, dtype=float) for of_seed in results.values()]
        reference = [np.array(of_seed[REFERENCE].distinct, dtype=float) for of_seed in results.values()]
        shares = [np.array(of_seed[method].enumerated) for of_seed in results.values()]
        row |= {f"distinct_{name}": value for name, value in over_seeds(counted).columns().items()}
        row |= {f"difference_{name}": value for name, value in over_seeds(counted, reference).columns().items()}
        row |= {f"enumerated_{name}": value for name, value in over_seeds(shares).columns().items()}
        rows.append(row)
    lines = [
        [
            row["run"],
            f"{row['distinct_value']:.2f} [{row['distinct_low']:.2f}, {row['distinct_high']:.2f}]",
            None
            if row["run"] in (REFERENCE, START)
            else f"{row['difference_value']:+.2f} [{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]",
            f"{100 * row['enumerated_value']:.1f} %",
        ]
        for row in rows
    ]
    header = ["run", "distinct proofs per theorem", f"minus {REFERENCE}", "enumerated ones found"]
    table = markdown_table(header, lines)
    write_table(rows, stem, table)
    return table


def _write_uplift(results: Mapping[int, Mapping[str, ProofRun]], methods: Sequence[str], stem: Path) -> str:
    rows: list[dict[str, Any]] = []
    for method in methods:
        rises = [
            (rank, after > before)
            for of_seed in results.values()
            for (_, rank, _), before, after in zip(
                of_seed[START].ranked, of_seed[START].log_probs, of_seed[method].log_probs, strict=True
            )
        ]
        for (low, high), (count, share) in zip(BINS, uplift_by_rank(rises, BINS), strict=True):
            rows.append({"run": method, "first_rank": low, "last_rank": high, "samples": count, "share": share})
    lines = []
    for method in methods:
        own = [row for row in rows if row["run"] == method]
        lines.append([method, *("" if math.isnan(row["share"]) else f"{100 * row['share']:.1f}" for row in own)])
    table = markdown_table(["run", *(f"ranks {low} to {high}" for low, high in BINS)], lines)
    finite = [row | {"share": None if math.isnan(row["share"]) else row["share"]} for row in rows]
    write_table(finite, stem, table)
    save_figure(_uplift_figure(rows, methods), stem)
    return table


@figure_style()
def _uplift_figure(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> Any:
    figure, (axis,) = new_figure(6.0, 3.6)
    for method, colour in zip(methods, cycle(COLOURS), strict=False):
        own = [row for row in rows if row["run"] == method]
        # binomial standard error of the share: samples of one theorem are not independent, so it is a lower bound
        errors = [100 * math.sqrt(r["share"] * (1 - r["share"]) / r["samples"]) if r["samples"] else 0 for r in own]
        x = [(row["first_rank"] + row["last_rank"]) / 2 for row in own]
        shares = [100 * row["share"] for row in own]
        axis.errorbar(x, shares, yerr=errors, marker="o", markersize=4, color=colour, label=method, capsize=2)
    axis.set_xlabel("rank of the sample under the start model (1 is the likeliest)")
    axis.set_ylabel("became likelier (%)")
    axis.set_title("Uplift by rank of the start model's correct proofs")
    axis.legend(fontsize=8)
    return figure


def _write_unique(results: Mapping[int, Mapping[str, ProofRun]], methods: Sequence[str], stem: Path) -> bool:
    rows = [
        {"run": method, "seed": seed, "step": step, "unique_proofs": count}
        for method in methods
        for seed, of_seed in results.items()
        for step, count in of_seed[method].unique.items()
    ]
    if not rows:
        return False
    write_table(rows, stem, "Distinct (theorem, proof) pairs among the correct rollouts of a step; see the CSV.\n")
    save_figure(_unique_figure(rows, methods), stem)
    return True


@figure_style()
def _unique_figure(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> Any:
    figure, (axis,) = new_figure(6.0, 3.6)
    for method, colour in zip(methods, cycle(COLOURS), strict=False):
        own = [row for row in rows if row["run"] == method]
        steps = sorted({row["step"] for row in own})
        means = [float(np.mean([row["unique_proofs"] for row in own if row["step"] == step])) for step in steps]
        axis.plot(steps, moving_average(means), color=colour, label=method)
    axis.set_xlabel("training step")
    axis.set_ylabel("unique proofs a step")
    axis.set_title("Unique proofs per step, moving average with weight 0.05, mean over seeds")
    axis.legend(fontsize=8)
    return figure


def _gained_and_lost(counts: Mapping[int, Mapping[str, ProblemCounts]], methods: Sequence[str]) -> str:
    """Theorems proved at least once by one run and never by the other."""
    lines = []
    for method in methods:
        cells: list[object] = [method]
        for other in (START, REFERENCE):
            changes = Counter(
                row["change"]
                for of_seed in counts.values()
                for row in changed_problems(of_seed[other], of_seed[method])
            )
            cells += [None, None] if method == other else [changes["gained"], changes["lost"]]
        lines.append(cells)
    header = ["run", "gained over the start model", "lost", f"gained over {REFERENCE}", "lost"]
    return markdown_table(header, lines)


def _write_examples(of_seed: Mapping[str, ProofRun], methods: Sequence[str], stem: Path) -> str:
    """Proofs of one seed that the reference moved most, with their probability under every model."""
    start = of_seed[START]
    if not start.ranked:
        return "The start model proved nothing."
    keys = [(start.statements[place], text) for place, _, text in start.ranked]
    by_model = {name: dict(zip(keys, run.log_probs, strict=True)) for name, run in of_seed.items()}
    rows = []
    for key in pick_examples(by_model[START], by_model[REFERENCE]):
        row: dict[str, Any] = {"theorem": to_lean(key[0]), "proof": to_lean(key[1])}
        rows.append(row | {f"p_{name}": math.exp(values[key]) for name, values in by_model.items()})
    lines = []  # proofs that Lean accepted: nothing in them can end the code block
    for row in rows:
        said = ", ".join(f"{name} {row[f'p_{name}']:.2g}" for name in (START, *methods))
        lines.append(f"example : {row['theorem']} :=\n  {row['proof']}  -- {said}")
    table = "```lean\n" + "\n".join(lines) + "\n```\n"
    write_table(rows, stem, table, seed=start.seed)
    return table
