"""pass@k evaluation: sample a model, grade the samples, report, compare. All can be interrupted and repeated.

    verl-fgrpo eval sample  --run runs/grpo --model MODEL --problems data/math500.jsonl --backend vllm
    verl-fgrpo eval grade   --run runs/grpo
    verl-fgrpo eval report  --runs GRPO=runs/grpo F-GRPO=runs/fgrpo --out report
    verl-fgrpo eval compare --base GRPO=runs/grpo --focal F-GRPO=runs/fgrpo --out comparison
    verl-fgrpo eval nll --help      drift of rare correct solutions

A run is one folder:

RUN/problems.jsonl   the problems sampled
RUN/samples/         `samples.SampleStore`
RUN/verdicts/        `samples.VerdictStore`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.evaluation.backends import OpenAIBackend, TransformersBackend, VllmRayBackend, resolve_model
from verl_fgrpo.evaluation.compare import changed_problems, compare_runs, comparison_markdown, paper_table
from verl_fgrpo.evaluation.fast_grading import math_verify_cache
from verl_fgrpo.evaluation.generation import Backend, Decoding, make_plan, sample_run
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.problems import KINDS, load_problems, save_problems
from verl_fgrpo.evaluation.prompts import PRESETS
from verl_fgrpo.evaluation.readers import iter_samples
from verl_fgrpo.evaluation.report import markdown_table, pass_at_k_rows, plot_pass_at_k, write_table
from verl_fgrpo.evaluation.samples import SampleStore, merge_stores
from verl_fgrpo.evaluation.summary import RunData, benchmark_rows, block_rows, load_run, verdict_rows
from verl_fgrpo.evaluation.workers import Limits

__all__ = ["main", "write_comparison", "write_report"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = command_parser("eval", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_sample(commands)
    _add_grade(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_merge(commands)
    commands.add_parser("nll", help="drift of rare correct solutions (dNLL_rare)")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] == "nll":
        from verl_fgrpo.evaluation.rare_nll_command import main as nll

        nll(given[1:])
        return
    options = parser.parse_args(given)
    options.run_command(options)


# --- sample -------------------------------------------------------------------------------------------------------


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser("sample", help="draw samples; repeat to resume, with a larger --num-samples to top up")
    parser.add_argument("--run", required=True, type=Path, help="folder of the run")
    parser.add_argument("--model", required=True, help="hub id, Hugging Face folder, or verl checkpoint folder")
    parser.add_argument("--problems", nargs="+", required=True, type=Path, help="files of `verl-fgrpo data benchmarks`")
    parser.add_argument("--benchmarks", nargs="+", help="only these of the files; default all")
    parser.add_argument("--limit", type=int, help="only the first problems of each benchmark (for trying out)")
    parser.add_argument("--num-samples", type=int, default=1024)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=-1)
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="qwen2.5", choices=tuple(PRESETS), help="prompts by model family")
    parser.add_argument("--backend", required=True, choices=("vllm", "openai", "transformers"))
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument("--url", default="http://localhost:8000/v1", help="openai: the server")
    parser.add_argument("--concurrency", type=int, help="openai: requests in flight; vllm: engines")
    parser.add_argument("--extra-body", type=json.loads, default={}, help="openai: JSON sent with every request")
    parser.add_argument("--tensor-parallel-size", type=int, default=1, help="vllm: GPUs per engine")
    parser.add_argument("--engine-kwargs", type=json.loads, default={}, help="vllm: JSON, more engine arguments")
    parser.add_argument("--batch-size", type=int, help="transformers: samples at once; vllm: requests per task")
    parser.add_argument("--device", default="cpu", help="transformers")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="transformers")
    parser.add_argument("--tokens-per-second", type=float, help="for the estimate before anything was sampled")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.set_defaults(run_command=_sample)


def _sample(options: argparse.Namespace) -> None:
    decoding = Decoding(options.temperature, options.top_p, options.top_k, options.max_tokens, options.seed)
    problems = load_problems(options.problems, options.benchmarks)
    if options.limit is not None:
        taken: Counter[str] = Counter()
        kept = []
        for problem in problems:
            taken[problem.benchmark] += 1
            if taken[problem.benchmark] <= options.limit:
                kept.append(problem)
        problems = kept
    plan = make_plan(options.run, problems, options.num_samples, decoding, options.tokens_per_second)
    print(plan.text(), flush=True)
    if options.dry_run:
        return
    sample_run(options.run, problems, _backend(options), options.num_samples, decoding, options.preset)


def _backend(options: argparse.Namespace) -> Backend:
    if options.backend == "openai":
        key = os.environ.get("OPENAI_API_KEY")
        return OpenAIBackend(options.url, options.model, options.concurrency or 64, key, extra_body=options.extra_body)
    folder = resolve_model(options.model, options.run, options.revision)
    if options.backend == "vllm":
        return VllmRayBackend(
            folder,
            options.tensor_parallel_size,
            options.concurrency,
            options.batch_size or 256,
            options.engine_kwargs,
        )
    return TransformersBackend(folder, options.batch_size or 32, options.device, options.dtype)


# --- grade --------------------------------------------------------------------------------------------------------


def _add_grade(commands: Any) -> None:
    parser = commands.add_parser("grade", help="grade the samples of a run, or samples made elsewhere")
    parser.add_argument("--run", required=True, type=Path, help="folder of the run")
    parser.add_argument("--input", nargs="+", type=Path, help="import these samples into the (new) run first")
    parser.add_argument("--format", default="auto", choices=("auto", "plain", "verl", "lm-eval"))
    parser.add_argument("--benchmark", default="imported", help="name for imported samples that carry none")
    parser.add_argument("--kind", default="math", choices=KINDS, help="how imported samples are graded")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit of one response")
    parser.add_argument("--memory-mib", type=int, default=2048, help="memory limit of one worker, beyond its libraries")
    parser.add_argument("--ifeval", default="strict", choices=("strict", "loose"))
    parser.add_argument("--regrade", action="store_true", help="delete the verdicts and grade anew (samples stay)")
    parser.set_defaults(run_command=_grade)


def _grade(options: argparse.Namespace) -> None:
    if options.input:
        _import(options)
    problems = load_problems([options.run / "problems.jsonl"])
    if options.regrade:
        shutil.rmtree(options.run / "verdicts", ignore_errors=True)
    grader_options = json.dumps({"ifeval": options.ifeval})
    limits = Limits(options.seconds, options.memory_mib)
    store = SampleStore(options.run / "samples")
    if any(problem.kind == "math" for problem in problems) and (others := math_verify_cache.unchecked()):
        checked = ", ".join(f"{package} {' or '.join(tested)}" for package, tested in math_verify_cache.CHECKED.items())
        print(f"grading will be slow: {', '.join(others)} runs unchanged; made faster are {checked}", file=sys.stderr)
    verdicts = grade_store(store, options.run / "verdicts", problems, limits, options.workers, grader_options)
    for row in verdict_rows({options.run.name: load_run(verdicts.path, store.path)}):
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def _import(options: argparse.Namespace) -> None:
    """Read the files twice, so that nothing is stored of files with an error, and nothing is held in memory."""
    from tqdm import tqdm

    digest = hashlib.sha256()
    for path in options.input:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    source = (options.input, options.benchmark, options.kind, options.format)
    problems = {}
    count = 0
    for problem, _ in tqdm(iter_samples(*source), desc="checking", unit="sample"):
        problems[problem.key] = problem
        count += 1
    settings = {"imported": sorted(path.name for path in options.input), "sha256": digest.hexdigest()}
    store = SampleStore(options.run / "samples", settings)
    save_problems(list(problems.values()), options.run / "problems.jsonl")
    with store.writer(flush_rows=4096) as writer:
        for _, sample in tqdm(iter_samples(*source), desc="importing", unit="sample", total=count):
            if (sample.benchmark, sample.problem_id, sample.sample_idx) not in writer:
                writer.append(sample)


# --- report -------------------------------------------------------------------------------------------------------


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="tables and figure of one or more graded runs")
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=RUN")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.* and pass_at_k.*")
    parser.add_argument("--ks", type=int, nargs="+", help="values of k; default 1, 2, 4, ..., n")
    parser.add_argument("--title", default="")
    parser.set_defaults(run_command=_report)


def _report(options: argparse.Namespace) -> None:
    runs = {name: load_run(path / "verdicts", path / "samples") for name, path in _named(options.runs).items()}
    settings = {name: SampleStore(path / "samples").settings for name, path in _named(options.runs).items()}
    for path in write_report(runs, options.out, options.ks, options.title, settings):
        print(path)


def write_report(
    runs: Mapping[str, RunData],
    out: Path,
    ks: Sequence[int] | None = None,
    title: str = "",
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write report.md, .csv, .json and pass_at_k.png, .svg; returns the paths."""
    rows = pass_at_k_rows({name: run.counts() for name, run in runs.items()}, ks)
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    rows.sort(key=lambda row: order.index(row["benchmark"]))  # runs below each other, to be compared
    blocks = block_rows(rows)
    details = benchmark_rows(runs)
    verdicts = verdict_rows(runs)
    text = ["# pass@k\n", "Percent, with 95% intervals from a bootstrap over problems.\n", markdown_table(rows)]
    if blocks:
        text += ["\n## Block averages\n", markdown_table(blocks)]
    text += ["\n## More numbers\n", _details_markdown(details)]
    text += [
        "\n## Verdicts\n\nEvery sample has exactly one; all but `correct` count as not correct.\n",
        _plain_markdown(verdicts),
    ]
    paths = write_table(
        rows, out / "report", "\n".join(text), blocks=blocks, details=details, verdicts=verdicts, settings=settings
    )
    return paths + plot_pass_at_k(rows, out / "pass_at_k", title)


