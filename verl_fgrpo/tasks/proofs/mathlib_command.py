"""For recipes/run_unlikeliness_prover7b.sh: convert the authors' data, or try the Lean toolchain with one theorem.

verl-fgrpo proofs mathlib convert --source mff-lwb-10k-seen.parquet --out data/prover/train --split train
verl-fgrpo proofs mathlib check          # reads LEAN_REPL, LEAN_PROJECT
"""

import os
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.tasks.proofs.mathlib import convert, toolchain


def main(arguments: Sequence[str]) -> int:
    """Run one of the two.

    Raises:
        RuntimeError: the toolchain does not work.
    """
    parser = command_parser("proofs mathlib", __doc__)
    parser.add_argument("command", choices=("convert", "check"))
    parser.add_argument("--source", type=Path, help="a file of the authors")
    parser.add_argument("--out", type=Path, help="files to write, without ending")
    parser.add_argument("--split", default="train", help="noted in the rows (default %(default)s)")
    given = parser.parse_args(arguments)
    if given.command == "convert":
        if given.source is None or given.out is None:
            parser.error("convert needs --source and --out")
        print(f"{convert(given.source, given.out, given.split)} theorems: {given.out}.parquet, {given.out}.jsonl")
        return 0
    works, line = toolchain(os.environ)
    if not works:
        raise RuntimeError(line)
    print(line)
    return 0
