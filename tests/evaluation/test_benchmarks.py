"""The nine benchmarks: conversion and size checks on made-up rows, and on the real files where they are at hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_math import BENCHMARKS as DATA
from tiny_math import NO_DATA

from verl_fgrpo.evaluation.benchmarks import BENCHMARKS, load_benchmark, read_problems
from verl_fgrpo.evaluation.graders import grade_choice, grade_math
from verl_fgrpo.evaluation.problems import (
    Problem,
    gold_answers,
    graded_problem,
    load_problems,
    problem_id_of,
    save_problems,
)

real_data = pytest.mark.skipif(not DATA.is_dir(), reason=NO_DATA)


def write(path: Path, rows: list[dict]) -> Path:  # type: ignore[type-arg]
    path.write_text(json.dumps(rows))
    return path


def test_the_papers_nine_and_their_sizes() -> None:
    assert {name: spec.sizes for name, spec in BENCHMARKS.items() if spec.block} == {
        "aime24": (30,),
        "aime25": (30,),
        "amc23": (40,),
        "math500": (500,),
        "minerva": (272,),
        "olympiadbench": (674, 675),
        "gpqa": (198,),
        "ifeval": (541,),
        "synlogic": (),
    }


def test_columns_of_the_usual_releases(tmp_path: Path) -> None:
    rows = [
        {"problem": "p1", "answer": "1"},
        {"question": "p2", "final_answer": ["$2$", "$2.0$", "$2$"]},
        {"question": "p3", "answer": 142.0},
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p4"}],
            "reward_model": {"ground_truth": {"target": "4"}},
        },
        {"problem": "p5", "answer": "['9.6\\n']"},
    ]
    problems = load_benchmark("math500", write(tmp_path / "x.json", rows), check_size=False)
    assert [(one.prompt, one.answers) for one in problems] == [
        ("p1", ("1",)),
        ("p2", ("$2$", "$2.0$")),
        ("p3", ("142",)),
        ("p4", ("4",)),
        ("p5", ("9.6",)),
    ]


def test_wrong_size_unknown_columns_and_duplicates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives 1 problems, the benchmark has 30"):
        load_benchmark("aime24", write(tmp_path / "a.json", [{"problem": "p", "answer": "1"}]))
    with pytest.raises(ValueError, match="none of the columns"):
        load_benchmark("aime24", write(tmp_path / "b.json", [{"text": "p"}]), check_size=False)
    with pytest.raises(ValueError, match="occurs twice"):
        load_benchmark("aime24", write(tmp_path / "c.json", [{"problem": "p", "answer": "1"}] * 2), check_size=False)
    with pytest.raises(ValueError, match="'mmlu' is unknown"):
        load_benchmark("mmlu")


def test_gpqa_choices_are_in_a_fixed_order_and_the_letter_is_the_gold_one(tmp_path: Path) -> None:
    rows = [
        {
            "Question": f"q{number}?",
            "Correct Answer": "right",
            **{f"Incorrect Answer {i}": f"wrong{i}" for i in (1, 2, 3)},
        }
        for number in range(40)
    ]
    problems = load_benchmark("gpqa", write(tmp_path / "g.json", rows), check_size=False)
    for problem in problems:
        assert f"{problem.answers[0]}) right" in problem.prompt
        assert grade_choice(problem, f"\\boxed{{{problem.answers[0]}}}")[0] == "correct"
    assert {problem.answers[0] for problem in problems} == set("ABCD")
    assert problems == load_benchmark("gpqa", tmp_path / "g.json", check_size=False)


def test_ifeval_and_synlogic_rows(tmp_path: Path) -> None:
    row = {"key": 7, "prompt": "Do.", "instruction_id_list": ["a:b"], "kwargs": [{"n": 3, "m": None}]}
    [problem] = load_benchmark("ifeval", write(tmp_path / "i.json", [row]), check_size=False)
    assert (problem.problem_id, problem.extra["kwargs"]) == ("7", [{"n": 3}])
    row = {
        "data_source": "synlogic/game_of_24",
        "prompt": [{"role": "user", "content": "Make 24."}],
        "extra_info": {"game_data_str": "{}"},
    }
    [problem] = load_benchmark("synlogic", write(tmp_path / "s.json", [row]))
    assert (problem.kind, problem.extra["task"]) == ("synlogic", "synlogic/game_of_24")


def test_problem_files_round_trip_and_check(tmp_path: Path) -> None:
    problems = [Problem("a", "1", "q \ud800", "math", ("x", "y")), Problem("b", "1", "q", "ifeval", extra={"k": [1]})]
    save_problems(problems, tmp_path / "p.jsonl")
    assert load_problems([tmp_path / "p.jsonl"]) == problems
    assert load_problems([tmp_path / "p.jsonl"], ["b"]) == problems[1:]
    save_problems(problems[1:], tmp_path / "b.jsonl")
    renamed = [replace(problems[1], benchmark="gpqa")]  # id, kind and extra stay
    assert load_benchmark("gpqa", tmp_path / "b.jsonl", check_size=False) == renamed
    assert read_problems(tmp_path / "b.jsonl", "gpqa") == renamed
    with pytest.raises(ValueError, match=r"no problems of \['c'\]; the files hold \['a', 'b'\]"):
        load_problems([tmp_path / "p.jsonl"], ["c"])
    with pytest.raises(ValueError, match="occurs twice"):
        load_problems([tmp_path / "p.jsonl"] * 2)
    with pytest.raises(ValueError, match="no gold answer"):
        Problem("a", "2", "q", "math")


def test_verl_files_become_a_benchmark_with_their_own_ids(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "grid"}],
        "reward_model": {"ground_truth": "UP LEFT"},
        "extra_info": {"problem_id": "00ff"},
    }
    [problem] = read_problems(write(tmp_path / "m.json", [row, row]), "maze", "maze")
    assert problem == Problem("maze", "00ff", "grid", "maze", ("UP LEFT",))


def test_context_stands_before_the_question_and_other_parts_are_refused(tmp_path: Path) -> None:
    row = {"problem": "How long?", "context": "A train is 200 m long.", "answer": "200"}
    [problem] = read_problems(write(tmp_path / "a.json", [row]), "b")
    assert problem.prompt == "A train is 200 m long.\n\nHow long?"
    parts = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How long?"}]}]
    with pytest.raises(ValueError, match="b.json, row 0: the user turn is .* must be text: images"):
        read_problems(write(tmp_path / "b.json", [{"prompt": parts, "answer": "1"}]), "b")
    with pytest.raises(ValueError, match="one user turn, found 2"):
        read_problems(
            write(tmp_path / "c.json", [{"prompt": [{"role": "user", "content": "a"}] * 2, "answer": "1"}]), "b"
        )


GOLDS = [
    ("42", ("42",)),
    (42, ("42",)),
    (142.0, ("142",)),
    (0.5, ("0.5",)),
    ("42, 43", ("42, 43",)),
    (["42", 43], ("42", "43")),
    (("a", "a", " a "), ("a",)),
    ({"target": ["5"]}, ("5",)),
    ({"target": 5}, ("5",)),
    ("['9.6\\n']", ("9.6",)),
    (np.array(["1", "2"]), ("1", "2")),
    (np.float64(3.0), ("3",)),
    ("42.", ("42",)),
    ("$42.$", ("$42$",)),
    ("42。", ("42",)),
    (r"\frac{1}{2}.", (r"\frac{1}{2}",)),
    ("0.5.", ("0.5",)),
    ("9 p.m.", ("9 p.m.",)),
    ("1, 2, ...", ("1, 2, ...",)),
    ("4.5e33", (r"4.5 \times 10^{33}", "4.5e33")),
    ("1e-5", (r"1 \times 10^{-5}", "1e-5")),
    (1e22, ("10000000000000000000000",)),
    (10**400, ("1" + "0" * 400,)),
    ("2e", ("2e",)),
    ("x1e5", ("x1e5",)),
]


@pytest.mark.parametrize(("gold", "answers"), GOLDS)
def test_gold_answers(gold: object, answers: tuple[str, ...]) -> None:
    assert gold_answers(gold) == answers


@pytest.mark.parametrize(
    "gold",
    [None, float("nan"), float("inf"), True, "", "  ", [], [None], [["1"]], {"a": 1}, {"target": None}, object()],
)
def test_no_gold_answer(gold: object) -> None:
    with pytest.raises(ValueError, match="gold answer"):
        gold_answers(gold)


def test_what_was_written_is_kept_and_ids_stay(tmp_path: Path) -> None:
    rows = [{"problem": "p", "answer": "4.5e33"}, {"problem": "q", "answer": "42."}, {"problem": "r", "answer": "1"}]
    problems = load_benchmark("minerva", write(tmp_path / "m.json", rows), check_size=False)
    assert [problem.extra for problem in problems] == [
        {"original_answers": ["4.5e33"]},
        {"original_answers": ["42."]},
        {},
    ]
    assert [problem.problem_id for problem in problems] == [
        problem_id_of("p", ["4.5e33"]),
        problem_id_of("q", ["42."]),
        problem_id_of("r", ["1"]),
    ]
    assert grade_math(problems[0], r"\boxed{4.5 \times 10^{33}}")[0] == "correct"
    assert grade_math(problems[0], r"\boxed{4.5e33}")[0] == "correct"
    save_problems(problems, tmp_path / "m.jsonl")
    assert load_problems([tmp_path / "m.jsonl"]) == problems


def test_a_choice_needs_a_letter() -> None:
    assert graded_problem("b", "p", "q", "choice", "(d).").answers == ("D",)
    for gold in ("gold", 3, "K", ["A", "AB"]):
        with pytest.raises(ValueError, match="must be a letter from A to J"):
            graded_problem("b", "p", "q", "choice", gold)
    with pytest.raises(ValueError, match="'b', but it must be a letter from A to J"):  # as it would be stored
        Problem("b", "p", "q", "choice", ("b",))
    for kind in ("math", "choice", "maze", "proofs", "mathlib"):
        with pytest.raises(ValueError, match=f"of kind {kind} has no gold answer"):
            Problem("b", "p", "q", kind)


PROBLEM = {"benchmark": "b", "problem_id": "p", "prompt": "q", "kind": "math", "answers": ["1"], "extra": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": None}, "of kind math has no gold answer"),
        ({"answers": [None]}, "a gold answer is None"),
        ({"kind": "maths"}, "kind='maths'"),
        ({"prompt": 7}, "prompt is 7, but it must be text"),
        ({"problem_id": None}, "problem_id is None"),
        ({"extra": []}, r"extra is \[\], but it must be a JSON object"),
        ({"answer": "1"}, r"unknown columns \['answer'\].*verl-fgrpo data problems"),
    ],
)
def test_problem_files_tell_what_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(PROBLEM | {"problem_id": "o"}) + "\n" + json.dumps(PROBLEM | change))
    with pytest.raises(ValueError, match=f"p.jsonl, line 2: .*{message}"):
        load_problems([tmp_path / "p.jsonl"])


def test_one_answer_as_text_is_one_answer_and_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(PROBLEM | {"answers": "42", "problem_id": 7}))
    [problem] = load_problems([tmp_path / "p.jsonl"])
    assert (problem.problem_id, problem.answers) == ("7", ("42",))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="empty.jsonl holds no problem; make problem files with"):
        load_problems([tmp_path / "empty.jsonl"])


FILES = {
    "aime24": "aime.json",
    "aime25": "aime2025.parquet",
    "amc23": "amc.json",
    "math500": "math.json",
    "minerva": "minerva.json",
    "olympiadbench": "olympiad_bench.json",
    "gsm8k": "gsm8k.json",
}


@real_data
@pytest.mark.parametrize("name", FILES)
def test_real_files_have_the_papers_sizes(name: str) -> None:
    problems = load_benchmark(name, DATA / FILES[name])
    assert len(problems) in BENCHMARKS[name].sizes
    assert all(answer.strip() for problem in problems for answer in problem.answers)


@real_data
def test_real_gold_answers_are_right_when_boxed() -> None:
    """A gold answer that is not equal to itself could never be earned. (All of them in the full suite.)"""
    for name in ("aime25", "math500", "minerva", "olympiadbench"):
        for problem in load_benchmark(name, DATA / FILES[name])[::50]:
            verdict = grade_math(problem, f"Therefore the answer is \\boxed{{{problem.answers[0]}}}.")
            assert verdict[0] == "correct", (problem.answers, verdict)


@real_data
@pytest.mark.full
def test_all_real_gold_answers_are_right_when_boxed() -> None:
    failed = [
        (name, problem.answers[0])
        for name in FILES
        for problem in load_benchmark(name, DATA / FILES[name])
        if grade_math(problem, f"Therefore the answer is \\boxed{{{problem.answers[0]}}}.")[0] != "correct"
    ]
    assert failed == []