def _details_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    percent = ("pass@1", "pass@k", "pass^k", "majority@k", "truncated", "unsolved")
    shown = []
    for row in rows:
        cells = {}
        for key, value in row.items():
            if value is None:
                cells[key] = "-"
            elif key in percent:
                cells[f"{key} (%)"] = f"{100 * value:.1f}"
            else:
                cells[key] = f"{value:.1f}" if isinstance(value, float) else str(value)
        shown.append(cells)
    return _plain_markdown(shown)


def _plain_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# --- compare ------------------------------------------------------------------------------------------------------


def _add_compare(commands: Any) -> None:
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
    (base_name, base_path), *_ = _named([options.base]).items()
    runs = {base_name: load_run(base_path / "verdicts", base_path / "samples")}
    for name, path in _named(options.focal).items():
        runs[name] = load_run(path / "verdicts", path / "samples")
    extra = {name: load_run(path / "verdicts", path / "samples") for name, path in _named(options.extra).items()}
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
            text.append(_plain_markdown(changed[name][:40]))
    flat = [{"run": name, "against": base_name, **row} for name, rows in comparisons.items() for row in rows]
    settings = {"ks": ks, "m": m, "iterations": iterations, "seed": seed}
    paths = write_table(flat, out / "compare", "\n".join(text), changed=changed, test=settings)
    curves = {**{name: run.counts() for name, run in (extra or {}).items()}, **counts}
    return paths + plot_pass_at_k(pass_at_k_rows(curves), out / "pass_at_k", title)


