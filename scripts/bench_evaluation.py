"""Two measurements, each a ratio to the plain way of doing it, from one run on this machine.

python scripts/bench_evaluation.py subsample
python scripts/bench_evaluation.py grading --benchmark math500=FILE --benchmark olympiadbench=FILE
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verl_fgrpo.core.command import COUNT, PROCESSES, command_parser, named_path, run_command
from verl_fgrpo.evaluation.graders import GraderOptions
from verl_fgrpo.evaluation.problems import Problem, ProblemKey
from verl_fgrpo.evaluation.samples import Sample, SampleKey, key_of


def bench_subsample(
    num_problems: int = 1547, num_samples: int = 1024, iterations: int = 50_000, slice_: int = 5
) -> None:
    """Time of the paper's test, and of shuffling 0/1 outcomes with numpy for a few of its iterations."""
    from verl_fgrpo.core.passk import pass_at_k
    from verl_fgrpo.evaluation.significance import subsample_tests

    rng = np.random.default_rng(0)
    base = rng.binomial(num_samples, rng.beta(0.4, 0.6, num_problems))
    focal = np.clip(base + rng.integers(-40, 60, num_problems), 0, num_samples)
    started = time.perf_counter()
    results = subsample_tests(base, focal, num_samples, [1, 256], m=256, iterations=iterations, rng=1)
    ours = time.perf_counter() - started

    outcomes = [np.arange(num_samples)[None, :] < counts[:, None] for counts in (base, focal)]
    started = time.perf_counter()
    for _ in range(slice_):
        for table in outcomes:
            drawn = rng.permuted(table, axis=1)[:, :256].sum(axis=1)
            for k in (1, 256):
                pass_at_k(256, drawn, k).mean()
    naive = (time.perf_counter() - started) / slice_ * iterations
    for k, result in results.items():
        print(f"k={k}: difference {result.difference:+.4f}, interval {result.interval}, p {result.p_value:.5f}")
    print(
        f"2 models x {num_problems} problems x n={num_samples} x k in (1, 256) x {iterations} iterations: {ours:.1f} s;"
        f" shuffling with numpy {naive:.0f} s (from {slice_} iterations); ratio {naive / ours:.0f}"
    )


@dataclass
class Graded:
    """Verdicts of one way of grading, by sample key, and what they took."""

    verdicts: dict[SampleKey, str]
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        count = len(self.verdicts)
        return (
            f"{count:,} samples, {self.seconds:.1f} s, {count / self.seconds:.0f} samples/s, "
            f"{1e6 * self.cpu_seconds / count:.0f} us of CPU time a sample"
        )


def bench_grading(options: argparse.Namespace) -> int:
    """Unchanged math-verify one by one, `grade`, and `grade --fast`, in one run; returns how many verdicts differ.

    math-verify grades the samples of the first `--compared` problems in this process, as it is installed, each gold
    answer parsed once; `grade` and `grade --fast` grade all of them with `--workers` processes, their start included.
    A few problems take math-verify most of the time, so a small `--compared` measures little.
    """
    problems, samples = make_samples(options)
    some = samples[: (options.compared or len(problems)) * options.num_samples]
    default = grade_all(samples, problems, options.workers, GraderOptions())
    print(f"grade, {options.workers} workers: {default}", flush=True)
    fast = grade_all(samples, problems, options.workers, GraderOptions(fast=True))
    print(f"grade --fast, {options.workers} workers: {fast}", flush=True)
    plain = one_by_one(some, problems)
    print(f"math-verify one by one: {plain}")
    print("verdicts:", dict(Counter(default.verdicts.values())))
    speed = plain.cpu_seconds / len(plain.verdicts)
    for name, ours in (("grade", default), ("grade --fast", fast)):
        rate = (len(ours.verdicts) / ours.seconds) / (len(plain.verdicts) / plain.seconds)
        print(
            f"{name}: {rate:.1f} times the samples per second, {speed * len(samples) / ours.cpu_seconds:.1f} times "
            "per second of CPU time"
        )
    return compare("grade", default, plain) + compare("grade --fast", fast, plain) + compare_ways(default, fast)


