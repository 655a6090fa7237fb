"""Grading: five verdicts, limits that hold, equality with math-verify called one by one."""

import importlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import math_verify.parser
import numpy as np
import pytest
from answer_mix import answer_variants, sample_responses

import verl_fgrpo.evaluation.preload  # noqa: F401 - fills math-verify's parser tables once, as in the workers
from verl_fgrpo.evaluation import graders, grading
from verl_fgrpo.evaluation.graders import DEFAULTS, GraderOptions, grade_choice, grade_math
from verl_fgrpo.evaluation.grading import Judged, grade_samples, grade_store
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.samples import VERDICTS, Sample, SampleStore, Verdict, VerdictStore
from verl_fgrpo.evaluation.summary import load_run
from verl_fgrpo.evaluation.workers import DEFAULT_LIMITS, GradingPool, Limits, Task, Worker, _grade
from verl_fgrpo.tasks.maze.rewards import grade_maze
from verl_fgrpo.tasks.proofs import mathlib

HALF = Problem("b", "half", "q", "math", (r"\frac{1}{2}",))


def sample(index: int, response: str, problem: Problem = HALF) -> Sample:
    return Sample(*problem.key, index, None, response, 1, "stop")


def graded_by_token(
    tasks: list[Task], limits: Limits = DEFAULT_LIMITS, options: GraderOptions = DEFAULTS
) -> dict[Any, graders.Graded]:
    with GradingPool(limits, 1, options) as pool:
        return dict(pool.grade_tasks(tasks))


def grade(
    responses: list[str], problem: Problem = HALF, limits: Limits = DEFAULT_LIMITS, workers: int = 1
) -> list[str]:
    samples = [sample(index, text, problem) for index, text in enumerate(responses)]
    verdicts = list(grade_samples(samples, {problem.key: problem}, limits, workers))
    assert sorted(verdict.sample_idx for verdict in verdicts) == list(range(len(responses)))
    return [verdict.verdict for verdict in sorted(verdicts, key=lambda verdict: verdict.sample_idx)]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"so $\boxed{\frac{1}{2}}$", "correct"),
        (r"\boxed{0.5}", "correct"),
        (r"$\boxed{\frac{2}{4}}$", "correct"),
        (r"Answer: 1/2", "correct"),
        (r"first $\boxed{3}$, then corrected: $\boxed{\dfrac12}$", "correct"),
        (r"$\boxed{3}$", "wrong"),
        ("I do not know", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_math_golden(response: str, expected: str) -> None:
    assert grade_math(HALF, response)[0] == expected


@pytest.mark.parametrize("digits", ["\u0661\u0662", "\u07c1\u07c2"], ids=["Arabic", "N'Ko"])
def test_digits_that_math_verify_cannot_read_are_an_error_outside_a_box(digits: str) -> None:
    twelve = Problem("b", "p", "q", "math", ("12",))
    verdict, _, detail = grade_math(twelve, f"the answer is {digits}")
    assert verdict == "error" and "math-verify, parsing" in detail
    assert grade_math(twelve, f"\\boxed{{{digits}}}")[0] == "wrong"
    assert graders.grade_math_extended(twelve, f"the answer is {digits}")[0] == "wrong"  # it has read a final answer


def test_any_of_several_gold_answers_counts() -> None:
    problem = Problem("b", "p", "q", "math", ("6630.65", "6630"))
    assert [grade_math(problem, f"\\boxed{{{text}}}")[0] for text in ("6630", "6630.65", "6631")] == [
        "correct",
        "correct",
        "wrong",
    ]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"thus \boxed{B}", ("correct", "B")),
        (r"thus \boxed{(B)}", ("correct", "B")),
        (r"thus \boxed{\text{B}}", ("correct", "B")),
        (r"thus \boxed{B) 3 m/s}", ("correct", "B")),
        (r"\boxed{A}, no, \boxed{C}", ("wrong", "C")),
        ("The answer is (b).", ("correct", "B")),
        ("**Answer:** B", ("correct", "B")),
        ("Answer: A. On reflection the answer is B.", ("correct", "B")),
        (r"\boxed{both}", ("unparsed", None)),
        ("the answer is a matter of taste", ("unparsed", None)),  # an article is no choice
        ("B is tempting", ("unparsed", None)),
    ],
)
def test_choice_golden(response: str, expected: tuple[str, str | None]) -> None:
    assert grade_choice(Problem("gpqa", "p", "q", "choice", ("B",)), response)[:2] == expected


def test_maze_uses_the_training_reward_and_names_the_path() -> None:
    problem = Problem("maze", "p", "grid", "maze", ("UP UP LEFT",))
    assert grade_maze(problem, " UP UP LEFT <|im_end|>") == ("correct", "UP UP LEFT", "")
    assert grade_maze(problem, "UP LEFT") == ("wrong", "UP LEFT", "")
    assert grade_maze(problem, "  ") == ("unparsed", None, "")


