"""The commands of `verl-fgrpo maze`."""

from collections.abc import Sequence

from verl_fgrpo.core.command import run_subcommand

COMMANDS = {
    "prepare": "mazes, data files for verl, a start model",
    "eval": "sample held-out mazes of two runs, compare, report",
    "study": "record and report the runs of recipes/run_maze_study.sh",
    "methods": "sample and compare the methods and seeds of recipes/run_maze_methods.sh",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    return run_subcommand("maze", __package__, COMMANDS, arguments)
