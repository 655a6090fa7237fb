"""Everything the maze experiment needs before RL, in one folder and restartable.

train.parquet, val.parquet   verl's data files; val holds the held-out mazes
start_model/                 Hugging Face folder: model, tokenizer, manifest.json
example.png                  held-out mazes with answers of the start model
settings.json                what was asked for, written first
manifest.json                lengths and versions, written last: the folder is complete
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.files import write_parquet
from verl_fgrpo.tasks.common.folder import prepare_folder
from verl_fgrpo.tasks.common.model import load_model
from verl_fgrpo.tasks.common.sampling import sample_answers
from verl_fgrpo.tasks.common.start_model import SftSettings, train_start_model
from verl_fgrpo.tasks.maze.dataset import (
    check_disjoint,
    fingerprint,
    make_splits,
    read_parquet,
    response_limit,
    to_rows,
)
from verl_fgrpo.tasks.maze.mazes import Maze, check_size, solve
from verl_fgrpo.tasks.maze.render import save_panels
from verl_fgrpo.tasks.maze.task import MAZE, as_problem


@dataclass(frozen=True)
class MazeSettings:
    """What decides the contents of the folder; counts are mazes, `min_path` is in actions."""

    size: int = 7
    train: int = 5_000
    heldout: int = 256
    min_path: int = 2
    corners: bool = False
    seed: int = 0
    sft: SftSettings = field(default_factory=SftSettings)

    def __post_init__(self) -> None:
        check_size(self.size)


def prepare(
    out: Path, settings: MazeSettings, device: str = "cpu", progress: bool = True, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Makes what is missing in `out` and returns the manifest.

    Called again with the same settings on a complete folder it does nothing; after an interruption it goes on where
    it was.

    Raises:
        ValueError: `out` was begun with other settings.
    """
    return prepare_folder(out, asdict(settings), partial(_make, out, settings, device, progress, say), say)


def _make(out: Path, settings: MazeSettings, device: str, progress: bool, say: Callable[[str], None]) -> dict[str, Any]:
    train_file, val_file = out / "train.parquet", out / "val.parquet"
    if not (train_file.exists() and val_file.exists()):
        say(f"mazes: {settings.train} for training, {settings.heldout} held out, {settings.size} x {settings.size}")
        rng = np.random.default_rng(settings.seed)
        train, heldout = make_splits(
            settings.size, settings.train, settings.heldout, rng, settings.min_path, settings.corners
        )
        write_parquet(train_file, to_rows(train, "train"))
        write_parquet(val_file, to_rows(heldout, "val"))
    train, heldout = read_parquet(train_file), read_parquet(val_file)
    check_disjoint(train, heldout)
    limit = response_limit([*train, *heldout])
    examples = [(maze.text, " ".join(solve(maze))) for maze in train]
    train_start_model(examples, MAZE.tokenizer, out / "start_model", settings.sft, device, progress=progress)
    if not (out / "example.png").exists():
        panels = example_panels(load_model(out / "start_model"), heldout, limit, settings.seed)
        save_panels(panels, out / "example.png")
    return {
        "device": device,
        "prompt_tokens": len(MAZE.tokenizer.encode(train[0].text)),
        "response_limit": limit,
        "mean_answer_tokens": round(float(np.mean([len(solve(maze)) + 1 for maze in heldout])), 2),
        "mazes": {"train": fingerprint(train), "val": fingerprint(heldout)},
    }


def example_panels(
    model: Any, mazes: Sequence[Maze], max_tokens: int, seed: int, n: int = 16
) -> list[tuple[str, Maze, Mapping[str, Sequence[str]]]]:
    """Three of the first 24 mazes that the model solves sometimes, with the right and up to two wrong answers.

    With fewer than three such mazes the remaining panels show the target path alone.
    """
    panels: list[tuple[str, Maze, Mapping[str, Sequence[str]]]] = []
    mazes = mazes[:24]
    groups = sample_answers(model, MAZE.tokenizer, [as_problem(maze) for maze in mazes], n, max_tokens, seed)
    for maze, answers in zip(mazes, groups, strict=True):
        target = " ".join(solve(maze))
        wrong = sorted({a.text for a in answers if not (a.finished and a.text == target)}, key=len, reverse=True)
        correct = sum(a.finished and a.text == target for a in answers)
        if correct and wrong:
            paths = {"right": solve(maze)} | {f"wrong {i + 1}": text.split() for i, text in enumerate(wrong[:2])}
            panels.append((f"{correct} of {n} samples right", maze, paths))
        if len(panels) == 3:
            return panels
    return panels + [("target path", maze, {"target": solve(maze)}) for maze in mazes[: 3 - len(panels)]]