def test_extract_match_is_a_pure_function_of_the_captured_groups() -> None:
    """What `math_verify_cache` relies on: another text, the same captured groups, the same result."""
    original = math_verify.parser.extract_match
    if original.__closure__:  # replaced in this process
        original = inspect.getclosurevars(original).nonlocals["original_match"]
    config = math_verify.parser.LatexExtractionConfig()
    patterns = math_verify.parser.get_extraction_regexes([config, math_verify.parser.ExprExtractionConfig()])
    texts = [r"is $\frac{3}{4}$ and $2$", r"\boxed{(1, 2)}", "answer: 1,234.5", "answer is 3/4", r"$x=3$", r"$50\%$"]
    compared = 0
    for target_patterns, target in patterns:
        for pattern, _ in target_patterns:
            for text in texts:
                one = next(pattern.finditer(text), None)
                other = next(pattern.finditer("Some words before. " + text), None)
                if one and other and one.groupdict() == other.groupdict():
                    compared += 1
                    assert repr(original(one, target)) == repr(original(other, target))
    assert compared > 10


ONE_BY_ONE = """
import json, sys
from math_verify import parse, verify
for gold, responses in json.load(sys.stdin):
    expected = parse("\\\\boxed{" + gold + "}")
    print(json.dumps([verify(expected, parse(response)) for response in responses]))
"""


def test_verdicts_equal_math_verify_one_by_one_on_a_realistic_mix() -> None:
    rng = np.random.default_rng(0)
    golds = [r"\frac{3\sqrt{2}}{4}", "42", r"\left( 3, \frac{\pi}{2} \right)", r"(-\infty, 0) \cup [2, 5]", "1,2,3"]
    golds += [r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\text{even}", r"90^\circ", "x^2 + 2x", r"f(x) = 2x"]
    reasoning = "Let $x = 3$. Then $y = 4$ follows. \\[ z = 5 \\] The area is $12$.\n\nWe check it."
    mix = []
    for gold in golds[:6]:
        variants = answer_variants(gold, [other for other in golds if other != gold], rng, 18)
        mix.append((gold, sample_responses(reasoning, variants, 24, rng)))
    # In a process of its own, in which math-verify is as it was installed.
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE], input=json.dumps(mix), capture_output=True, text=True, check=True
    )
    for (gold, responses), line in zip(mix, done.stdout.splitlines(), strict=True):
        ours = [verdict == "correct" for verdict in grade(responses, Problem("mix", gold, "q", "math", (gold,)))]
        assert ours == json.loads(line)
        assert 0.05 < np.mean(ours) < 0.95  # the mix has both


def test_windows_end_after_so_many_samples_or_characters() -> None:
    source = iter(["x" * length for length in [1, 1, 1, 9, 1, 50, 2]])
    windows = grading._parts(source, str, 3, 10)
    assert next(windows) == ["x"] * 3 and next(source) == "x" * 9  # no further is read than needed
    assert [[len(text) for text in window] for window in windows] == [[1, 50], [2]]
    lengths = [[len(text) for text in one] for one in grading._parts(["x" * 9, "x", "x" * 50, "x"], str, 3, 10)]
    assert lengths == [[9, 1], [50], [1]] and list(grading._parts([], str, 3, 10)) == []


def test_tasks_end_after_so_many_responses_or_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.TASK_RESPONSES", 3)
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.TASK_CHARACTERS", 10)
    other = Problem("b", "q", "q", "math", ("1",))
    lengths = [1, 2, 3, 9, 4, 50, 5]  # all texts differ
    samples = [sample(index, "x" * length) for index, length in enumerate(lengths)] + [sample(0, "y", other)]
    problems = {HALF.key: HALF, other.key: other}
    groups = {(one.benchmark, one.problem_id, one.response): [one] for one in samples}
    tasks = list(grading._tasks(groups, problems))
    assert [[len(response) for response in task.responses] for task in tasks] == [[1, 2, 3], [9, 4], [50], [5], [1]]
    assert [task.problem for task in tasks] == [HALF] * 4 + [other]
    assert all(len(task.tokens) == len(task.responses) for task in tasks)


@pytest.mark.parametrize("read", [iter, list])  # the next window is read when all is graded, or while workers are busy
def test_equal_responses_are_graded_once(monkeypatch: pytest.MonkeyPatch, read: Callable[..., Any]) -> None:
    seen: list[str] = []

    def one_by_one(pool, tasks):  # type: ignore[no-untyped-def]
        for task in read(tasks):
            for token, response in zip(task.tokens, task.responses, strict=True):
                seen.append(response)
                yield token, ("wrong", None, "")

    monkeypatch.setattr("verl_fgrpo.evaluation.workers.GradingPool.grade_tasks", one_by_one)
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.WINDOW", 2)
    verdicts = grade(["a", "b", "a", "a", "b", "c", "a"])
    assert verdicts == ["wrong"] * 7
    assert Counter(seen) == {"a": 1, "b": 1, "c": 1}


def test_a_hanging_response_is_killed_and_the_others_are_unharmed() -> None:
    responses = ["\\boxed{0.5}", "$9^{9^{9^9}}$", "\\boxed{0.25}", "$\\boxed{2^{10^{12}}}$", "\\boxed{1/2}"]
    verdicts = grade(responses, limits=Limits(seconds=1.0), workers=2)
    assert verdicts == ["correct", "timeout", "wrong", "timeout", "correct"]


