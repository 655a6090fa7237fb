"""What the trainer mode focal_sync costs: step time of a maze run with f_grpo, in sync and in focal_sync, alternately.

Run: python scripts/bench_trainer_mode.py [--rounds 2] [--steps 10] [--prompts 32] [--group-size 8] [--dir DIR]
Without --dir it makes mazes and a start model in a new temporary folder; an older folder is used again.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from verl_fgrpo.cpu.benchmark import Task, TrainerRun, run_trainer
from verl_fgrpo.maze.prepare import MazeSettings, prepare
from verl_fgrpo.maze.sft import SftSettings

MODES = ("sync", "focal_sync")


def report(runs: dict[str, list[TrainerRun]]) -> str:
    """Medians of step and of its advantage part per run, and the mode's growth by both."""
    lines = [f"{'mode':<12}{'step, s':>10}{'adv, s':>10}{'CPU, s':>10}"]
    for mode, done in runs.items():
        lines += [f"{mode:<12}{r.timing['step']:>10.2f}{r.timing['adv']:>10.3f}{r.cpu:>10.2f}" for r in done]
    step, adv = (
        {mode: statistics.median(run.timing[part] for run in done) for mode, done in runs.items()}
        for part in ("step", "adv")
    )
    ratio = step["focal_sync"] / step["sync"]
    added = adv["focal_sync"] - adv["sync"]
    lines += [
        f"whole step: ratio {ratio:.3f}, which holds the noise between runs",
        f"advantage part, the only one the mode touches: {1000 * added:+.0f} ms, "
        f"{100 * added / step['sync']:+.1f} % of a step (limit 3 %)",
    ]
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    folder = Path(args.dir or tempfile.mkdtemp(prefix="bench-mode-")).resolve()
    data = folder / "data"
    prepare(data, MazeSettings(train=2000, heldout=8, seed=1, sft=SftSettings(steps=args.sft_steps, seed=1)))
    manifest = json.loads((data / "manifest.json").read_text())
    task = Task(
        model=data / "start_model",
        tokenizer=data / "start_model",
        train_file=data / "train.parquet",
        reward="pkg://verl_fgrpo.maze.rewards",
        prompts=args.prompts,
        group_size=args.group_size,
        prompt_tokens=manifest["prompt_tokens"],
        response_tokens=manifest["response_limit"],
    )
    runs: dict[str, list[TrainerRun]] = {mode: [] for mode in MODES}
    for number in range(args.rounds):
        for mode in MODES if number % 2 == 0 else MODES[::-1]:
            print(f"round {number + 1}: {mode} ...", flush=True)
            overrides = ["algorithm.adv_estimator=f_grpo", f"trainer.v1.trainer_mode={mode}"]
            runs[mode].append(run_trainer(task, folder / f"{mode}-{number}", args.steps, args.warm_up, overrides))
    print(f"{task.rollouts} rollouts a step, {args.steps - args.warm_up} steps a run, medians; logs in {folder}")
    print(report(runs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each mode (default %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps a run (default %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted (default %(default)s)")
    parser.add_argument("--prompts", type=int, default=32, help="prompts a step (default %(default)s)")
    parser.add_argument("--group-size", type=int, default=8, help="rollouts a prompt (default %(default)s)")
    parser.add_argument("--sft-steps", type=int, default=250, help="of the start model (default %(default)s)")
    parser.add_argument("--dir", help="folder to keep; default a new temporary one")
    main(parser.parse_args())
