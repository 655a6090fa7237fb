"""Countdown: what is right, what hostile answers do, and how problems are split and recorded."""

import json
from dataclasses import asdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.cli import main
from verl_fgrpo.core.files import claim, write_parquet
from verl_fgrpo.tasks.common.study import load_runs
from verl_fgrpo.tasks.countdown import problems
from verl_fgrpo.tasks.countdown.arithmetic import evaluate
from verl_fgrpo.tasks.countdown.prepare import CountdownSettings, prepare
from verl_fgrpo.tasks.countdown.problems import Countdown, generate, read_problems, to_rows
from verl_fgrpo.tasks.countdown.rewards import compute_score

PROBLEM = Countdown((3, 7, 12), 33, "7*3 + 12")


def score(answer, problem=PROBLEM):
    return compute_score("reasoning_gym/countdown", answer, problem.truth)


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("7*3 + 12", 33, [7, 3, 12]),
        ("2 + 3*4", 14, [2, 3, 4]),
        ("(2 + 3)*4", 20, [2, 3, 4]),
        ("20/8/5", Fraction(1, 2), [20, 8, 5]),
        ("9 - 4 - 3", 2, [9, 4, 3]),
        ("-3 + 10", 7, [3, 10]),
        ("2--3", 5, [2, 3]),
        ("((7))", 7, [7]),
    ],
)
def test_values(text, value, numbers):
    assert evaluate(text) == (value, numbers)


