"""Theorems, verl data files and a supervised start model in one folder; rerun to resume.

verl-fgrpo proofs prepare --out outputs/proofs/data-seed1 --seed 1
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser, torch_device
from verl_fgrpo.tasks.proofs.prepare import ProofSettings, prepare


def main(arguments: Sequence[str]) -> int:
    default = ProofSettings()
    parser = command_parser("proofs prepare", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    for name, text in (
        ("supervised", "theorems that the start model learns from"),
        ("train", "theorems for reinforcement learning"),
        ("heldout", "held-out theorems"),
    ):
        parser.add_argument(
            f"--{name}", type=COUNT, default=getattr(default, name), help=f"{text} (default %(default)s)"
        )
    parser.add_argument(
        "--sft-steps", type=COUNT, default=default.sft.steps, help="supervised steps (default %(default)s)"
    )
    parser.add_argument("--seed", type=SEED, default=default.seed, help="of all of it (default %(default)s)")
    parser.add_argument(
        "--jobs", type=PROCESSES, default=2, help="processes that look for proofs (default %(default)s)"
    )
    parser.add_argument(
        "--device", type=torch_device, default="cpu", help="where to train, e.g. cpu or cuda (default %(default)s)"
    )
    given = parser.parse_args(arguments)
    sft = replace(default.sft, steps=given.sft_steps, seed=given.seed)
    settings = ProofSettings(given.supervised, given.train, given.heldout, seed=given.seed, sft=sft)
    prepare(given.out, settings, given.device, given.jobs)
    return 0
