"""Two measurements, each a ratio to the plain way of doing it, from one run on this machine.

python scripts/bench_evaluation.py subsample
python scripts/bench_evaluation.py grading --benchmark math500=FILE --benchmark olympiadbench=FILE
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter

import numpy as np


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


def bench_grading(
    files: dict[str, str],
    num_problems: int,
    num_samples: int,
    workers: int,
    compared: int | None = None,
    same_text: bool = False,
    skewed: bool = False,
) -> None:
    """Samples per second against math-verify called one by one, and every verdict that differs.

    The reasoning of a problem's responses is a solution from the files, its sentences in random order; the answers are
    `evaluation.answer_mix`, 5% of `num_samples` distinct ones. math-verify grades the same samples, of the first
    `compared` problems if that is given, in this process, unchanged, each gold answer parsed once; the ratio is that of
    samples per second. A few problems take it most of the time, so a small `compared` measures little.
    """
    import math_verify.parser
    from math_verify import parse, verify
    from tqdm import tqdm

    from verl_fgrpo.evaluation.answer_mix import answer_variants, sample_responses
    from verl_fgrpo.evaluation.benchmarks import load_benchmark, read_rows
    from verl_fgrpo.evaluation.grading import grade_samples
    from verl_fgrpo.evaluation.problems import Problem
    from verl_fgrpo.evaluation.samples import Sample
    from verl_fgrpo.evaluation.workers import Limits

    rng = np.random.default_rng(0)
    pool: list[Problem] = []
    solutions = []
    for name, path in files.items():
        pool += load_benchmark(name, path, check_size=False)
        for row in read_rows(path):
            solution = row.get("solution") or ""
            text = solution if isinstance(solution, str) else "\n\n".join(solution)
            solutions.append(text.replace("\\boxed", ""))
    solutions = [text for text in solutions if text] or [problem.prompt for problem in pool]
    golds = [problem.answers[0] for problem in pool]
    chosen = [pool[index] for index in rng.choice(len(pool), size=min(num_problems, len(pool)), replace=False)]
    samples = []
    for problem in chosen:
        others = [golds[index] for index in rng.choice(len(golds), size=20)]
        variants = answer_variants(problem.answers[0], others, rng, max(5, num_samples // 20))
        text = solutions[rng.integers(len(solutions))]
        for index, response in enumerate(sample_responses(text, variants, num_samples, rng, same_text, skewed)):
            samples.append(Sample(problem.benchmark, problem.problem_id, index, 0, response, 0, "stop"))
    by_key = {problem.key: problem for problem in chosen}
    print(
        f"{len(chosen)} problems x {num_samples} samples, {max(5, num_samples // 20)} distinct answers a problem, "
        f"{'frequency 1/rank' if skewed else 'equally frequent'}; {np.mean([len(s.response) for s in samples]):.0f} "
        f"characters a response, {len({(s.problem_id, s.response) for s in samples})} distinct texts"
    )

    started, cpu = time.perf_counter(), _cpu_seconds()
    ours = {}
    for verdict in grade_samples(samples, by_key, Limits(), workers):
        ours[verdict.benchmark, verdict.problem_id, verdict.sample_idx] = verdict
    rate = len(samples) / (seconds := time.perf_counter() - started)
    cpu = (_cpu_seconds() - cpu) / len(samples)
    print(
        f"this package, {workers} workers, their start included: {seconds:.1f} s, {rate:.0f} samples/s, "
        f"{1e6 * cpu:.0f} us of CPU time a sample"
    )
    print("verdicts:", dict(Counter(verdict.verdict for verdict in ours.values())))

    assert math_verify.parser.extract_match.__module__ == "math_verify.parser"  # unchanged in this process
    gold = {key: [parse(f"\\boxed{{{answer}}}") for answer in problem.answers] for key, problem in by_key.items()}
    samples = samples[: (compared or len(chosen)) * num_samples]
    started, their_cpu = time.perf_counter(), _cpu_seconds()
    theirs = {}
    for sample in tqdm(samples, desc="math-verify one by one", unit="sample"):
        parsed = parse(sample.response)
        golds_ = gold[sample.benchmark, sample.problem_id]
        theirs[sample.benchmark, sample.problem_id, sample.sample_idx] = any(verify(one, parsed) for one in golds_)
    their_rate = len(samples) / (one_by_one := time.perf_counter() - started)
    their_cpu = (_cpu_seconds() - their_cpu) / len(samples)
    print(
        f"math-verify one by one, {len(samples) // num_samples} of the problems: {one_by_one:.1f} s, "
        f"{their_rate:.0f} samples/s, {1e6 * their_cpu:.0f} us of CPU time a sample"
    )
    different = [key for key, correct in theirs.items() if (ours[key].verdict == "correct") != correct]
    timeouts = [key for key in different if ours[key].verdict == "timeout"]
    print(
        f"ratio {rate / their_rate:.1f} (of CPU time {their_cpu / cpu:.1f}); verdicts compared {len(theirs)}, "
        f"different {len(different)}, of which time-outs {len(timeouts)}"
    )
    by_text = {(s.benchmark, s.problem_id, s.sample_idx): s.response for s in samples}
    for key in different[:20]:
        print(json.dumps([by_key[key[:2]].answers, by_text[key][-200:], ours[key].verdict, theirs[key]]))


def _cpu_seconds() -> float:
    """CPU time of this process and all it started, living or waited for."""
    import psutil

    this = psutil.Process()
    total = 0.0
    for process in [this, *this.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("subsample", "grading"))
    parser.add_argument("--benchmark", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--compared", type=int, help="problems that math-verify grades one by one (all)")
    parser.add_argument("--num-samples", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--same-text", action="store_true", help="the reasoning is equal in all samples of a problem")
    parser.add_argument("--skewed", action="store_true", help="the right answer most often (1/rank), not all equally")
    options = parser.parse_args(args)
    if options.what == "subsample":
        bench_subsample()
    elif not options.benchmark:
        parser.error("grading needs at least one --benchmark NAME=FILE")
    else:
        files = dict(entry.split("=", 1) for entry in options.benchmark)
        bench_grading(
            files,
            options.problems,
            options.num_samples,
            options.workers,
            options.compared,
            options.same_text,
            options.skewed,
        )


if __name__ == "__main__":
    main()
