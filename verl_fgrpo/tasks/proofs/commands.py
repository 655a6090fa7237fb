"""The commands of `verl-fgrpo proofs`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from verl_fgrpo.core.command import command_parser

COMMANDS = {
    "check": "does the Lean kernel work?",
    "prepare": "theorems, data files for verl, a start model",
    "mathlib": "data and Lean toolchain of recipes/run_unlikeliness_prover7b.sh",
    "report": "sample held-out theorems of all methods and seeds, compare, report",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    text = "\n".join(f"  {name:<8} {help_text}" for name, help_text in COMMANDS.items())
    parser = command_parser("proofs", text)
    parser.add_argument("command", choices=COMMANDS)
    chosen = parser.parse_args(list(arguments[:1])).command
    module = importlib.import_module(f"verl_fgrpo.tasks.proofs.{chosen}_command")
    return int(module.main(arguments[1:]))
