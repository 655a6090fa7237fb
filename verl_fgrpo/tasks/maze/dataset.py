"""Training and held-out mazes, and their parquet files as verl reads them."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.tasks.maze.mazes import Maze, generate_distinct, parse, solve

DATA_SOURCE = "verl_fgrpo/maze"


def make_splits(
    size: int, train: int, heldout: int, rng: np.random.Generator, min_path: int = 2, corners: bool = False
) -> tuple[list[Maze], list[Maze]]:
    """Disjoint lists of training and held-out mazes: one list without repeats, cut in two.

    Disjoint as problems (walls, START and GOAL). The same walls can occur in both with other endpoints, as small mazes
    have few layouts (`mazes.generate_distinct`).

    Raises:
        ValueError: counts below 1, or more mazes than exist.
    """
    for name, count in (("train", train), ("heldout", heldout)):
        if count < 1:
            raise ValueError(f"{name} = {count}: at least 1 maze is needed; raise --{name}")
    mazes = generate_distinct(train + heldout, size, rng, min_path, corners)
    return mazes[heldout:], mazes[:heldout]


def check_disjoint(train: Iterable[Maze], heldout: Iterable[Maze]) -> None:
    """Raises ValueError if a held-out maze is also a training maze."""
    if shared := {maze.text for maze in train} & {maze.text for maze in heldout}:
        raise ValueError(
            f"{len(shared)} mazes are both in training and held out: splits must be disjoint; build them anew"
        )


def to_rows(mazes: Iterable[Maze], split: str) -> list[dict[str, Any]]:
    """One row of verl's data format a maze; `reward_model.ground_truth` is the target action sequence."""
    return [
        {
            "data_source": DATA_SOURCE,
            "prompt": [{"role": "user", "content": maze.text}],
            "ability": "maze",
            "reward_model": {"style": "rule", "ground_truth": " ".join(solve(maze))},
            "extra_info": {"index": i, "split": split, "size": maze.size, "problem_id": maze.problem_id},
        }
        for i, maze in enumerate(mazes)
    ]


def read_parquet(path: Path) -> list[Maze]:
    """The mazes of a file of `to_rows`, in order."""
    return [parse(row["prompt"][0]["content"]) for row in iter_rows(path)]


def response_limit(mazes: Iterable[Maze]) -> int:
    """Tokens of the longest target answer, end token included: the least limit that can earn every reward."""
    return max(len(solve(maze)) for maze in mazes) + 1


def fingerprint(mazes: Sequence[Maze]) -> str:
    """16 hexadecimal digits that identify the list of mazes, order included."""
    return hashlib.sha256("\n\n".join(maze.text for maze in mazes).encode()).hexdigest()[:16]