def test_memory_limit_gives_error_not_a_dead_machine() -> None:
    responses = ["\\boxed{0.5}", "x" * 80_000_000]  # does not even fit into the worker
    samples = [sample(index, text) for index, text in enumerate(responses)]
    tasks = [Task(HALF, [one.response], [one.sample_idx]) for one in samples]
    results = graded_by_token(tasks, Limits(seconds=20.0, memory_mib=64))
    assert results[0][0] == "correct"
    assert results[1][0] == "error"


def test_a_worker_that_has_grown_is_replaced_between_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(Limits(memory_mib=256))
    task = Task(HALF, ["\\boxed{0.5}", "\\boxed{3}"], [0, 1])
    try:
        assert [token for token, _ in worker.run(task)] == [0, 1]
        assert not worker.has_grown()
        worker.progress[3] -= 120 * 2**20
        assert not worker.has_grown()
        worker.progress[3] -= 20 * 2**20  # 140 of 256 MiB are more than half
        assert worker.has_grown()
        first = worker.process
        assert [graded[0] for _, graded in worker.run(task)] == ["correct", "wrong"]
        assert worker.process.pid != first.pid and not first.is_alive() and not worker.has_grown()
    finally:
        worker.kill()


def test_a_pool_left_early_ends_its_workers() -> None:
    pool = GradingPool(size=2)
    tasks = (Task(HALF, [f"\\boxed{{{number}}}"], [number]) for number in range(1000))
    graded = pool.grade_tasks(tasks)
    next(graded)
    processes = [worker.process for worker in pool.workers if worker.process is not None]
    graded.close()
    for process in processes:
        process.join(10)
    assert processes and not any(process.is_alive() for process in processes)


PARENT = """
import os, sys
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.workers import Limits, Task, Worker
worker = Worker(Limits(seconds=300.0))
for response in ["one", "\\\\boxed{9^{9^{9^{9}}}}"]:
    worker.run(Task(Problem("b", "p", "q", "math", ("1",)), [response], [0]))
    print(worker.process.pid, flush=True)
"""


def test_a_worker_dies_with_its_parent_whatever_it_computes() -> None:
    import psutil

    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))  # it has graded one response, and computes for minutes
    fork_server = worker.parent()
    assert fork_server is not None
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([worker, fork_server], timeout=600)[1] == []


def test_the_kernel_ends_a_worker_that_its_parent_does_not_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_has_time_left", lambda worker: True)  # as if the parent were stopped
    worker = Worker(Limits(seconds=0.5))
    try:
        task = Task(HALF, ["$9^{9^{9^9}}$", "\\boxed{0.5}"], [0, 1])
        assert [graded[0] for _, graded in worker.run(task)] == ["timeout", "correct"]
    finally:
        worker.kill()


HOSTILE = [
    "(" * 5_000 + "\\boxed{" * 500,
    "$" + "\\frac{1}{" * 300 + "1" + "}" * 300 + "$",
    "\\boxed{" + "{" * 20_000,
    "\\boxed{" + "}" * 20_000,
    "9" * 200_000,
    "\\boxed{" + "9" * 100_000 + "}",
    "\\boxed{10^{10^{10^{10}}}}",
    "\\boxed{(((2^{64})!)!)!}",
    "\0" * 1000 + "\\boxed{\0}",
    "\\boxed{\ud800\udfff}",
    "\\boxed{\u202e\u0661\u0662}",
    "\\boxed{__import__('os').system('touch PWNED')}",
    "answer: __import__('pathlib').Path('PWNED').touch()",
    "answer is (open('PWNED','w'))",
    "$\\input{/etc/passwd}$ \\write18{touch PWNED}",
    "\\begin{matrix}" * 2_000,
    "\\left(" * 2_000 + "1" + "\\right)" * 2_000,
    "$$$$$$" * 5_000,
    "final answer is " * 3_000,
    "\\sqrt{" * 800 + "2" + "}" * 800,
    "\\boxed{\\int_0^{\\infty} e^{-x^{x^{x}}} dx}",
    "\\boxed{\\sum_{k=1}^{10^{9}} \\frac{1}{k}}",
    "\\boxed{x^{1000000} - y^{1000000}}",
    "\\boxed{1" + ",1" * 5_000 + "}",
    "\\boxed{\\binom{10^{8}}{5 \\cdot 10^{7}}}",
]


def test_hostile_responses_all_get_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verdicts = grade(HOSTILE, limits=Limits(seconds=0.5, memory_mib=512), workers=2)
    assert set(verdicts) <= set(VERDICTS)
    assert "correct" not in verdicts
    assert not list(tmp_path.iterdir())  # no injected command ran


def mutated(count: int, seed: int) -> list[str]:
    """Hostile responses made from the list above: cut, repeated, joined, sprinkled with odd characters."""
    rng = np.random.default_rng(seed)
    odd = ["\0", "\ud800", "\u202e", "\\", "{", "}", "$", "\\boxed{", "9" * 50, "^", "\n", "\x1b[2J", "%s%n", "'; DROP"]
    responses = []
    for _ in range(count):
        text = HOSTILE[rng.integers(len(HOSTILE))]
        for _ in range(rng.integers(1, 4)):
            position = int(rng.integers(len(text) + 1))
            choice = rng.integers(4)
            if choice == 0:
                text = text[:position]
            elif choice == 1:
                text = text[:position] + odd[rng.integers(len(odd))] + text[position:]
            elif choice == 2:
                text = (text + HOSTILE[rng.integers(len(HOSTILE))])[:400_000]
            else:
                text = text[position:]
        responses.append(text)
    return responses


