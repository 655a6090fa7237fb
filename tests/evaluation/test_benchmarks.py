"""The nine benchmarks: conversion and size checks on made-up rows, and on the real files where they are at hand."""

import json
from pathlib import Path

import pytest
from tiny_math import BENCHMARKS as DATA
from tiny_math import NO_DATA

from verl_fgrpo.evaluation.benchmarks import BENCHMARKS, load_benchmark, read_problems
from verl_fgrpo.evaluation.graders import grade_choice, grade_math
from verl_fgrpo.evaluation.problems import Problem, load_problems, save_problems

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
