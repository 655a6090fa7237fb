"""What recipes/run_maze_study.sh calls.

verl-fgrpo maze study left   --results docs/results/maze_study --seed 1 grpo gamma1     arms not recorded yet
verl-fgrpo maze study record --results docs/results/maze_study --seed 1 --data DATA RUN...
verl-fgrpo maze study report --results docs/results/maze_study
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser
from verl_fgrpo.tasks.common.records import left
from verl_fgrpo.tasks.common.study import load_runs, record_run


def main(arguments: Sequence[str]) -> int:
    """Run one of the three commands."""
    parser = command_parser("maze study", __doc__)
    parser.add_argument("command", choices=("left", "record", "report"))
    parser.add_argument("names", nargs="*", metavar="ARM or RUN", help="arms (left) or folders of runs (record)")
    parser.add_argument("--results", type=Path, required=True, help="folder of the committed results")
    parser.add_argument("--seed", type=SEED, default=1, help="of mazes, start model and training (default 1)")
    parser.add_argument("--data", type=Path, help="record: folder of verl-fgrpo maze prepare")
    parser.add_argument("--num-samples", type=COUNT, default=128, help="record: samples per maze (default 128)")
    parser.add_argument("--mazes", type=COUNT, default=256, help="record: held-out mazes (default 256)")
    parser.add_argument("--jobs", type=PROCESSES, default=2, help="record: models sampled at a time (default 2)")
    given = parser.parse_intermixed_args(arguments)
    if given.command == "left":
        print(" ".join(left(given.results, given.seed, given.names)))
    elif given.command == "record":
        if given.data is None or not given.names:
            parser.error("record needs --data and the folders of finished runs")
        _record(given)
    else:
        from verl_fgrpo.tasks.maze.study_report import write_study_report

        print(write_study_report(load_runs(given.results), given.results))
    return 0


def _record(given: argparse.Namespace) -> None:
    from verl_fgrpo.tasks.common.experiment import START, Sampling, find_checkpoints, sample_all
    from verl_fgrpo.tasks.maze.dataset import fingerprint, read_parquet
    from verl_fgrpo.tasks.maze.task import MAZE

    runs = [Path(name) for name in given.names]
    checkpoints = find_checkpoints(given.data, runs)
    sampling = Sampling(given.mazes, given.num_samples, given.seed, given.jobs)
    sampled = sample_all(MAZE, checkpoints, runs[0].parent / "samples", given.data, sampling)
    counts = {point: sampled[point.name].num_correct.tolist() for point in checkpoints}
    problems = fingerprint(read_parquet(given.data / "val.parquet")[: given.mazes])
    for run in runs:
        correct = {point.step: values for point, values in counts.items() if point.run in (START, run.name)}
        print(record_run(given.results, given.seed, run, given.num_samples, problems, correct))