@pytest.mark.full
def test_ten_thousand_hostile_responses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.chdir(tmp_path)
    workers = os.cpu_count() or 1
    limits = Limits(seconds=0.1, memory_mib=512)
    problems = {HALF.key: HALF}
    samples = (sample(index, text) for index, text in enumerate(mutated(10_000, 1)))
    counts: Counter[str] = Counter()
    peak = 0
    for number, verdict in enumerate(grade_samples(samples, problems, limits, workers)):
        counts[verdict.verdict] += 1
        if number % 50 == 0:
            for child in psutil.Process().children(recursive=True):
                try:
                    peak = max(peak, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
        if number % 1000 == 999:
            print(f"{number + 1}: {dict(counts)}, largest worker {peak / 2**20:.0f} MiB", flush=True)
    print(dict(counts), f"largest worker {peak / 2**20:.0f} MiB")
    assert sum(counts.values()) == 10_000
    assert peak < 2**30
    assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_gives_error_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    # The maze grader's answers come from the problem; a problem whose `extra` cannot be unpickled kills the worker.
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os._exit, (7,))

    bad = Problem("b", "bad", "q", "math", ("1",), {"bomb": Bomb()})
    tasks = [Task(bad, ["x", "y"], [0, 1]), Task(HALF, ["\\boxed{0.5}"], [2])]
    results = graded_by_token(tasks, Limits(seconds=30))
    assert results[0][0] == results[1][0] == "error"
    assert "exit code 7" in results[0][2]
    assert results[2][0] == "correct"


def test_a_failing_comparison_is_an_error_or_timeout_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from math_verify.errors import TimeoutException

    def fails(kind: type[BaseException]):  # type: ignore[no-untyped-def]
        def verify_(gold, target, **options):  # type: ignore[no-untyped-def]
            raise kind("no")

        return verify_

    for kind, expected in ((TypeError, "error"), (TimeoutException, "timeout")):
        graders._remembered_compare.cache_clear()
        monkeypatch.setattr("math_verify.verify", fails(kind))
        verdict, answer, detail = grade_math(HALF, "\\boxed{7}")
        assert (verdict, answer) == (expected, "7")
        assert detail.startswith("math-verify")
    graders._remembered_compare.cache_clear()


@pytest.mark.parametrize("function", ["parser.extract_target_from_pred", "grader.sympy_expr_eq"])
def test_math_verifys_time_limit_is_cpu_time(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    module, name = function.split(".")
    plain = getattr(importlib.import_module(f"math_verify.{module}"), name)

    def starved(*args: object, **options: object) -> object:
        time.sleep(5.2)  # the machine was busy; math-verify's alarm rings after 5 s
        return plain(*args, **options)

    def slow(*args: object, **options: object) -> object:
        while True:
            pass

    before = signal.getsignal(signal.SIGPROF)
    graders._parsed_gold("\\frac{1}{2}")  # remembered
    monkeypatch.setattr(f"math_verify.{function}", starved)
    assert grade_math(HALF, "\\boxed{0.5}")[0] == "correct"
    monkeypatch.setattr(f"math_verify.{function}", slow)
    verdict, _, detail = grade_math(HALF, "\\boxed{7}")
    assert verdict == "timeout" and detail.endswith("over 5 s of CPU time")
    assert signal.getsignal(signal.SIGPROF) == before and signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


class SlowlyFinalized:
    def __del__(self) -> None:
        while True:
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_time_limit_that_rings_in_a_finalizer_rings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: object, **options: object) -> object:
        SlowlyFinalized()  # Python ignores what is raised in __del__
        while True:
            pass

    monkeypatch.setattr("math_verify.parser.extract_target_from_pred", slow)
    verdict, _, detail = grade_math(HALF, "\\boxed{7}")
    assert verdict == "timeout" and detail.endswith("over 5 s of CPU time")
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def store_of(path: Path, responses: list[str], problem: Problem = HALF) -> SampleStore:
    store = SampleStore(path, {"model": "x"})
    with store.writer() as writer:
        for index, response in enumerate(responses):
            writer.append(sample(index, response, problem))
    return store


def verdicts_of(store: VerdictStore) -> list[str]:
    return [row.verdict for row in sorted(store.read(), key=lambda row: row.sample_idx)]


def test_grade_store_resumes_and_refuses_other_limits(tmp_path: Path) -> None:
    store = store_of(tmp_path / "samples", [f"\\boxed{{{index}/4}}" for index in range(4)])
    done = grade_store(store, tmp_path / "verdicts", [HALF], progress=False)
    assert verdicts_of(done) == ["wrong", "wrong", "correct", "wrong"]
    with store.writer() as writer:
        writer.append(sample(4, "none"))
    said: list[str] = []
    again = grade_store(store, tmp_path / "verdicts", [HALF], progress=False, say=said.append)
    assert verdicts_of(again) == ["wrong", "wrong", "correct", "wrong", "unparsed"]
    assert len(said) == 1 and said[0].startswith("graded 1 samples in ")
    with pytest.raises(ValueError, match="seconds: found 10.0, asked 3.0.*--regrade"):
        grade_store(store, tmp_path / "verdicts", [HALF], Limits(seconds=3), progress=False)
    other = grade_store(store, tmp_path / "verdicts", [HALF], Limits(seconds=3), progress=False, regrade=True)
    assert verdicts_of(other) == verdicts_of(again) and other.settings["seconds"] == 3.0


