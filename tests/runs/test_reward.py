"""The math reward: verdicts on real gold answers, hostile responses, threads, and a real Ray actor."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_math import BENCHMARKS, NO_DATA

from verl_fgrpo.evaluation.problems import Problem, gold_answers
from verl_fgrpo.evaluation.workers import GradingPool, Limits
from verl_fgrpo.runs.reward import Tally, compute_score

#: Each takes long, much memory, deep recursion or odd characters; none is a right answer to 4.
HOSTILE = [
    r"\boxed{9^{9^{9^{9^{9}}}}}",
    r"\boxed{" + "{" * 3000 + "1" + "}" * 3000 + "}",
    r"\boxed{" + "(" * 400 + "1" + ")" * 400 + "}",
    r"$" + r"\frac{1}{" * 300 + "2" + "}" * 300 + "$",
    r"\boxed{10000000!}",
    "\\boxed{\x00\ud800\u202e}",
    "",
    " " * 50_000,
    "no answer at all",
]


def test_golden_verdicts():
    right = {"score": 1.0, "acc": 1.0, "timeout": 0.0, "unparsed": 0.0, "error": 0.0}
    wrong = right | {"score": 0.0, "acc": 0.0}
    for response, gold, expected in [
        (r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}", right),
        (r"So \boxed{0.5}.", r"\frac{1}{2}", right),
        (r"So \boxed{\dfrac12}.", "0.5", right),
        (r"So \boxed{\frac{1}{3}}.", r"\frac{1}{2}", wrong),
        (r"\boxed{B}", ["A", "B"], right),  # alternatives
        (r"\boxed{98}", {"target": "98", "question": "?"}, right),  # a mapping, as in verl files of others
        (r"\boxed{42}", 42, right),
        (r"\boxed{42}", 42.0, right),
        (r"\boxed{42}", "42.", right),  # a final period is mended
        (r"\boxed{42}", {"target": ["41", "42"]}, right),
        ("I do not know.", "98", wrong | {"unparsed": 1.0}),
    ]:
        assert compute_score("math", response, gold, {"index": 0}) == expected, (response, gold)


def test_a_row_without_a_gold_answer_is_an_error_not_a_zero():
    for nothing in ("", "  ", [], {"target": ""}):
        with pytest.raises(ValueError, match="a reward needs a gold answer"):
            gold_answers(nothing)


def test_64_threads_with_hostile_answers_neither_hang_nor_miscount():
    pool = GradingPool(Limits(seconds=1.0), size=2)
    responses = [r"\boxed{4}" if i % 2 else HOSTILE[(i // 2) % len(HOSTILE)] for i in range(64)]
    problem = Problem("x", "", "", "math", ("4",))
    with ThreadPoolExecutor(64) as threads:
        verdicts = [graded[0] for graded in threads.map(lambda text: pool.grade(problem, text), responses)]
    pool.close()
    assert [verdict == "correct" for verdict in verdicts] == [i % 2 == 1 for i in range(64)]
    assert {"timeout", "unparsed"} & set(verdicts), verdicts


def test_a_time_out_is_reported_and_the_next_response_is_graded():
    result = compute_score("math", r"\boxed{9^{9^{9^{9^{9}}}}}", "4", seconds=0.5, graders=1)
    assert result["score"] == 0.0 and result["timeout"] + result["error"] + result["unparsed"] <= 1.0
    assert compute_score("math", r"\boxed{4}", "4", seconds=5.0, graders=1)["score"] == 1.0


def test_a_worker_that_dies_is_an_error_and_is_replaced():
    pool = GradingPool(Limits(seconds=20.0), size=1)
    [worker] = pool.workers
    problem = Problem("x", "", "", "math", ("4",))
    assert pool.grade(problem, r"\boxed{4}")[0] == "correct"
    os.kill(worker.process.pid, signal.SIGSTOP)  # so that it dies with the response in hand
    with ThreadPoolExecutor(1) as thread:
        graded = thread.submit(pool.grade, problem, r"\boxed{4}")
        time.sleep(0.3)
        os.kill(worker.process.pid, signal.SIGKILL)
        verdict, _, detail = graded.result(timeout=600)
    assert verdict == "error" and "the worker died, exit code -9" in detail
    assert pool.grade(problem, r"\boxed{4}")[0] == "correct"

    worker.process.kill()  # one that died between two responses costs nobody a verdict
    worker.process.join()
    assert pool.grade(problem, r"\boxed{4}")[0] == "correct"
    pool.close()


def test_the_reward_runs_on_math_verify_as_installed():
    """In a process of its own: neither this process nor a grading worker imports what replaces functions."""
    code = """
