"""The commands of `verl-fgrpo countdown`: prepare, record, report."""

import importlib
from collections.abc import Sequence

from verl_fgrpo.core.command import command_parser

COMMANDS = {
    "prepare": "problems, data files for verl, SmolLM2 after a supervised start",
    "record": "the validations of finished runs as rows of results",
    "report": "tables and a figure of the rows",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    text = "\n".join(f"  {name:<8} {help_text}" for name, help_text in COMMANDS.items())
    parser = command_parser("countdown", text)
    parser.add_argument("command", choices=COMMANDS)
    chosen = parser.parse_args(list(arguments[:1])).command
    module = importlib.import_module(f"verl_fgrpo.tasks.countdown.{chosen}_command")
    return int(module.main(arguments[1:]))
