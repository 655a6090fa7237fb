"""Time the published sweep (136 runs of 1000 steps) against one plain run after another.

    python scripts/bench_simulation.py                  # whole sweep on all cores, then the plain slice
    python scripts/bench_simulation.py --slice-only     # both on a slice of steps, one thread each

The plain alternative (tests/theory/plain_simulation.py) is one run at a time: autograd, torch.optim.Adam,
torch.multinomial. It is timed on --plain-steps steps of every second group size, on one thread, in turn with ours on
the same slice. CPU time is printed beside wall time: on a busy machine only CPU time compares.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from verl_fgrpo.core.command import COUNT, PROCESSES, command_parser, run_command
from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.theory.simulation import NUM_CORRECT, published_logits, simulate_batch
from verl_fgrpo.theory.sweep import SweepConfig, run_sweep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "theory"))
from plain_simulation import plain_simulate  # noqa: E402


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, measure, print JSON."""
    parser = command_parser(Path(__file__).name, __doc__)
    parser.add_argument("--workers", type=PROCESSES, default=os.cpu_count() or 1, help="processes of the sweep")
    parser.add_argument("--plain-steps", type=COUNT, default=20, help="steps per run in the slice")
    parser.add_argument("--keep", type=Path, help="keep the sweep's CSV there; must not exist")
    parser.add_argument("--slice-only", action="store_true", help="leave out the whole sweep")
    args = parser.parse_args(arguments)
    if args.keep is not None and args.keep.exists():
        parser.error(f"{args.keep} exists: a sweep that resumes cannot be timed, name another file")

    result: dict[str, object] = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    if not args.slice_only:
        with tempfile.TemporaryDirectory() as folder:
            wall, cpu = time.perf_counter(), _cpu_seconds()
            run_sweep(SweepConfig(), args.keep or Path(folder) / "sweep.csv", args.workers)
            result["sweep"] = {
                "runs": 136,
                "steps": 1000,
                "workers": args.workers,
                "wall_s": round(time.perf_counter() - wall, 1),
                "cpu_s": round(_cpu_seconds() - cpu, 1),
            }
    result["slice"] = compare_on_slice(args.plain_steps)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result | {"made_by": provenance(("torch", "numpy"))}, indent=2))


def compare_on_slice(steps: int) -> dict[str, float]:
    """CPU and wall seconds of both on one thread: group sizes 2, 8, ..., 131072, gamma 0 and 1, one seed."""
    torch.set_num_threads(1)
    runs, logits = [(0.0, 0), (1.0, 0)], published_logits()
    sums = dict.fromkeys(("fast_cpu_s", "plain_cpu_s", "fast_wall_s", "plain_wall_s"), 0.0)
    simulate_batch(2, runs, 2)  # first calls load code
    plain_simulate(2, 0.0, 2, _Multinomial(2, 0), logits=logits, num_correct=NUM_CORRECT)
    for group_size in tqdm([2**power for power in range(1, 18, 2)], desc="slice", unit="group size"):
        wall, cpu = time.perf_counter(), time.process_time()
        simulate_batch(group_size, runs, steps)
        sums["fast_cpu_s"] += time.process_time() - cpu
        sums["fast_wall_s"] += time.perf_counter() - wall
        wall, cpu = time.perf_counter(), time.process_time()
        for gamma, seed in runs:
            draw = _Multinomial(group_size, seed)
            plain_simulate(group_size, gamma, steps, draw, logits=logits, num_correct=NUM_CORRECT)
        sums["plain_cpu_s"] += time.process_time() - cpu
        sums["plain_wall_s"] += time.perf_counter() - wall
    ratio = {
        "cpu_ratio": sums["plain_cpu_s"] / sums["fast_cpu_s"],
        "wall_ratio": sums["plain_wall_s"] / sums["fast_wall_s"],
    }
    return {name: round(value, 2) for name, value in (sums | ratio).items()} | {"steps": steps}


class _Multinomial:
    """torch.multinomial with replacement, seeded."""

    def __init__(self, group_size: int, seed: int) -> None:
        self.group_size, self.generator = group_size, torch.Generator().manual_seed(seed)

    def __call__(self, probabilities: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(probabilities, self.group_size, replacement=True, generator=self.generator)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, sys.argv[1:]))