import sys
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.workers import GradingPool
import verl_fgrpo.evaluation.graders as graders
from verl_fgrpo.rewards import compute_score
assert compute_score("math", "\\\\boxed{4}", "4")["score"] == 1.0
assert graders.grade_math(Problem("x", "", "", "math", ("4",)), "\\\\boxed{4}")[0] == "correct"
print([name for name in sys.modules if "fast_grading" in name])
import math_verify.grader, math_verify.parser
print(math_verify.grader.sympy_symbolic_eq.__module__, math_verify.parser.extract_match.__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "math_verify.grader math_verify.parser"]


def test_failures_are_counted_and_logged_at_every_doubling(caplog):
    tally = Tally()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            tally.add("correct")
            tally.add("timeout", "no verdict within 10 s")
    assert tally.counts == {"correct": 5, "timeout": 5}
    assert [record.getMessage() for record in caplog.records] == [
        f"reward: {failed} of {2 * failed} responses so far got 0.0 as 'timeout' (the last: no verdict within 10 s)"
        for failed in (1, 2, 4)
    ]


needs_data = pytest.mark.skipif(not BENCHMARKS.exists(), reason=NO_DATA)


def golds(count):
    """Real gold answers, spread over MATH train, MATH500, Minerva and OlympiadBench."""
    import pyarrow.parquet as pq

    found = [
        row["reward_model"]["ground_truth"]["target"]
        for row in pq.read_table(BENCHMARKS / "math_train.parquet").to_pylist()
    ]
    for name in ("math", "minerva", "olympiad_bench"):
        for row in json.loads((BENCHMARKS / f"{name}.json").read_text()):
            answer = row["answer"]
            found += [str(item) for item in (answer if isinstance(answer, list) else [answer])]
    found = [text for text in found if text.strip()]
    step = max(len(found) // count, 1)
    return found[::step][:count]


def same(spelling, gold):
    """math-verify's own verdict, in this main thread, where its signals work."""
    from math_verify import parse, verify

    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(spelling)))


@needs_data
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.full)])
def test_real_gold_answers_agree_with_math_verify_itself(count):
    texts = golds(count)
    neighbours = [*texts[1:], texts[0]]
    cases = []
    for gold, other in zip(texts, neighbours, strict=True):
        for spelling in (
            f"The final answer is \\boxed{{{gold}}}.",
            f"Answer: ${gold}$",
            f"<think>{other}</think> so \\boxed{{ {gold} }}",
            f"\\boxed{{{other}}}",
        ):
            cases.append((spelling, gold))
    pool = GradingPool(Limits(seconds=20.0), size=2)
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(
            threads.map(lambda case: pool.grade(Problem("x", "", "", "math", (case[1],)), case[0])[0], cases)
        )
    pool.close()
    assert not {"timeout", "error"} & set(verdicts) or count > 100
    disagreeing = [
        (case, verdict)
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict in ("correct", "wrong", "unparsed") and (verdict == "correct") != same(*case)
    ]
    assert disagreeing == []
    boxed = [verdict == "correct" for verdict in verdicts[::4]]
    assert sum(boxed) / len(boxed) > 0.97  # of the gold answers against themselves, what math-verify can parse


@pytest.mark.verl_start
def test_it_works_in_the_executor_threads_of_a_ray_actor():
    ray = pytest.importorskip("ray")

    class Worker:
        """As verl's naive reward manager calls it: a synchronous function in an event loop's executor."""

        async def run(self, items):
            import asyncio

            from verl_fgrpo.runs.reward import compute_score

            loop = asyncio.get_running_loop()
            calls = [
                loop.run_in_executor(None, lambda item=item: compute_score("math", *item, seconds=5.0))
                for item in items
            ]
            return [result["score"] for result in await asyncio.gather(*calls)]

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        actor = ray.remote(num_cpus=0)(Worker).remote()
        items = [(rf"\boxed{{{i}}}", str(i % 10)) for i in range(20)]
        scores = ray.get(actor.run.remote(items), timeout=1200)
    finally:
        ray.shutdown()
    assert scores == [1.0] * 10 + [0.0] * 10


def test_rays_module_that_the_fork_server_preloads_is_there():
    """A name that ray does not promise (evaluation/workers.py); without it workers would start slowly, in silence."""
    import importlib.util

    assert importlib.util.find_spec("ray._private.workers.default_worker") is not None
