"""Mazes, verl data files and a supervised start model in one folder; rerun to resume.

verl-fgrpo maze prepare --out outputs/maze --size 7 --train 5000 --heldout 256 --sft-steps 600 --seed 0
"""

from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, SEED, command_parser, torch_device
from verl_fgrpo.tasks.common.model import ModelSize
from verl_fgrpo.tasks.common.start_model import SftSettings
from verl_fgrpo.tasks.maze.prepare import MazeSettings, prepare


def main(arguments: Sequence[str]) -> int:
    default, model = MazeSettings(), ModelSize()
    parser = command_parser("maze prepare", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--size", type=COUNT, default=default.size, help="side of the maze, odd (default %(default)s)")
    parser.add_argument("--train", type=COUNT, default=default.train, help="training mazes (default %(default)s)")
    parser.add_argument("--heldout", type=COUNT, default=default.heldout, help="held-out mazes (default %(default)s)")
    parser.add_argument(
        "--min-path", type=COUNT, default=default.min_path, help="least target length (default %(default)s)"
    )
    parser.add_argument("--corners", action="store_true", help="START and GOAL in opposite corners, not anywhere")
    parser.add_argument(
        "--sft-steps", type=COUNT, default=default.sft.steps, help="supervised steps (default %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=COUNT, default=default.sft.batch_size, help="mazes a step (default %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=default.sft.learning_rate, help="AdamW (default %(default)s)"
    )
    for name in ("layers", "hidden", "mlp", "heads", "kv_heads"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(
            flag, type=COUNT, default=getattr(model, name), help="model dimension (default %(default)s)"
        )
    parser.add_argument(
        "--seed", type=SEED, default=default.seed, help="of mazes, model and order (default %(default)s)"
    )
    parser.add_argument(
        "--device", type=torch_device, default="cpu", help="where to train, e.g. cpu or cuda (default %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(arguments)
    size = ModelSize(given.layers, given.hidden, given.mlp, given.heads, given.kv_heads)
    sft = SftSettings(given.sft_steps, given.batch_size, given.learning_rate, given.seed, size)
    settings = MazeSettings(given.size, given.train, given.heldout, given.min_path, given.corners, given.seed, sft)
    prepare(given.out, settings, given.device, progress=not given.quiet)
    return 0
