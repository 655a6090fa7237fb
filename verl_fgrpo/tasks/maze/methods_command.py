"""Sample held-out mazes from the runs of recipes/run_maze_methods.sh and compare all methods; rerun to resume.

verl-fgrpo maze methods --out outputs/maze/methods --data outputs/maze/data-size7-seed --seeds 1 2 3 \
    --methods grpo f_grpo maxrl --step 50
"""

from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser
from verl_fgrpo.tasks.common.experiment import Sampling, final_checkpoints, sample_all
from verl_fgrpo.tasks.common.method_report import method_rows, write_methods_report
from verl_fgrpo.tasks.maze.task import MAZE


def main(arguments: Sequence[str]) -> int:
    """Sample, grade, compare, report; 0 if all went well."""
    parser = command_parser("maze methods", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with seed<S>/<method>; the report goes there")
    parser.add_argument("--data", required=True, help="folders of verl-fgrpo maze prepare without the seed at the end")
    parser.add_argument("--seeds", type=SEED, nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", required=True, help="grpo must be among them")
    parser.add_argument("--step", type=COUNT, required=True, help="the checkpoint to compare")
    parser.add_argument("--num-samples", type=COUNT, default=128, help="samples per maze (default %(default)s)")
    parser.add_argument("--mazes", type=COUNT, default=256, help="held-out mazes a seed (default %(default)s)")
    parser.add_argument("--k", type=COUNT, default=64, help="k of pass@k beside 1 (default %(default)s)")
    parser.add_argument("--jobs", type=PROCESSES, default=2, help="models sampled at a time (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 < given.k <= given.num_samples:
        raise ValueError(f"--k is {given.k}, but it must be above 1 and at most --num-samples={given.num_samples}")
    if "grpo" not in given.methods:
        raise ValueError(f"--methods is {' '.join(given.methods)}, but grpo, the reference, is not among them")
    counts = {}
    for seed in given.seeds:
        data = Path(f"{given.data}{seed}")
        points = final_checkpoints(data, [given.out / f"seed{seed}" / name for name in given.methods], given.step)
        sampling = Sampling(given.mazes, given.num_samples, seed, given.jobs)
        sampled = sample_all(MAZE, points, given.out / f"seed{seed}" / "samples", data, sampling)
        counts[seed] = {point.run: sampled[point.name] for point in points}
    settings = {name: str(value) for name, value in vars(given).items() if name not in ("out", "data", "jobs")}
    rows = method_rows(counts, [1, given.k])
    title = "Mazes: same start models and training budget"
    text = write_methods_report(rows, given.out / "report" / "methods", settings, title)
    print(text)
    print(f"report: {given.out / 'report' / 'methods.md'}")
    return 0
