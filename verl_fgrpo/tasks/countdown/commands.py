"""The commands of `verl-fgrpo countdown`."""

from collections.abc import Sequence

from verl_fgrpo.core.command import run_subcommand

COMMANDS = {
    "prepare": "problems, data files for verl, SmolLM2 after a supervised start",
    "record": "the validations of finished runs as rows of results",
    "report": "tables and a figure of the rows",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    return run_subcommand("countdown", __package__, COMMANDS, arguments)
