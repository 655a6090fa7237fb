"""Countdown problems of reasoning-gym, and their parquet files as verl reads them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.tasks.countdown.rewards import compute_score

DATA_SOURCE = "reasoning_gym/countdown"
# ours: reasoning-gym's defaults (4 to 6 numbers up to 100, targets up to 999) are out of reach of 135M parameters
DIFFICULTY = {
    "min_numbers": 3,
    "max_numbers": 3,
    "min_value": 1,
    "max_value": 20,
    "min_target": 10,
    "max_target": 100,
}


@dataclass(frozen=True)
class Countdown:
    """Numbers in the order shown, the target, and one right expression."""

    numbers: tuple[int, ...]
    target: int
    answer: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation to answer. Ours: the supervised start teaches the format, so the prompt is short."""
        shown = ", ".join(map(str, self.numbers))
        asked = f"Numbers: {shown}. Target: {self.target}."
        return [{"role": "system", "content": "Countdown"}, {"role": "user", "content": asked}]

    @property
    def truth(self) -> str:
        """What the reward function compares with, as JSON."""
        return json.dumps({"numbers": list(self.numbers), "target": self.target})

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """The same for problems that differ only in the order of their numbers."""
        return tuple(sorted(self.numbers)), self.target


def task_settings() -> dict[str, Any]:
    """What is asked, by an example, and how hard: a folder made with another task is another one."""
    return {"difficulty": DIFFICULTY, "prompt": Countdown((1, 2, 3), 10, "").messages}


def generate(count: int, seed: int) -> list[Countdown]:
    """`count` different problems, see `Countdown.key`; any cut of the list gives disjoint sets.

    Raises:
        ValueError: reasoning-gym gives too few different ones.
        ImportError: the package reasoning-gym is missing.
    """
    from reasoning_gym.games.countdown import CountdownConfig, CountdownDataset

    # reasoning-gym seeds problem i with seed + i, so seeds must lie far apart
    source = CountdownDataset(CountdownConfig(**DIFFICULTY, seed=seed * 10_000_000, size=10 * count))
    found: dict[Any, Countdown] = {}
    for index in range(10 * count):
        try:
            entry = source[index]
        except ValueError:  # it gives up after 100 tries with the numbers of this index
            continue
        details = entry["metadata"]
        problem = Countdown(tuple(details["numbers"]), details["target"], entry["answer"])
        if compute_score(DATA_SOURCE, problem.answer, problem.truth)["acc"]:
            found.setdefault(problem.key, problem)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"{count} problems were asked for, but only {len(found)} different ones were found; ask for fewer")


def to_rows(problems: Iterable[Countdown], split: str) -> list[dict[str, Any]]:
    """One row of verl's data format a problem; `extra_info.answer` is a right expression, which verl never shows."""
    return [
        {
            "data_source": DATA_SOURCE,
            "prompt": problem.messages,
            "ability": "countdown",
            "reward_model": {"style": "rule", "ground_truth": problem.truth},
            "extra_info": {"index": i, "split": split, "answer": problem.answer},
        }
        for i, problem in enumerate(problems)
    ]


def read_problems(path: Path) -> list[Countdown]:
    """The problems of a file of `to_rows`, in order."""
    problems = []
    for row in iter_rows(path):
        truth = json.loads(row["reward_model"]["ground_truth"])
        problems.append(Countdown(tuple(truth["numbers"]), truth["target"], row["extra_info"]["answer"]))
    return problems
