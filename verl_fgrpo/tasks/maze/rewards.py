"""verl's reward function for mazes: 1.0 for the target action sequence, 0.0 for anything else.

Use it with `reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.maze.rewards` and `name=compute_score`.
"""

from typing import Any

from verl_fgrpo.evaluation.graders import ANSWER_CHARACTERS, Graded
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.tasks.common.tokenizer import END


def is_correct_answer(answer: str, target: str) -> bool:
    """Whether `answer` is the target action sequence, with or without the end token after it.

    The end token is optional because verl decodes without special tokens. This loses nothing while the response limit
    exceeds the longest target path: an answer that equals its target then has room for one more token, so it stopped
    by itself. Words are separated by blanks alone: a newline is a token of the vocabulary, so one inside an answer
    makes it wrong.
    """
    words = [word for word in answer.strip(" ").removesuffix(END).split(" ") if word]
    return words == target.split(" ")


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float | bool]:
    """Binary reward R = 1[actions == target] (arXiv 2602.06717, section 5.2: one target action sequence a maze).

    In a perfect maze only one simple path leads to the goal, so this equals walking the maze (tested). An answer cut
    off before the goal, a wrong turn, a detour and an empty answer are all wrong.

    Args:
        data_source: unused; part of verl's interface.
        solution_str: the decoded response, e.g. `"UP UP RIGHT RIGHT"`.
        ground_truth: the target actions, the same format.
        extra_info: unused.
        kwargs: unused.
    Returns:
        `score` 1.0 or 0.0, and `acc`, the same as a bool.
    """
    correct = is_correct_answer(solution_str, ground_truth)
    return {"score": float(correct), "acc": correct}


def grade_maze(problem: Problem, response: str) -> Graded:
    """The maze package's own reward decides; the answer is the path, so that distinct paths can be counted.

    An empty response is unparsed; any other one that is not the target path is wrong.
    """
    path = " ".join(response.strip().removesuffix(END).split())
    if not path:
        return "unparsed", None, ""
    correct = any(is_correct_answer(response, answer) for answer in problem.answers)
    return ("correct" if correct else "wrong"), path[:ANSWER_CHARACTERS], ""
