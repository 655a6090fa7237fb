"""What is left of a response when its thinking is taken out, and that every grader reads no more than that."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.evaluation.graders import GraderOptions, grade_choice, grade_ifeval, grade_math, grader_of
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.thinking import answer_text


@pytest.mark.parametrize(
    ("response", "left"),
    [
        ("no tag at all", "no tag at all"),
        ("<think>a</think>b", "b"),
        ("<think>a</think>\n\nb", "\n\nb"),
        ("a</think>b", "b"),  # the opening tag stood in the prompt
        ("<think>a", ""),
        ("a", "a"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<think>a</think>b<think>c", "b"),
        ("b<think>c", "b"),
        ("b<think>c</think>", "b"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think><think>a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("<THINK>a</THINK>b", "b"),
        ("<thinking>a</thinking>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        ("<|START_THINKING|>a<|END_THINKING|>b", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ("<|channel|>analysis<|message|>a", ""),
        ("<think></think>", ""),
        ("</think>", ""),
        ("<think>", ""),
        ("x < think > y", "x < think > y"),
        ("", ""),
    ],
)
def test_golden(response: str, left: str) -> None:
    assert answer_text(response) == left


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\\boxed{1}", "[THINK]", "\n"]), max_size=12))
def test_twice_is_once_and_an_unfinished_thought_leaves_nothing_behind_it(parts: list[str]) -> None:
    text = "".join(parts)
    left = answer_text(text)
    assert answer_text(left) == left and "think" not in left.lower()
    assert answer_text(text + "<think>" + "\\boxed{1}") == answer_text(text + "<think>")
    assert answer_text("thoughts " + text + "</think>answer").endswith("answer")


def test_a_hundred_thousand_tags_take_linear_time() -> None:
    assert answer_text("<think>" * 100_000) == ""
    assert answer_text("</think>" * 100_000 + "x") == "x"


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("<think>Perhaps \\boxed{9}.</think> The answer is \\boxed{8}.", "correct"),
        ("<think>Perhaps \\boxed{8}.</think> The answer is \\boxed{9}.", "wrong"),
        ("Perhaps \\boxed{9}.</think>\\boxed{8}", "correct"),
        ("<think>So it is \\boxed{8}. Wait", "unparsed"),
        ("<think>So it is \\boxed{8}.</think>", "unparsed"),
        ("\\boxed{8}", "correct"),
    ],
)
def test_mathematics(response: str, verdict: str, fast: bool) -> None:
    grade = grader_of("math", GraderOptions(fast=fast))
    assert grade(Problem("b", "p", "q", "math", ("8",)), response)[0] == verdict


def test_choices_and_mazes() -> None:
    choice = Problem("b", "p", "q", "choice", ("A",))
    assert grade_choice(choice, "<think>the answer is A")[0] == "unparsed"
    assert grade_choice(choice, "<think>the answer is B</think> The answer is A.")[0] == "correct"
    maze = Problem("maze", "p", "grid", "maze", ("UP UP",))
    assert grader_of("maze")(maze, "<think>LEFT</think>UP UP")[0] == "correct"
    assert grader_of("maze")(maze, "<think>UP UP")[0] == "unparsed"


def test_mathematics_without_tags_is_left_to_math_verify() -> None:
    problem = Problem("b", "p", "q", "math", ("8",))
    assert grade_math(problem, "The answer is 8.") == ("correct", "8", "")


def test_ifeval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions are about the answer: a comma in the thoughts breaks none."""

    class Checkers:
        InputExample = staticmethod(lambda **fields: fields)

        @staticmethod
        def test_instruction_following_strict(example: object, response: str) -> object:
            return SimpleNamespace(follow_instruction_list=["," not in response and bool(response.strip())])

    monkeypatch.setattr("verl_fgrpo.evaluation.graders.optional_module", lambda name, remedy: Checkers)
    extra = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    problem = Problem("ifeval", "1", "q", "ifeval", extra=extra)
    assert grade_ifeval(problem, "<think>Okay, no commas.</think>No comma here")[0] == "correct"
    assert grade_ifeval(problem, "<think>no commas</think>One, two")[0] == "wrong"
    assert grade_ifeval(problem, "<think>no commas then")[0] == "wrong"  # an empty answer follows nothing
