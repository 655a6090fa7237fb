"""The reward function as verl calls it."""

import numpy as np
import pytest
from maze_walk import is_correct_path

from verl_fgrpo.tasks.maze.mazes import MOVES, generate, solve
from verl_fgrpo.tasks.maze.rewards import compute_score

TARGET = "UP UP RIGHT RIGHT"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("UP UP RIGHT RIGHT", 1.0),
        ("UP UP RIGHT RIGHT <|im_end|>", 1.0),
        ("UP UP RIGHT RIGHT<|im_end|>", 1.0),
        ("UP UP RIGHT", 0.0),  # cut off, or stopped early
        ("UP UP RIGHT <|im_end|>", 0.0),
        ("UP UP RIGHT RIGHT RIGHT", 0.0),
        ("UP UP RIGHT RIGHT <|im_end|> RIGHT", 0.0),  # goes on after the end token
        ("UP <|im_end|> UP RIGHT RIGHT", 0.0),
        ("UP DOWN UP UP RIGHT RIGHT", 0.0),  # detour
        ("UP UP RIGHT RIGHT WALL", 0.0),
        ("UP\nUP RIGHT RIGHT", 0.0),  # the row separator is a token of its own, not white space
        ("up up right right", 0.0),
        ("", 0.0),
        ("<|im_end|>", 0.0),
    ],
)
def test_score(answer, score):
    assert compute_score("verl_fgrpo/maze", answer, TARGET, {"index": 3}, reward_router_address=None) == {
        "score": score,
        "acc": score == 1.0,
    }


def test_score_equals_walking_the_maze():
    """Random answers near the target: the string comparison and the walk decide the same."""
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(300):
        maze = generate(7, np.random.default_rng(seed))
        answer = list(solve(maze))
        if seed % 3:  # one action replaced, sometimes by itself
            answer[int(rng.integers(len(answer)))] = sorted(MOVES)[int(rng.integers(4))]
        expected = is_correct_path(maze, answer)
        assert compute_score("", " ".join(answer), " ".join(solve(maze)))["acc"] is expected
        seen.add(expected)
    assert seen == {True, False}
