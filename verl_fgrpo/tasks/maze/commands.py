"""The commands of `verl-fgrpo maze`: prepare, eval, methods."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from verl_fgrpo.core.command import command_parser

COMMANDS = {
    "prepare": "mazes, data files for verl, a start model",
    "eval": "sample held-out mazes of two runs, compare, report",
    "study": "record and report the runs of recipes/run_maze_study.sh",
    "methods": "the same for every method and seed of recipes/run_maze_methods.sh",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    text = "\n".join(f"  {name:<8} {help_text}" for name, help_text in COMMANDS.items())
    parser = command_parser("maze", text)
    parser.add_argument("command", choices=COMMANDS)
    chosen = parser.parse_args(list(arguments[:1])).command
    module = importlib.import_module(f"verl_fgrpo.tasks.maze.{chosen}_command")
    return int(module.main(arguments[1:]))