# --- merge --------------------------------------------------------------------------------------------------------


def _add_merge(commands: Any) -> None:
    parser = commands.add_parser("merge", help="join runs sampled with equal settings on several machines")
    parser.add_argument("--sources", nargs="+", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path, help="folder to merge into")
    parser.set_defaults(run_command=_merge)


def _merge(options: argparse.Namespace) -> None:
    problems = {}
    for source in options.sources:
        for problem in load_problems([source / "problems.jsonl"]):
            problems[problem.key] = problem
    added = merge_stores([source / "samples" for source in options.sources], options.run / "samples")
    save_problems(problems.values(), options.run / "problems.jsonl")
    print(f"{added} samples added to {options.run}")


def _named(entries: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER entries; a folder alone is named after itself."""
    runs: dict[str, Path] = {}
    for entry in entries:
        name, _, path = entry.rpartition("=")
        folder = Path(path)
        name = name or folder.name
        if name in runs:
            raise ValueError(f"the name {name!r} is given twice")
        if not (folder / "samples" / "manifest.json").exists():
            raise ValueError(f"{folder} is not a run folder: {folder / 'samples' / 'manifest.json'} is missing")
        if not (folder / "verdicts" / "manifest.json").exists():
            raise ValueError(f"{folder} is not graded yet: run `verl-fgrpo eval grade --run {folder}`")
        runs[name] = folder
    return runs