def graded_now(store: SampleStore, path: Path, problem: Problem) -> list[str]:
    """The responses that a repeated `grade_store` hands to the workers."""
    seen: list[str] = []
    real = GradingPool.grade_tasks

    def spy(pool: GradingPool, tasks: Any) -> Any:
        tasks = list(tasks)
        seen.extend(response for task in tasks for response in task.responses)
        return real(pool, tasks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradingPool, "grade_tasks", spy)
        grade_store(store, path, [problem], progress=False)
    return seen


def test_a_verdict_belongs_to_its_response_problem_and_gold(tmp_path: Path) -> None:
    responses = ["\\boxed{0.5}", "\\boxed{3}", "none"]
    verdicts = tmp_path / "verdicts"
    store = store_of(tmp_path / "samples", responses)
    assert sorted(graded_now(store, verdicts, HALF)) == sorted(responses)
    assert graded_now(store, verdicts, HALF) == []

    # The samples' only part is lost; the same samples are drawn again, one with another text.
    shutil.rmtree(tmp_path / "samples")
    store = store_of(tmp_path / "samples", ["\\boxed{4}", *responses[1:]])
    assert graded_now(store, verdicts, HALF) == ["\\boxed{4}"]
    assert verdicts_of(VerdictStore(verdicts)) == ["wrong", "wrong", "unparsed"]
    assert graded_now(store, verdicts, HALF) == []

    three = Problem(*HALF.key, "q", "math", ("3",))  # the gold answer was mended
    assert sorted(graded_now(store, verdicts, three)) == sorted(["\\boxed{4}", *responses[1:]])
    assert verdicts_of(VerdictStore(verdicts)) == ["wrong", "correct", "unparsed"]

    shutil.rmtree(tmp_path / "samples")  # fewer samples than verdicts: those left over go
    assert graded_now(store_of(tmp_path / "samples", ["\\boxed{4}"]), verdicts, three) == []
    assert verdicts_of(VerdictStore(verdicts)) == ["wrong"]


def test_judged_tells_which_verdicts_are_on_the_samples_there() -> None:
    judged = Judged([HALF], {"seconds": 1.0})
    one = sample(3, "a")
    judged.add(one)
    digest = judged.digest(one)
    assert judged.holds(Verdict("b", "half", 3, "wrong", None, "", digest)) and judged.samples == 1
    for other in (
        Verdict("b", "half", 3, "wrong", None, ""),  # of an earlier version
        Verdict("b", "half", 2, "wrong", None, "", digest),
        Verdict("b", "half", 2, "wrong", None, "", "0" * 16),
        Verdict("b", "half", 9, "wrong", None, "", digest),
        Verdict("b", "other", 3, "wrong", None, "", digest),
    ):
        assert not judged.holds(other)
    changed = [replace(one, response="b"), replace(one, finish_reason="length"), replace(one, response="\ud800")]
    judges = [Judged([HALF], {"seconds": 2.0})]
    judges += [Judged([replace(HALF, **{name: value})], {"seconds": 1.0}) for name, value in CHANGES.items()]
    digests = [digest, *(judged.digest(row) for row in changed), *(judge.digest(one) for judge in judges)]
    assert len(set(digests)) == len(digests) == 5 + len(CHANGES)
    with pytest.raises(ValueError, match="unknown problem.*half"):
        Judged([], {}).digest(one)


def test_a_report_refuses_verdicts_on_other_responses_or_golds(tmp_path: Path) -> None:
    save_problems([HALF], tmp_path / "problems.jsonl")
    store = store_of(tmp_path / "samples", ["\\boxed{0.5}", "\\boxed{3}"])
    grade_store(store, tmp_path / "verdicts", [HALF], progress=False)
    assert int(load_run(tmp_path).problems[HALF.key].correct.sum()) == 1
    shutil.rmtree(tmp_path / "samples")
    store = store_of(tmp_path / "samples", ["\\boxed{0.5}", "\\boxed{4}"])
    with pytest.raises(ValueError, match="1 verdicts on b/half are on responses or gold answers that have changed"):
        load_run(tmp_path)
    grade_store(store, tmp_path / "verdicts", [HALF], progress=False)
    load_run(tmp_path)
    save_problems([replace(HALF, answers=("4",))], tmp_path / "problems.jsonl")
    with pytest.raises(ValueError, match="2 verdicts on b/half are on"):
        load_run(tmp_path)


CHANGES: dict[str, Any] = {"answers": ("1/2",), "prompt": "r", "kind": "maze", "extra": {"a": 1}}


