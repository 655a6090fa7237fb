"""Sample held-out mazes from all checkpoints of two maze runs and compare them. Rerun to resume.

verl-fgrpo maze eval --out outputs/maze/RUN --data outputs/maze/DATA --base grpo --focal f_grpo
"""

from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser
from verl_fgrpo.tasks.common.experiment import Sampling, find_checkpoints, sample_all
from verl_fgrpo.tasks.common.pair_report import write_pair_report
from verl_fgrpo.tasks.maze.task import MAZE


def main(arguments: Sequence[str]) -> int:
    """Sample, grade, compare, report; 0 if all went well."""
    parser = command_parser("maze eval", __doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that holds the two runs; samples and report go there"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of verl-fgrpo maze prepare")
    parser.add_argument("--base", default="grpo", help="folder name of the baseline run (default %(default)s)")
    parser.add_argument("--focal", default="f_grpo", help="folder name of the focal run (default %(default)s)")
    parser.add_argument("--num-samples", type=COUNT, default=128, help="samples per maze (default %(default)s)")
    parser.add_argument("--mazes", type=COUNT, default=256, help="held-out mazes (default %(default)s)")
    parser.add_argument(
        "--m", type=COUNT, default=64, help="subsample size of the paired test, largest k (default %(default)s)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of sampling (default %(default)s)")
    parser.add_argument("--jobs", type=PROCESSES, default=2, help="models sampled at a time (default %(default)s)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="noted in the report")
    given = parser.parse_args(arguments)
    if not given.m <= given.num_samples:
        raise ValueError(
            f"--m is {given.m}, but only {given.num_samples} samples are drawn; lower --m or raise --num-samples"
        )
    checkpoints = find_checkpoints(given.data, [given.out / given.base, given.out / given.focal])
    sampling = Sampling(given.mazes, given.num_samples, given.seed, given.jobs)
    counts = sample_all(MAZE, checkpoints, given.out / "samples", given.data, sampling)
    text = write_pair_report(
        {point: counts[point.name] for point in checkpoints},
        given.out / "report",
        given.base,
        given.focal,
        given.m,
        " ".join(given.settings),
    )
    print(text)
    print(f"report: {given.out / 'report' / 'report.md'}")
    return 0