def make_samples(options: argparse.Namespace) -> tuple[dict[ProblemKey, Problem], list[Sample]]:
    """Samples of real problems: a solution from the files, its sentences in random order, and an answer.

    The answers are those of `answer_mix`, 5% of `num_samples` distinct ones a problem.
    """
    from verl_fgrpo.core.rows import iter_rows
    from verl_fgrpo.evaluation.benchmarks import load_benchmark

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evaluation"))
    from answer_mix import answer_variants, sample_responses  # type: ignore[import-not-found, unused-ignore]

    rng = np.random.default_rng(0)
    pool: list[Problem] = []
    solutions = []
    for name, path in map(named_path, options.benchmark):
        pool += load_benchmark(name, path, check_size=False)
        for row in iter_rows(path):
            solution = row.get("solution") or ""
            text = solution if isinstance(solution, str) else "\n\n".join(solution)
            solutions.append(text.replace("\\boxed", ""))
    solutions = [text for text in solutions if text] or [problem.prompt for problem in pool]
    golds = [problem.answers[0] for problem in pool]
    number, distinct = min(options.problems, len(pool)), max(5, options.num_samples // 20)
    chosen = [pool[index] for index in rng.choice(len(pool), size=number, replace=False)]
    samples = []
    for problem in chosen:
        others = [golds[index] for index in rng.choice(len(golds), size=20)]
        variants = answer_variants(problem.answers[0], others, rng, distinct)
        text = solutions[rng.integers(len(solutions))]
        responses = sample_responses(text, variants, options.num_samples, rng, options.same_text, options.skewed)
        for index, response in enumerate(responses):
            samples.append(Sample(problem.benchmark, problem.problem_id, index, 0, response, 0, "stop"))
    print(
        f"{len(chosen)} problems x {options.num_samples} samples, {distinct} distinct answers a problem, "
        f"{'frequency 1/rank' if options.skewed else 'equally frequent'}; "
        f"{np.mean([len(s.response) for s in samples]):.0f} characters a response, "
        f"{len({(s.problem_id, s.response) for s in samples})} distinct texts"
    )
    return {problem.key: problem for problem in chosen}, samples


def grade_all(
    samples: list[Sample], problems: dict[ProblemKey, Problem], workers: int, options: GraderOptions
) -> Graded:
    """By this package."""
    from verl_fgrpo.evaluation.grading import FastCheck, grade_samples
    from verl_fgrpo.evaluation.workers import Limits

    started, cpu, check = time.perf_counter(), _cpu_seconds(), FastCheck()
    verdicts = {key_of(row): row.verdict for row in grade_samples(samples, problems, Limits(), workers, options, check)}
    if check.compared:
        print(f"  of which compared with unchanged math-verify: {check.compared}, different {len(check.different)}")
    return Graded(verdicts, time.perf_counter() - started, _cpu_seconds() - cpu)


def one_by_one(samples: list[Sample], problems: dict[ProblemKey, Problem]) -> Graded:
    """By math-verify in this process, in which nothing of it is replaced."""
    import math_verify.parser
    from math_verify import parse, verify
    from tqdm import tqdm

    assert math_verify.parser.extract_match.__module__ == "math_verify.parser"
    gold = {key: [parse(f"\\boxed{{{answer}}}") for answer in problem.answers] for key, problem in problems.items()}
    started, cpu = time.perf_counter(), _cpu_seconds()
    verdicts = {}
    for sample in tqdm(samples, desc="math-verify one by one", unit="sample"):
        parsed = parse(sample.response)
        correct = any(verify(one, parsed) for one in gold[sample.benchmark, sample.problem_id])
        verdicts[key_of(sample)] = "correct" if correct else "wrong"
    return Graded(verdicts, time.perf_counter() - started, _cpu_seconds() - cpu)


def compare(name: str, ours: Graded, plain: Graded) -> int:
    """Print and count the samples that are correct for one and not for the other, time-outs aside."""
    different = [
        key for key, verdict in plain.verdicts.items() if (ours.verdicts[key] == "correct") != (verdict == "correct")
    ]
    timeouts = sum(ours.verdicts[key] == "timeout" for key in different)
    print(
        f"{name}: {len(plain.verdicts):,} verdicts compared, {len(different)} different, of which {timeouts} time-outs"
    )
    for key in different[:20]:
        print(f"  {key}: {ours.verdicts[key]}, math-verify one by one {plain.verdicts[key]}")
    return len(different) - timeouts


def compare_ways(default: Graded, fast: Graded) -> int:
    """Print and count the samples with different labels in the two ways of grading."""
    different = [key for key, verdict in default.verdicts.items() if fast.verdicts[key] != verdict]
    print(f"grade against grade --fast: {len(default.verdicts):,} verdicts compared, {len(different)} different")
    return len(different)


def _cpu_seconds() -> float:
    """CPU time of this process and all it started, living or waited for."""
    import psutil

    this = psutil.Process()
    total = 0.0
    for process in [this, *this.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def main(arguments: Sequence[str]) -> int:
    parser = command_parser(Path(__file__).name, __doc__)
    parser.add_argument("what", choices=("subsample", "grading"))
    parser.add_argument("--benchmark", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--problems", type=COUNT, default=120)
    parser.add_argument("--compared", type=COUNT, help="problems that math-verify grades one by one (all)")
    parser.add_argument("--num-samples", type=COUNT, default=1024)
    parser.add_argument("--workers", type=PROCESSES, default=2)
    parser.add_argument("--same-text", action="store_true", help="the reasoning is equal in all samples of a problem")
    parser.add_argument("--skewed", action="store_true", help="the right answer most often (1/rank), not all equally")
    options = parser.parse_args(arguments)
    if options.what == "subsample":
        bench_subsample()
        return 0
    if not options.benchmark:
        parser.error("grading needs at least one --benchmark NAME=FILE")
    return int(bench_grading(options) > 0)


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, sys.argv[1:]))