def test_regrade_follows_a_link_and_is_refused_while_another_grades(tmp_path: Path) -> None:
    store = store_of(tmp_path / "samples", ["\\boxed{0.5}"])
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "verdicts"
    link.symlink_to(tmp_path / "elsewhere")
    verdicts = grade_store(store, link, [HALF], progress=False)
    with verdicts.writer() as writer:
        writer.append(Verdict(*HALF.key, 7, "error", None, "left over"))
        writer.flush()
        before = [path.read_bytes() for path in verdicts.part_paths()]
        with pytest.raises(ValueError, match="another process"):
            grade_store(store, link, [HALF], progress=False, regrade=True)
        assert [path.read_bytes() for path in verdicts.part_paths()] == before
    again = grade_store(store, link, [HALF], Limits(seconds=5), progress=False, regrade=True)
    assert verdicts_of(again) == ["correct"] and link.is_symlink()
    assert list((tmp_path / "elsewhere" / "parts").glob("*.gz"))
    with pytest.raises(ValueError, match="kind 'sample'"):  # a folder of something else is not emptied
        grade_store(store, tmp_path / "samples", [HALF], progress=False, regrade=True)
    shutil.rmtree(tmp_path / "elsewhere" / "parts")
    (tmp_path / "elsewhere" / "parts").symlink_to(tmp_path / "samples" / "parts")
    with pytest.raises(ValueError, match="is a link to the rows of .*samples"):
        grade_store(store, link, [HALF], progress=False, regrade=True)
    assert len(list(store.read())) == 1


def test_a_missing_grader_is_refused_before_anything_is_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNLOGIC_ROOT", raising=False)
    game = synlogic("last", answer="yes")
    store = store_of(tmp_path / "samples", ["so: yes"], game)
    with pytest.raises(RuntimeError, match="kind synlogic cannot be graded: SynLogic.*SYNLOGIC_ROOT"):
        grade_store(store, tmp_path / "verdicts", [game], options=PROGRAMS_ALLOWED, progress=False)
    assert list(VerdictStore(tmp_path / "verdicts").read()) == []
    for kind, needed in (("ifeval", "instruction_id_list"), ("synlogic", "task")):
        bare = Problem(*game.key, "q", kind)
        with pytest.raises(RuntimeError, match=f"of kind {kind} has no {needed} in `extra`"):
            grade_store(store, tmp_path / kind, [bare], progress=False)


def test_a_lean_that_is_missing_is_refused_before_anything_is_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theorem = Problem("lean", "1", "q", "mathlib", ("theorem t : True := by",))
    store = store_of(tmp_path / "samples", ["  trivial\n```"], theorem)
    graded: dict[str, Any] = {}
    monkeypatch.setattr(GradingPool, "grade", lambda pool, *asked: _grade(graded, *asked, PROGRAMS_ALLOWED))
    for name, value, told in (
        ("LEAN_REPL", "", "LEAN_REPL is not set"),
        ("LEAN_REPL", "false", "LEAN_PROJECT is not set"),
        ("LEAN_PROJECT", str(tmp_path / "none"), "is no folder"),
        ("LEAN_PROJECT", str(tmp_path), "the process ended"),  # `false` does so at once
        ("LEAN_REPL", "no_such_program", "is no program; set LEAN_REPL"),
    ):
        monkeypatch.setenv(name, value)
        mathlib._pool.cache_clear()
        with pytest.raises(RuntimeError, match=f"kind mathlib cannot be graded: .*{told}"):
            grade_store(store, tmp_path / "verdicts", [theorem], options=PROGRAMS_ALLOWED, progress=False)
    assert list(VerdictStore(tmp_path / "verdicts").read()) == []


def test_lean_has_the_memory_it_needs_in_a_worker_of_default_limits() -> None:
    theorem = Problem("proofs", "1", "q", "proofs", ("A → A",))
    with GradingPool(Limits()) as pool:
        assert pool.grade(theorem, "fun h1 => h1")[0] == "correct"
        assert pool.grade(theorem, "fun h1 => ( h1 , h1 )")[0] in ("wrong", "unparsed")


PROGRAMS_ALLOWED = GraderOptions(allow_code_execution=True)


@pytest.mark.parametrize("kind", graders.PROGRAMS)
def test_responses_that_are_programs_are_refused_unless_allowed(tmp_path: Path, kind: str) -> None:
    game = replace(synlogic("last", answer="yes"), kind=kind, answers=("theorem t : True := by",))
    store = store_of(tmp_path / "samples", ["so: yes"], game)
    with pytest.raises(RuntimeError, match=f"kind {kind} cannot be graded: .*runs .*--allow-code-execution"):
        grade_store(store, tmp_path / "verdicts", [game], progress=False)
    assert list(VerdictStore(tmp_path / "verdicts").read()) == []


def test_the_extended_reading_says_how_many_verdicts_differ(tmp_path: Path) -> None:
    store = store_of(tmp_path / "samples", ["\\boxed{50\\%}", "\\boxed{0.5}", "\\boxed{3}"])
    options = GraderOptions(reading="extended-4")
    verdicts = grade_store(store, tmp_path / "verdicts", [HALF], options=options, progress=False)
    rows = [(row.verdict, row.detail) for row in verdicts.read()]
    assert sorted(rows) == [("correct", ""), ("correct", "default reading: wrong"), ("wrong", "")]
    assert graders.reading_note(verdicts.settings["options"], rows) == (
        "reading extended-4: 1 of 3 verdicts differ from the default reading's "
        "(1 correct here only, 0 correct there only)"
    )
    assert graders.reading_note({}, []) == "reading default (math-verify unchanged)"


