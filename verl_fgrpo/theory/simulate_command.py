"""Run the categorical simulation of arXiv 2602.06717 (section 5.1) over group sizes, focal_gamma and seeds.

    verl-fgrpo simulate                 # the published sweep: 136 runs of 1000 steps
    verl-fgrpo simulate --quick         # 5 group sizes, 1 seed
    verl-fgrpo simulate --group-sizes 8 64 --focal-gammas 0 0.5 1 --seeds 0 1

Interrupt it when you like: the same command goes on where it stopped. Figures: verl-fgrpo figures.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser, torch_device
from verl_fgrpo.theory.sweep import QUICK, SweepConfig, run_sweep


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the sweep."""
    defaults = SweepConfig()  # the published sweep
    parser = command_parser("simulate", __doc__)
    parser.add_argument("--group-sizes", type=COUNT, nargs="+", help="default: 2, 4, ..., 131072")
    parser.add_argument("--focal-gammas", type=float, nargs="+", default=defaults.focal_gammas)
    parser.add_argument("--seeds", type=SEED, nargs="+", help="default: 0 1 2 3")
    parser.add_argument("--steps", type=COUNT, default=defaults.steps)
    parser.add_argument("--record-every", type=COUNT, default=defaults.record_every, help="steps between CSV rows")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default=defaults.optimizer)
    parser.add_argument("--num-actions", type=COUNT, default=defaults.num_actions)
    parser.add_argument("--num-correct", type=COUNT, default=defaults.num_correct)
    parser.add_argument("--anchor-logit", type=float, default=defaults.anchor_logit)
    parser.add_argument("--correct-logit", type=float, default=defaults.correct_logit)
    parser.add_argument("--wrong-logit", type=float, default=defaults.wrong_logit)
    parser.add_argument("--reward-correct", type=float, default=defaults.reward_correct)
    parser.add_argument("--reward-wrong", type=float, default=defaults.reward_wrong)
    parser.add_argument(
        "--device", type=torch_device, default=defaults.device, help="torch device, for example cpu or cuda"
    )
    parser.add_argument("--workers", type=PROCESSES, default=os.cpu_count() or 1, help="processes; 1 on a CUDA device")
    parser.add_argument("--output", type=Path, help="CSV; default outputs/theory/categorical[_quick].csv")
    parser.add_argument("--quick", action="store_true", help=f"group sizes {QUICK.group_sizes}, seed 0")
    args = parser.parse_args(arguments)

    chosen = QUICK if args.quick else defaults
    settings = {name: getattr(args, name) for name in defaults.settings()}
    config = SweepConfig(
        group_sizes=tuple(args.group_sizes or chosen.group_sizes),
        focal_gammas=tuple(args.focal_gammas),
        seeds=tuple(args.seeds or chosen.seeds),
        **settings,
    )
    default_output = Path("outputs/theory") / ("categorical_quick.csv" if args.quick else "categorical.csv")
    workers = 1 if args.device.startswith("cuda") else args.workers
    print(run_sweep(config, args.output or default_output, workers))
