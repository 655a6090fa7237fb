"""What the seam adds to a step of verl's sync trainer, measured in one maze run with f_grpo.

Run: python scripts/bench_trainer_mode.py [--steps 20] [--prompts 32] [--group-size 8] [--dir DIR]
In each step advantages are computed both ways on the same batch, in turn first, so that what else the machine does hits
both. Without --dir it makes mazes and a start model in a new temporary folder; an older folder is used again.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.command import COUNT, command_parser, run_command
from verl_fgrpo.host.import_hooks import when_imported

MODE = "bench_seam"


def register_mode(_: Any) -> None:
    """In the trainer's process: a mode that does the one step in which the two modes differ both ways, timed."""
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    @register_trainer(MODE)
    class BothWays(PPOTrainerSync):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            config.trainer.v1.trainer_mode = "sync"
            super().__init__(config)

        def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
            seam = PPOTrainerSync._compute_advantage
            ways = [("verl", seam.__wrapped__), ("seam", seam)]
            for name, compute in ways if self.global_steps % 2 else ways[::-1]:
                start = time.perf_counter()
                result = compute(self, batch, metrics)
                metrics[f"bench/{name}"] = time.perf_counter() - start
            return result


when_imported("verl.trainer.ppo.v1", register_mode)


def report(steps: list[dict[str, float]]) -> str:
    """Medians over steps of the advantage part both ways and of a step of sync, and the growth by focal_sync."""
    host, ours = ([step[f"bench/{name}"] for step in steps] for name in ("verl", "seam"))
    whole = [step["timing_s/step"] - mine for step, mine in zip(steps, ours, strict=True)]
    growth = [(mine - its) / all_ for mine, its, all_ in zip(ours, host, whole, strict=True)]
    quartiles = statistics.quantiles(growth, n=4)
    return "\n".join(
        [
            f"{len(steps)} steps, medians",
            f"step of sync            {statistics.median(whole):8.2f} s",
            f"advantages, verl        {1000 * statistics.median(host):8.0f} ms",
            f"advantages, seam        {1000 * statistics.median(ours):8.0f} ms",
            f"a step grows by {100 * quartiles[1]:.1f} % (quartiles {100 * quartiles[0]:.1f} to "
            f"{100 * quartiles[2]:.1f} %; limit 3 %)",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    parser = command_parser(Path(__file__).name, __doc__)
    parser.add_argument("--steps", type=COUNT, default=20, help="of the run (default %(default)s)")
    parser.add_argument("--warm-up", type=COUNT, default=2, help="steps that are not counted (default %(default)s)")
    parser.add_argument("--prompts", type=COUNT, default=32, help="prompts a step (default %(default)s)")
    parser.add_argument("--group-size", type=COUNT, default=8, help="rollouts a prompt (default %(default)s)")
    parser.add_argument("--sft-steps", type=COUNT, default=250, help="of the start model (default %(default)s)")
    parser.add_argument("--dir", type=Path, help="folder to keep; default a new temporary one")
    args = parser.parse_args(arguments)
    if args.warm_up >= args.steps:
        parser.error(f"--warm-up {args.warm_up} must be below --steps {args.steps}")
    from bench_cpu_overhead import maze_task, run_trainer  # beside this file

    folder = Path(args.dir or tempfile.mkdtemp(prefix="bench-mode-")).resolve()
    task = maze_task(folder / "data", args.prompts, args.group_size, args.sft_steps)
    for name, value in (
        ("VERL_USE_EXTERNAL_MODULES", Path(__file__).stem),
        ("PYTHONPATH", str(Path(__file__).resolve().parent)),
    ):
        separator = "," if name.startswith("VERL") else os.pathsep
        os.environ[name] = separator.join(filter(None, [value, os.environ.get(name)]))
    overrides = ["algorithm.adv_estimator=f_grpo", f"trainer.v1.trainer_mode={MODE}"]
    print(f"{task.rollouts} rollouts a step; logs in {folder / 'run'} ...", flush=True)
    run_trainer(task, folder / "run", args.steps, args.warm_up, overrides)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    print(report([json.loads(line)["data"] for line in lines[args.warm_up :]]))


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, sys.argv[1:]))
