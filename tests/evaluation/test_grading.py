"""Grading: five verdicts, limits that hold, equality with math-verify called one by one."""

import inspect
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import math_verify.parser
import numpy as np
import pytest

import verl_fgrpo.evaluation.warm  # noqa: F401 - fills math-verify's parser tables once, as in the workers
from verl_fgrpo.evaluation import graders, grading, workers
from verl_fgrpo.evaluation.answer_mix import answer_variants, sample_responses
from verl_fgrpo.evaluation.graders import grade_choice, grade_math
from verl_fgrpo.evaluation.grading import grade_samples, grade_store
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.samples import VERDICTS, Sample, SampleStore, SampleStoreError
from verl_fgrpo.evaluation.workers import Limits, Task, grade_tasks
from verl_fgrpo.tasks.maze.rewards import grade_maze

HALF = Problem("b", "half", "q", "math", (r"\frac{1}{2}",))


def sample(index: int, response: str, problem: Problem = HALF) -> Sample:
    return Sample(*problem.key, index, None, response, 1, "stop")


def grade(responses: list[str], problem: Problem = HALF, limits: Limits | None = None, workers: int = 1) -> list[str]:
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


def test_windows_end_after_so_many_samples_or_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.WINDOW", 3)
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.WINDOW_CHARACTERS", 10)
    source = iter([sample(index, "x" * length) for index, length in enumerate([1, 1, 1, 9, 1, 50, 2])])
    assert [[len(one.response) for one in grading._window(source)] for _ in range(5)] == [
        [1, 1, 1],
        [9, 1],
        [50],
        [2],
        [],
    ]


def test_tasks_end_after_so_many_responses_or_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.TASK_RESPONSES", 3)
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.TASK_CHARACTERS", 10)
    other = Problem("b", "q", "q", "math", ("1",))
    lengths = [1, 2, 3, 9, 4, 50, 5]  # all texts differ
    samples = [sample(index, "x" * length) for index, length in enumerate(lengths)] + [sample(0, "y", other)]
    problems = {HALF.key: HALF, other.key: other}
    tasks = list(grading._tasks(grading._grouped(samples, problems), problems))
    assert [[len(response) for response in task.responses] for task in tasks] == [[1, 2, 3], [9, 4], [50], [5], [1]]
    assert [task.problem for task in tasks] == [HALF] * 4 + [other]
    assert all(len(task.tokens) == len(task.responses) for task in tasks)


@pytest.mark.parametrize("read", [iter, list])  # the next window is read when all is graded, or while workers are busy
def test_equal_responses_are_graded_once(monkeypatch: pytest.MonkeyPatch, read: Callable[..., Any]) -> None:
    seen: list[str] = []

    def one_by_one(tasks, limits, num_workers, options):  # type: ignore[no-untyped-def]
        for task in read(tasks):
            for token, response in zip(task.tokens, task.responses, strict=True):
                seen.append(response)
                yield token, ("wrong", None, "")

    monkeypatch.setattr("verl_fgrpo.evaluation.grading.grade_tasks", one_by_one)
    monkeypatch.setattr("verl_fgrpo.evaluation.grading.WINDOW", 2)
    verdicts = grade(["a", "b", "a", "a", "b", "c", "a"])
    assert verdicts == ["wrong"] * 7
    assert Counter(seen) == {"a": 1, "b": 1, "c": 1}


def test_a_hanging_response_is_killed_and_the_others_are_unharmed() -> None:
    started = time.monotonic()
    responses = ["\\boxed{0.5}", "$9^{9^{9^9}}$", "\\boxed{0.25}", "$\\boxed{2^{10^{12}}}$", "\\boxed{1/2}"]
    verdicts = grade(responses, limits=Limits(seconds=1.0), workers=2)
    assert verdicts == ["correct", "timeout", "wrong", "timeout", "correct"]
    assert time.monotonic() - started < 30