def test_an_error_of_the_machine_is_graded_again(tmp_path: Path) -> None:
    responses = ["\\boxed{0.5}", "\\boxed{3}"]
    store = store_of(tmp_path / "samples", responses)
    settings = grading.grading_settings(Limits())
    judged = Judged([HALF], settings)
    details = ["ModuleNotFoundError: no lm_eval", "the worker died, exit code -11"]
    with VerdictStore(tmp_path / "verdicts", settings).writer() as writer:
        for row, detail in zip(store.read(), details, strict=True):
            writer.append(Verdict(*HALF.key, row.sample_idx, "error", None, detail, judged.digest(row)))
    assert verdicts_of(grade_store(store, tmp_path / "verdicts", [HALF], progress=False)) == ["correct", "error"]


def test_a_refused_prompt_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "samples", {"model": "x"})
    with store.writer() as writer:
        writer.append(sample(0, "\\boxed{0.5}"))
        writer.append(Sample(*HALF.key, 1, 5, "", 0, "refused", "HTTP 400: too long"))
        writer.append(sample(2, ""))
    done = sorted(
        grade_store(store, tmp_path / "verdicts", [HALF], progress=False).read(), key=lambda row: row.sample_idx
    )
    assert [(row.verdict, row.detail) for row in done] == [
        ("correct", ""),
        ("refused", "HTTP 400: too long"),
        ("unparsed", ""),
    ]


def fake_pool(monkeypatch: pytest.MonkeyPatch, fast: Callable[[str], str], unchanged: Callable[[str], str]) -> None:
    """Pools that grade by these functions instead of starting workers."""

    def grade_tasks(pool: GradingPool, tasks: Any) -> Any:
        grade_one = fast if pool.workers[0].options.fast else unchanged
        for task in tasks:
            for token, response in zip(task.tokens, task.responses, strict=True):
                yield token, (grade_one(response), response, "")

    monkeypatch.setattr(GradingPool, "grade_tasks", grade_tasks)
    monkeypatch.setattr(GradingPool, "grade", lambda pool, problem, response: ("unparsed", None, ""))


def test_fast_grading_compares_a_sample_and_math_verify_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    responses = [f"answer {index}" for index in range(2000)]
    store = store_of(tmp_path / "samples", responses * 2)
    said: list[str] = []
    fake_pool(monkeypatch, lambda text: "wrong", lambda text: "wrong")
    options = GraderOptions(fast=True)
    monkeypatch.setattr(grading, "CHECKED_AT_ONCE", 10)
    grade_store(store, tmp_path / "same", [HALF], options=options, progress=False, say=said.append)
    compared = int(said[1].split()[2])
    assert 30 < compared < 110  # one in 32 of 2,000 and the first: 62 +- 4 * 8
    assert said[1].endswith("graded by unchanged math-verify too, 0 verdicts differ")

    fake_pool(monkeypatch, lambda text: "correct", lambda text: "timeout" if text.endswith("7") else "wrong")
    with pytest.raises(
        RuntimeError, match=r"differs from math-verify in \d+ of \d+.*\nb/half sample \d+: fast correct"
    ):
        grade_store(store, tmp_path / "other", [HALF], options=options, progress=False)
    stored = Counter(row.verdict for row in VerdictStore(tmp_path / "other").read())
    assert sum(stored.values()) == 4000  # all are stored, and math-verify's verdict counts where both were asked
    assert stored["wrong"] + stored["timeout"] == 2 * compared and stored["timeout"] > 0


@pytest.mark.full
def test_fast_and_unchanged_grading_agree_on_a_realistic_mix(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    variants = answer_variants(r"\frac{1}{2}", ["3", "x^2", r"\sqrt{2}"], rng, 40)
    store = store_of(tmp_path / "samples", sample_responses("Let $x = 3$.", variants, 300, rng))
    plain = grade_store(store, tmp_path / "plain", [HALF], progress=False)
    fast = grade_store(store, tmp_path / "fast", [HALF], options=GraderOptions(fast=True), progress=False)
    assert verdicts_of(plain) == verdicts_of(fast)


def test_unknown_problem_is_named() -> None:
    with pytest.raises(ValueError, match="half"):
        list(grade_samples([sample(0, "x")], {}))


def synlogic(task: str, **data: Any) -> Problem:
    game = {"question": "q", "answer": "", "difficulty": 1, "metadata": {}, **data}
    return Problem("synlogic", task, "q", "synlogic", extra={"task": f"s/{task}", "game_data_str": json.dumps(game)})


FAKE_SYNLOGIC = {
    "base/data.py": """
import json
class Data:
    def __init__(self, **fields):
        self.__dict__.update(fields)
    @classmethod
    def from_json_str(cls, text):
        return cls(**json.loads(text))
""",
    "task2verifier.py": """
class Last:
    def extract_answer(self, response):
        return response.rpartition(": ")[2] if ": " in response else ""
    def verify(self, data, response):
        return self.extract_answer(response) == data.answer
class Grid(Last):
    def extract_answer(self, response, size):
        return response[-size:]
    def verify(self, data, response):
        return self.extract_answer(response, len(data.answer)) == data.answer
verifier_classes = {"last": Last, "grid": Grid}
""",
}
SYNLOGIC = """
import json, sys
from verl_fgrpo.evaluation.graders import grade_synlogic
from verl_fgrpo.evaluation.problems import Problem, save_problems
for task, extra, response in json.load(sys.stdin):
    problem = Problem("synlogic", task, "q", "synlogic", extra=extra)
    print("GRADED", json.dumps(grade_synlogic(problem, response)))
"""


def grade_with_synlogic(root: Path, cases: list[tuple[Problem, str]]) -> list[list[Any]]:
    """In a process of its own: a checkout puts modules named `base` and `games` on the path."""
    text = json.dumps([(problem.problem_id, problem.extra, response) for problem, response in cases])
    environment = os.environ | {"SYNLOGIC_ROOT": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SYNLOGIC], input=text, env=environment, capture_output=True, text=True, check=True
    )
    return [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("GRADED")]


