"""The commands of `verl-fgrpo proofs`."""

from collections.abc import Sequence

from verl_fgrpo.core.command import run_subcommand

COMMANDS = {
    "check": "does the Lean kernel work?",
    "prepare": "theorems, data files for verl, a start model",
    "mathlib": "data and Lean toolchain of recipes/run_unlikeliness_prover7b.sh",
    "report": "sample held-out theorems of all methods and seeds, compare, report",
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    return run_subcommand("proofs", __package__, COMMANDS, arguments)
