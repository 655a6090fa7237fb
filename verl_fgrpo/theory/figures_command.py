"""Draw figures 1a, 2, 3, 4 and 5 of arXiv 2602.06717 as PNG and SVG.

    verl-fgrpo simulate && verl-fgrpo figures
    verl-fgrpo figures --quick       # runs a small simulation itself first
    verl-fgrpo figures --methods     # gradient_mass alone: every method's update against the success rate; needs verl

Files: tail_miss (figure 1a), simulation (2), tail_miss_by_success_rate (3), advantage_scale (4) and
simulation_tail_miss (5); simulation.csv holds the last step of every run, simulation.csv.json its settings.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import PROCESSES, command_parser
from verl_fgrpo.core.figures import save_figure
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.theory import figures
from verl_fgrpo.theory.gradient_mass import gradient_mass_figure
from verl_fgrpo.theory.sweep import QUICK, final_rows, run_sweep, settings_path, stored_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the figures."""
    parser = command_parser("figures", __doc__)
    parser.add_argument("--sweep", type=Path, help="CSV of verl-fgrpo simulate")
    parser.add_argument("--output", type=Path, default=Path("outputs/theory/figures"), help="folder")
    parser.add_argument("--quick", action="store_true", help="simulate 5 group sizes and 1 seed first, if not yet done")
    parser.add_argument(
        "--workers", type=PROCESSES, default=os.cpu_count() or 1, help="processes of the --quick simulation"
    )
    parser.add_argument("--methods", action="store_true", help="draw gradient_mass alone, from verl's estimators")
    args = parser.parse_args(arguments)

    if args.methods:
        print(*save_figure(gradient_mass_figure(), args.output / "gradient_mass"), sep="\n")
        return
    sweep_path = args.sweep or Path("outputs/theory") / ("categorical_quick.csv" if args.quick else "categorical.csv")
    if args.quick:
        run_sweep(QUICK, sweep_path, args.workers)
    outcomes = figures.read_outcomes(sweep_path)
    settings = stored_settings(sweep_path)
    drawn = {
        "tail_miss": figures.tail_miss_figure(),
        "tail_miss_by_success_rate": figures.tail_miss_figure(figures.SUCCESS_RATES),
        "advantage_scale": figures.advantage_scale_figure(),
        "simulation": figures.simulation_figure(outcomes, settings),
        "simulation_tail_miss": figures.simulation_tail_miss_figure(),
    }
    for name, figure in drawn.items():
        print(*save_figure(figure, args.output / name), sep="\n")
    numbers = args.output / "simulation.csv"
    write_atomic(numbers, final_rows(sweep_path))
    write_atomic(settings_path(numbers), settings_path(sweep_path).read_text())
    print(numbers)
