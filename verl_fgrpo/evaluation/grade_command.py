"""`verl-fgrpo eval grade`: label the samples of a run, or samples made elsewhere."""

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import COUNT, PROCESSES
from verl_fgrpo.evaluation.graders import READINGS, GraderOptions, reading_note
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.problems import KINDS, load_problems, save_problems
from verl_fgrpo.evaluation.readers import FORMATS, iter_samples
from verl_fgrpo.evaluation.samples import SampleStore
from verl_fgrpo.evaluation.summary import load_run, verdict_rows
from verl_fgrpo.evaluation.workers import Limits


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("grade", help="grade the samples of a run, or samples made elsewhere")
    parser.add_argument("--run", required=True, type=Path, help="folder of the run")
    parser.add_argument("--input", nargs="+", type=Path, help="import these samples into the (new) run first")
    parser.add_argument("--format", default="auto", choices=("auto", *FORMATS))
    parser.add_argument("--benchmark", default="imported", help="name for imported samples that carry none")
    parser.add_argument("--kind", default="math", choices=KINDS, help="how imported samples are graded")
    parser.add_argument("--workers", type=PROCESSES, default=os.cpu_count() or 1, help="grading processes")
    parser.add_argument("--ray", action="store_true", help="grade on all CPUs of a Ray cluster (RAY_ADDRESS) instead")
    parser.add_argument(
        "--fast",
        action="store_true",
        help="replace functions of math-verify by faster ones; a sample of the verdicts is compared with its own",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit of one response")
    parser.add_argument("--memory-mib", type=COUNT, default=2048, help="of one worker, beyond its libraries")
    parser.add_argument("--ifeval", default="strict", choices=("strict", "loose"))
    parser.add_argument(
        "--reading",
        default="default",
        choices=tuple(READINGS),
        help="of mathematical answers: math-verify unchanged, or stated rules before it (docs/grading.md)",
    )
    parser.add_argument(
        "--allow-code-execution",
        action="store_true",
        help="needed for SynLogic and Lean with Mathlib, which run responses as code on this machine, unprotected",
    )
    parser.add_argument("--regrade", action="store_true", help="delete the verdicts and grade anew (samples stay)")
    parser.set_defaults(run_command=_grade)


def _grade(options: argparse.Namespace) -> None:
    limits = Limits(options.seconds, options.memory_mib)
    if options.fast:
        _check_fast()
    if options.input:
        _import(options)
    store = SampleStore(options.run / "samples")
    problems = load_problems([options.run / "problems.jsonl"])
    reading, code = READINGS[options.reading], options.allow_code_execution
    graders = GraderOptions(options.ifeval, options.fast, reading, code)
    how = {"num_workers": options.workers, "regrade": options.regrade, "ray": options.ray, "say": print}
    verdicts = grade_store(store, options.run / "verdicts", problems, limits, options=graders, **how)
    if options.reading != "default":
        print(reading_note(verdicts.settings["options"], ((row.verdict, row.detail) for row in verdicts.read())))
    for row in verdict_rows({options.run.name: load_run(options.run)}):
        print("  ".join(f"{key} {value if str(value).isprintable() else repr(value)}" for key, value in row.items()))


def _check_fast() -> None:
    from verl_fgrpo.evaluation.fast_grading import math_verify_cache

    if others := math_verify_cache.unchecked():
        checked = ", ".join(f"{package} {' or '.join(tested)}" for package, tested in math_verify_cache.CHECKED.items())
        raise ValueError(f"--fast was checked with {checked}, not with {', '.join(others)}: grade without it")


def _import(options: argparse.Namespace) -> None:
    """Read the files twice, so that nothing is stored of files with an error, and nothing is held in memory."""
    from tqdm import tqdm

    source = (options.input, options.benchmark, options.kind, options.format)
    problems = {}
    count = 0
    for problem, _ in tqdm(iter_samples(*source), desc="checking", unit="sample"):
        problems[problem.key] = problem
        count += 1
    digest = hashlib.sha256()
    for path in options.input:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    settings = {"imported": sorted(path.name for path in options.input), "sha256": digest.hexdigest()}
    store = SampleStore(options.run / "samples", settings)
    save_problems(list(problems.values()), options.run / "problems.jsonl")
    with store.writer(flush_rows=4096) as writer:
        for _, sample in tqdm(iter_samples(*source), desc="importing", unit="sample", total=count):
            if (sample.benchmark, sample.problem_id, sample.sample_idx) not in writer:
                writer.append(sample)
