"""The maze as the common experiment knows it."""

from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.evaluation.graders import Graded
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.tasks.common.experiment import Task
from verl_fgrpo.tasks.maze.dataset import read_parquet
from verl_fgrpo.tasks.maze.mazes import Maze, solve
from verl_fgrpo.tasks.maze.rewards import grade_maze
from verl_fgrpo.tasks.maze.tokenizer import TOKENIZER


def as_problem(maze: Maze) -> Problem:
    """The maze as the evaluation's commands know it."""
    return Problem("maze", maze.problem_id, maze.text, "maze", (" ".join(solve(maze)),))


def read_problems(data: Path) -> list[Problem]:
    """The held-out mazes of a prepared folder."""
    return [as_problem(maze) for maze in read_parquet(data / "val.parquet")]


def grade(pairs: Sequence[tuple[Problem, str]]) -> list[Graded]:
    """Verdicts of (maze, answer) pairs."""
    return [grade_maze(problem, response) for problem, response in pairs]


MAZE = Task("maze", TOKENIZER, read_problems, grade)