def test_memory_limit_gives_error_not_a_dead_machine() -> None:
    responses = ["\\boxed{0.5}", "x" * 80_000_000]  # does not even fit into the worker
    samples = [sample(index, text) for index, text in enumerate(responses)]
    tasks = [Task(HALF, [one.response], [one.sample_idx]) for one in samples]
    results = dict(grade_tasks(tasks, Limits(seconds=20.0, memory_mib=64), 1))
    assert results[0][0] == "correct"
    assert results[1][0] == "error"


def test_a_worker_thathas_grown_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(memory_mib=256)
    worker = workers.start_worker(multiprocessing.get_context("forkserver"), limits)
    try:
        assert workers.grade_one(worker, HALF, "\\boxed{0.5}", limits)[0] == "correct"
        assert not workers.has_grown(worker, limits)
        worker.progress[3] -= 120 * 2**20
        assert not workers.has_grown(worker, limits)
        worker.progress[3] -= 20 * 2**20  # 140 of 256 MiB are more than half
        assert workers.has_grown(worker, limits)
    finally:
        workers.kill_worker(worker)

    started = []
    start = workers.start_worker
    monkeypatch.setattr(workers, "start_worker", lambda *args: started.append(start(*args)) or started[-1])
    monkeypatch.setattr(workers, "has_grown", lambda worker, limits: worker.progress[0] > 0)  # after its first task
    tasks = [Task(HALF, ["\\boxed{0.5}", "\\boxed{3}"], [2 * number, 2 * number + 1]) for number in range(3)]
    results = {token: graded[0] for token, graded in grade_tasks(tasks, limits, 1)}
    assert [results[token] for token in range(6)] == ["correct", "wrong"] * 3
    assert len(started) == 3 and not any(worker.process.is_alive() for worker in started)


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
    results = dict(grade_tasks(tasks, Limits(seconds=30), 1))
    assert results[0][0] == results[1][0] == "error"
    assert "exit code 7" in results[0][2]
    assert results[2][0] == "correct"


def test_a_failing_comparison_is_an_error_or_timeout_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from math_verify.errors import TimeoutException

    def fails(kind: type[BaseException]):  # type: ignore[no-untyped-def]
        def verify_(gold, target, raise_on_error=False):  # type: ignore[no-untyped-def]
            raise kind("no")

        return verify_

    for kind, expected in ((TypeError, "error"), (TimeoutException, "timeout")):
        graders._remembered_compare.cache_clear()
        monkeypatch.setattr("math_verify.verify", fails(kind))
        verdict, answer, detail = grade_math(HALF, "\\boxed{7}")
        assert (verdict, answer) == (expected, "7")
        assert detail.startswith("math-verify")
    graders._remembered_compare.cache_clear()


def test_grade_store_resumes_and_refuses_other_limits(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "samples", {"model": "x"})
    with store.writer() as writer:
        for index in range(4):
            writer.append(sample(index, f"\\boxed{{{index}/4}}"))
    done = grade_store(store, tmp_path / "verdicts", [HALF], progress=False)
    assert Counter(verdict.verdict for verdict in done.read()) == {"wrong": 3, "correct": 1}
    with store.writer() as writer:
        writer.append(sample(4, "none"))
    again = grade_store(store, tmp_path / "verdicts", [HALF], progress=False)
    assert len(list(again.read())) == 5
    with pytest.raises(SampleStoreError, match="seconds: stored 10.0, now 3"):
        grade_store(store, tmp_path / "verdicts", [HALF], Limits(seconds=3), progress=False)
    other = Problem(*HALF.key, "q", "math", ("2",))
    with pytest.raises(SampleStoreError, match="problems: stored"):
        grade_store(store, tmp_path / "verdicts", [other], progress=False)


def test_unknown_problem_is_named() -> None:
    with pytest.raises(KeyError, match="half"):
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
from verl_fgrpo.evaluation.problems import Problem
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
    [(_, graded)] = list(grade_tasks([Task(problem, ["x"], [0])], num_workers=1))
    assert graded[0] == "error"
    assert "SYNLOGIC_ROOT" in graded[2] and "clone" in graded[2]


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
