"""`verl-fgrpo eval power`: how many problems and samples show which difference."""

import argparse
from typing import Any

from verl_fgrpo.core.command import COUNT, SEED
from verl_fgrpo.core.tables import markdown_table


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("power", help="how many samples show which difference in pass@k, by simulation")
    parser.add_argument("--problems", type=COUNT, default=1546, help="problems that both runs answer")
    parser.add_argument("--effect", type=float, required=True, help="true difference of pass@k in percentage points")
    parser.add_argument("--k", type=COUNT, required=True)
    parser.add_argument("--num-samples", type=COUNT, nargs="+", help="samples a problem; default k, 4k, 16k")
    parser.add_argument("--stop-after-correct", type=COUNT, help="as of `eval sample`; --num-samples is the cap then")
    parser.add_argument("--m", type=COUNT, default=256, help="of the subsampling test")
    parser.add_argument("--simulations", type=COUNT, default=500)
    parser.add_argument("--unsolved", type=float, default=0.2, help="share of problems that are never solved")
    parser.add_argument("--beta", type=float, nargs=2, default=(0.25, 0.9), help="success rates of the others")
    parser.add_argument(
        "--spread", type=float, default=1.0, help="how differently problems move between the models, sd in logits"
    )
    parser.add_argument("--seed", type=SEED, default=0)
    parser.set_defaults(run_command=_power)


def _power(options: argparse.Namespace) -> None:
    from verl_fgrpo.evaluation.power import World, power_rows

    world = World(options.unsolved, options.beta[0], options.beta[1], options.spread)
    sizes = options.num_samples or [options.k, 4 * options.k, 16 * options.k]
    how = options.simulations, options.m, options.stop_after_correct, world, options.seed
    rows = power_rows(options.problems, options.effect / 100, options.k, sizes, *how)
    print(
        f"{options.problems} problems, pass@{options.k}, a true difference of {options.effect:g} points, "
        f"{options.simulations} simulated pairs of runs, tests at 5%.\nAssumed success rates: {options.unsolved:.0%} "
        f"never solved, the others Beta({options.beta[0]:g}, {options.beta[1]:g}); problems move differently by "
        f"{options.spread:g} logits.\n"
    )
    cells = []
    for row in rows:
        shares = [f"{100 * row['sd']:.2f}", f"{100 * row['power']:.0f}%", f"{100 * row['smallest']:.2f}"]
        paper = "-" if row["paper_power"] is None else f"{100 * row['paper_power']:.0f}% (m = {row['m']})"
        cells.append([row["num_samples"], f"{row['drawn']:.0f}", *shares, paper])
    powers = ("power over problems", "found at 80% power", "power of subsampling")
    print(markdown_table(["samples", "drawn a problem", "sd of the difference", *powers], cells), end="")