@pytest.mark.parametrize(
    "text",
    ["", "7 3", "7 +", "(7", "7)", "2**3", "7//2", "07", "1_0", "7 = 7", "4/0", "4/(2 - 2)", "x", "3.5", "7\n+3", "٣",
     "1" * 201, "(" * 150 + "1" + ")" * 49, "-" * 200, "9999999"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError):
        evaluate(text)


@given(st.text(max_size=250) | st.text("0123456789+-*/() ", max_size=250))
def test_any_text_has_a_value_or_a_value_error(text):
    try:
        value, numbers = evaluate(text)
    except ValueError:
        return
    # Python's own arithmetic on exact fractions agrees (the text has digits, blanks, + - * / and brackets only)
    spaced = "".join(f"Fraction({word})" if word.isdigit() else word for word in _words(text.strip(" ")))
    assert set(text) <= set("0123456789+-*/() ") and value == eval(spaced, {"Fraction": Fraction})
    assert all(number >= 0 for number in numbers)


def _words(text):
    import re

    return re.findall(r"[0-9]+|[^0-9]", text)


@pytest.mark.parametrize(
    ("answer", "correct", "readable"),
    [
        ("7*3 + 12", 1, 1),
        ("  12 + 3 * 7\n", 1, 1),
        ("(12) + (7*3)", 1, 1),
        ("7*3 + 11", 0, 1),  # a number that is not given
        ("33", 0, 1),
        ("12 + 7*3 + 3 - 3", 0, 1),  # the right value, a number thrice
        ("12 + 7 + 3", 0, 1),
        ("7*3 + 12 = 33", 0, 0),
        ("The answer is 7*3 + 12", 0, 0),
        ("", 0, 0),
    ],
)
def test_reward(answer, correct, readable):
    assert score(answer) == {"score": correct, "acc": correct, "readable": readable}


def test_hostile_answers_run_nothing(tmp_path):
    mark = tmp_path / "mark"
    for attack in (
        f"__import__('pathlib').Path('{mark}').touch()",
        f"open('{mark}', 'w')",
        "9**9**9**9",
        "(" * 100_000,
        "7*3 + 12\0",
        "7*3 + 12 #",
    ):
        assert score(attack) == {"score": 0.0, "acc": 0.0, "readable": 0.0}
    assert not mark.exists()


def test_agrees_with_the_scorer_of_reasoning_gym_on_harmless_answers():
    countdown = pytest.importorskip("reasoning_gym.games.countdown", reason="pip install reasoning-gym")
    scorer = countdown.CountdownDataset(countdown.CountdownConfig(seed=1, size=1))
    entry = {"metadata": {"numbers": list(PROBLEM.numbers), "target": PROBLEM.target}}
    for answer in (
        "7*3 + 12",
        "12 + (3*7)",
        "-(3*7) + 12",
        "7*3 - 12",
        "12*7/3",
        "7 + 3 + 12",
        "33",
        "12 + 21",
        "7*3 +",
    ):
        assert (scorer.score_answer(answer, entry) == 1.0) == (score(answer)["acc"] == 1.0), answer


def test_problems_are_solvable_seeded_and_all_different():
    pytest.importorskip("reasoning_gym.games.countdown", reason="pip install reasoning-gym")
    problems = generate(30, 1)
    assert problems == generate(30, 1) and len({problem.key for problem in problems}) == 30
    assert not {problem.key for problem in problems} & {problem.key for problem in generate(30, 2)}
    for problem in problems:
        assert score(problem.answer, problem)["acc"] == 1.0 and len(problem.numbers) == 3
        shown = ", ".join(map(str, problem.numbers))
        assert problem.messages[-1]["content"] == f"Numbers: {shown}. Target: {problem.target}."
        assert 10 <= problem.target <= 100


def test_files_keep_problems_and_the_same_problem_in_two_of_them_is_refused(tmp_path):
    write_parquet(tmp_path / "train.parquet", to_rows([PROBLEM], "train"))
    assert read_problems(tmp_path / "train.parquet") == [PROBLEM]
    turned = Countdown((12, 3, 7), 33, "12 + 3*7")  # the same numbers in another order
    for name in ("supervised", "val"):
        write_parquet(tmp_path / f"{name}.parquet", to_rows([turned], name))
    with pytest.raises(ValueError, match="in two of the three files"):
        prepare(tmp_path, CountdownSettings(supervised=1, train=1, heldout=1), say=lambda text: None)


def test_a_folder_of_another_task_is_refused(tmp_path, monkeypatch):
    settings = CountdownSettings(supervised=1, train=1, heldout=1)
    claim(tmp_path / "now", asdict(settings))
    claim(tmp_path / "earlier", {name: value for name, value in asdict(settings).items() if name != "task"})
    monkeypatch.setitem(problems.DIFFICULTY, "max_value", 30)
    with pytest.raises(ValueError, match=r"task.difficulty.max_value: found 20, asked 30.*another --out"):
        prepare(tmp_path / "now", CountdownSettings(supervised=1, train=1, heldout=1), say=lambda text: None)
    with pytest.raises(ValueError, match=r"\(task: not there, asked .*another --out, .*delete the folder"):
        prepare(tmp_path / "earlier", settings, say=lambda text: None)


def write_run(run, gamma, correct):
    """A run of two held-out problems with 4 samples each; `correct` by step."""
    for step, counts in correct.items():
        lines = []
        for place, count in enumerate(counts):
            row = {"input": f"problem {place}", "output": "7*3 + 12", "gts": "33"}
            lines += [json.dumps(row | {"score": float(i < count), "acc": float(i < count)}) for i in range(4)]
        (run / "validation").mkdir(parents=True, exist_ok=True)
        (run / "validation" / f"{step}.jsonl").write_text("\n".join(lines) + "\n")
    (run / "rollouts").mkdir()
    rows = [{"input": "p", "output": "", "gts": "33", "score": float(i < 2), "acc": float(i < 2)} for i in range(4)]
    (run / "rollouts" / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"focal_gamma": gamma, "learning_rate": "2e-5", "group_size": "8", "overrides": "/a/path"}
    (run / "settings.json").write_text(json.dumps(settings))


def test_rows_and_report_come_from_the_validation_dumps(tmp_path, capsys):
    write_run(tmp_path / "grpo", "0", {0: (2, 1), 5: (4, 0), 10: (4, 0)})
    write_run(tmp_path / "f_grpo", "1.0", {0: (2, 1), 5: (3, 2)})
    cut = tmp_path / "f_grpo" / "validation" / "10.jsonl"
    cut.write_text((tmp_path / "f_grpo" / "validation" / "5.jsonl").read_text()[:-20])
    runs = [str(tmp_path / name) for name in ("grpo", "f_grpo")]
    assert main(["countdown", "record", "--results", str(tmp_path / "results"), "--seed", "3", *runs]) == 0
    assert "left out" in capsys.readouterr().err
    by_arm = {run.arm: run for run in load_runs(tmp_path / "results")}
    assert {step: sorted(c) for step, c in by_arm["grpo"].correct.items()} == {0: [1, 2], 5: [0, 4], 10: [0, 4]}
    assert {step: sorted(c) for step, c in by_arm["f_grpo"].correct.items()} == {0: [1, 2], 5: [2, 3]}
    assert "overrides" not in by_arm["grpo"].settings and by_arm["grpo"].num_samples == 4
    record = ["countdown", "record", "--results", str(tmp_path / "results"), "--seed", "3", runs[0]]
    assert main(record) == 0  # the same content again
    dump = tmp_path / "grpo" / "validation" / "10.jsonl"
    dump.write_text(dump.read_text().replace("1.0", "0.0"))
    assert main(record) == 1
    assert "recorded already" in capsys.readouterr().err

    assert main(["countdown", "report", "--results", str(tmp_path / "results")]) == 0
    report = (tmp_path / "results" / "report.md").read_text()
    # step 5 is the last that both have: pass@1 is 4/8 and 5/8
    assert "After 5 steps" in report and "50.0" in report and "62.5" in report and "+12.5" in report
    assert "GRPO loses 1 of 2 problems (2 solved before) and gains 0. F-GRPO loses 0 of 2" in report
    assert "low rate" not in report
    write_run(tmp_path / "grpo_low_lr", "0", {0: (2, 1), 5: (2, 1)})
    record[-1] = str(tmp_path / "grpo_low_lr")
    assert main(record) == main(["countdown", "report", "--results", str(tmp_path / "results")]) == 0
    # 5/8 - 3/8 at k = 1; both arms solve both problems at k = 4
    report = (tmp_path / "results" / "report.md").read_text()
    assert "F-GRPO minus GRPO, low rate, pass@k: k = 1 +25.0 [" in report and "k = 4 +0.0 [" in report
    assert (tmp_path / "results" / "results.png").stat().st_size > 10_000


def test_a_run_without_a_later_validation_is_no_row(tmp_path, capsys):
    write_run(tmp_path / "grpo", "0", {0: (2, 1)})
    assert main(["countdown", "record", "--results", str(tmp_path / "results"), str(tmp_path / "grpo")]) == 1
    assert "needs step 0 and a later one" in capsys.readouterr().err