def test_synlogic_verdicts_and_answers(tmp_path: Path) -> None:
    for name, text in FAKE_SYNLOGIC.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    last, grid = synlogic("last", answer="yes"), synlogic("grid", answer="ab")
    cases = [(last, "so: yes"), (last, "so: no"), (last, "I do not know"), (grid, "it is ab"), (grid, "it is")]
    assert grade_with_synlogic(tmp_path, cases) == [
        ["correct", "yes", ""],
        ["wrong", "no", ""],
        ["unparsed", None, ""],
        ["correct", None, ""],  # its extract_answer wants more than the response
        ["wrong", None, ""],
    ]


@pytest.mark.skipif(not os.environ.get("SYNLOGIC_ROOT"), reason="SYNLOGIC_ROOT names no checkout of SynLogic")
def test_synlogic_with_its_own_verifiers() -> None:
    lies = synlogic("web_of_lies", answer="yes, no, yes")
    numbers = synlogic("game_of_24", metadata={"numbers": [4, 6, 1, 1], "operators": ["+", "-", "*"], "result": 24})
    cases = [
        (lies, "I think so.\nThe answer is: **yes, no, yes**."),
        (lies, "The answer is: **yes, yes, yes**."),
        (lies, "I cannot tell."),
        (numbers, "```python\n4 * 6 * 1 * 1\n```"),
        (numbers, "```python\n4 + 6\n```"),
        (numbers, "no code"),
        (numbers, "```python\n4 + 6 + 1 + 1\n```"),
    ]
    verdicts = [verdict for verdict, _, _ in grade_with_synlogic(Path(os.environ["SYNLOGIC_ROOT"]), cases)]
    assert verdicts[:6] == ["correct", "wrong", "unparsed", "correct", "wrong", "unparsed"]
    assert verdicts[6] == "correct"  # 12 is not 24: a mistake of that verifier, see `grade_synlogic`


def test_graders_that_need_more_say_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNLOGIC_ROOT", raising=False)
    problem = Problem("synlogic", "p", "q", "synlogic", extra={"task": "game_of_24", "game_data_str": "{}"})
    graded = graded_by_token([Task(problem, ["x"], [0])], options=PROGRAMS_ALLOWED)[0]
    assert graded[0] == "error"
    assert "SYNLOGIC_ROOT" in graded[2] and "clone" in graded[2]


def test_nltk_data_that_an_instruction_needs_is_asked_for_before_grading(monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(example: SimpleNamespace, response: str) -> SimpleNamespace:
        if response and "length_constraints:number_sentences" in example.instruction_id_list:
            raise LookupError("Resource punkt_tab not found. >>> import nltk")
        return SimpleNamespace(follow_instruction_list=[bool(response)])

    checkers = SimpleNamespace(InputExample=SimpleNamespace, test_instruction_following_strict=follow)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.ifeval.utils", checkers)  # type: ignore[arg-type]
    pool = SimpleNamespace(grade=lambda problem, response: _grade({}, problem, response, GraderOptions()))
    problems = [
        Problem("ifeval", f"{number}", "p", "ifeval", extra={"instruction_id_list": names, "kwargs": [{}] * len(names)})
        for number, names in enumerate((["length_constraints:number_sentences", "a:b"], ["a:b"]))
    ]
    grading._refuse_missing_graders(pool, problems[1:])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"kind ifeval cannot be graded: .*python -m nltk\.downloader punkt_tab"):
        grading._refuse_missing_graders(pool, problems)  # type: ignore[arg-type]


def test_ifeval_by_lm_eval_checkers() -> None:
    pytest.importorskip("lm_eval.tasks.ifeval.utils", reason="needs lm-eval[ifeval]")
    extra = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    problem = Problem("ifeval", "1", "Write without commas.", "ifeval", extra=extra)
    responses = ["No comma here", "One, two", "Sure, here it is:\nNo comma here"]
    strict = [graders.grade_ifeval(problem, text, "strict")[0] for text in responses]
    loose = [graders.grade_ifeval(problem, text, "loose")[0] for text in responses]
    assert strict == ["correct", "wrong", "wrong"]
    assert loose == ["correct", "wrong", "correct"]  # loose also tries the text without its first line


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="seconds=0"):
        Limits(seconds=0)
    with pytest.raises(ValueError, match="memory_mib=1"):
        Limits(memory_mib=1)
