"""Overhead of verl's trainer on CPU over bare generation, forward and update of the same rows in one process.

Run: python scripts/bench_cpu_overhead.py [--prompts 32] [--group-size 8] [--steps 10] [--dir DIR] [verl override ...]
The task is the mazes of recipes/run_fgrpo_maze.sh, with a start model trained for --sft-steps.
What verl_fgrpo/cpu/agent_loop.py saves: once as it is and once with verl's own agent loops, which are
actor_rollout_ref.rollout.agent.agent_loop_manager_class=null reward.num_workers=1
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from verl_fgrpo.core.command import COUNT, command_parser, run_command

PARTS = ("gen", "old_log_prob", "adv", "update_actor", "update_weights", "step")
MICRO_BATCH_TOKENS = 4096  # as in presets/platform/cpu.yaml


@dataclass(frozen=True)
class Task:
    """What both sides run: paths, and the numbers of prompts a step, rollouts a prompt and tokens."""

    model: Path
    tokenizer: Path
    train_file: Path
    reward: str
    prompts: int
    group_size: int
    prompt_tokens: int
    response_tokens: int
    learning_rate: float = 1e-4

    @property
    def rollouts(self) -> int:
        return self.prompts * self.group_size


@dataclass(frozen=True)
class TrainerRun:
    """Medians over steps in seconds; CPU seconds a step and peak memory (PSS, bytes) over all processes."""

    timing: dict[str, float]
    cpu: float
    memory: int
    start_up: float
    steps: int


def command(task: Task, folder: Path, steps: int, overrides: Sequence[str]) -> list[str]:
    """The command line of verl's trainer for this task."""
    return [
        *(sys.executable, "-m", "verl.trainer.main_ppo", "+platform=cpu", "algorithm.adv_estimator=grpo"),
        f"actor_rollout_ref.model.path={task.model}",
        f"actor_rollout_ref.model.tokenizer_path={task.tokenizer}",
        f"data.train_files={task.train_file}",
        f"data.val_files={task.train_file}",
        f"data.train_batch_size={task.prompts}",
        f"data.max_prompt_length={task.prompt_tokens}",
        f"data.max_response_length={task.response_tokens}",
        f"actor_rollout_ref.rollout.n={task.group_size}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={task.prompts}",
        f"actor_rollout_ref.actor.optim.lr={task.learning_rate}",
        f"reward.custom_reward_function.path={task.reward}",
        "reward.custom_reward_function.name=compute_score",
        *("trainer.logger=[file]", "trainer.val_before_train=False", "trainer.test_freq=-1", "trainer.save_freq=-1"),
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        "trainer.resume_mode=disable",
        f"trainer.total_training_steps={steps}",
        f"trainer.total_epochs={steps}",
        *overrides,
    ]


def run_trainer(task: Task, folder: Path, steps: int, warm_up: int, overrides: Sequence[str] = ()) -> TrainerRun:
    """Run verl's trainer for some steps and read its own timing metrics.

    Args:
        task: what to run.
        folder: new or empty folder for logs.
        steps: total steps; the first `warm_up` are not counted.
        warm_up: at least 1, below `steps`.
        overrides: further arguments of the command line.

    Raises:
        RuntimeError: if the trainer fails or logs too few steps; the message ends with its last lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics_file, log_file = folder / "metrics.jsonl", folder / "trainer.log"
    metrics_file.unlink(missing_ok=True)
    env = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_FILE_LOGGER_PATH": str(metrics_file),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "HF_HUB_OFFLINE": "1",
    }
    start = time.monotonic()
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command(task, folder, steps, overrides), env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        watch = _Watch(process.pid, metrics_file, warm_up, steps)
        watch.start()
        code = process.wait()
        watch.stop()
    rows = [json.loads(line)["data"] for line in metrics_file.read_text().splitlines()] if metrics_file.exists() else []
    if code != 0 or len(rows) < steps:
        tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"verl's trainer ended with code {code} after {len(rows)} of {steps} steps:\n{tail}")
    counted = rows[warm_up:]
    timing = {part: statistics.median(row.get(f"timing_s/{part}", 0.0) for row in counted) for part in PARTS}
    start_up = watch.first_step_at - start - rows[0]["timing_s/step"]
    return TrainerRun(timing, watch.cpu_per_step(), watch.peak_memory, start_up, len(counted))


class _Watch(threading.Thread):
    """Follows CPU time and memory of a process tree while its metrics file grows."""

    def __init__(self, pid: int, metrics_file: Path, first: int, last: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._file, self._first, self._last = pid, metrics_file, first, last
        self._cpu: dict[int, float] = {}
        self._cpu_at: dict[int, float] = {}
        self._done = threading.Event()
        self.peak_memory = 0
        self.first_step_at = time.monotonic()

    def run(self) -> None:
        import psutil

        try:
            root = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            return
        looks = 0
        while not self._done.wait(0.25):
            weigh = looks % 20 == 0  # the memory of a process tree takes the kernel a tenth of a second to add up
            looks, memory = looks + 1, 0
            try:
                tree = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in tree:
                try:
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                    memory += process.memory_full_info().pss if weigh else 0
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak_memory = max(self.peak_memory, memory)
            steps = len(self._file.read_text().splitlines()) if self._file.exists() else 0
            if steps and steps not in self._cpu_at:
                if not self._cpu_at:
                    self.first_step_at = time.monotonic()
                self._cpu_at[steps] = sum(self._cpu.values())

    def stop(self) -> None:
        self._done.set()
        self.join()

    def cpu_per_step(self) -> float:
        seen = sorted(step for step in self._cpu_at if step >= self._first)
        if len(seen) < 2:
            return float("nan")
        return (self._cpu_at[seen[-1]] - self._cpu_at[seen[0]]) / (seen[-1] - seen[0])


def run_bare(task: Task, repeats: int, threads: int, seed: int = 0) -> dict[str, float]:
    """Median seconds of generation, forward (log-probs) and update (AdamW) of one step's rows, nothing else.

    Generation is this package's own, the fastest one at hand, so that the comparison is not flattering.
    """
    import pandas as pd
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from verl_fgrpo.core.token_sampling import SamplingParams, generate

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    model = AutoModelForCausalLM.from_pretrained(task.model, attn_implementation="sdpa", dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate, weight_decay=0.01)
    stop = frozenset({tokenizer.eos_token_id})
    messages = pd.read_parquet(task.train_file)["prompt"].tolist()
    generator = torch.Generator().manual_seed(seed)
    times: dict[str, list[float]] = {"gen": [], "old_log_prob": [], "update_actor": []}
    for repeat in range(repeats):
        chosen = [messages[(repeat * task.prompts + i) % len(messages)] for i in range(task.prompts)]
        prompts = [
            tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, return_dict=True)["input_ids"]
            for chat in chosen
            for _ in range(task.group_size)
        ]
        params = [SamplingParams(max_tokens=task.response_tokens, stop_token_ids=stop)] * len(prompts)

        start = time.perf_counter()
        model.eval()
        rows = generate(model, prompts, params, generator, vocab_size=len(tokenizer))
        times["gen"].append(time.perf_counter() - start)

        sequences = [prompt + row.token_ids for prompt, row in zip(prompts, rows, strict=True)]
        micro_batches = list(_micro_batches(sequences, [len(prompt) for prompt in prompts]))
        start = time.perf_counter()
        with torch.no_grad():
            old = [_token_log_probs(model, *batch[:2]) for batch in micro_batches]
        times["old_log_prob"].append(time.perf_counter() - start)

        advantages = torch.randn(len(prompts), generator=generator)
        total = sum(float(mask.sum()) for _, _, mask in micro_batches)
        start = time.perf_counter()
        model.train()
        optimizer.zero_grad()
        row_start = 0
        for (ids, attention, mask), old_log_probs in zip(micro_batches, old, strict=True):
            advantage = advantages[row_start : row_start + len(ids)].unsqueeze(-1)
            row_start += len(ids)
            ratio = (_token_log_probs(model, ids, attention) - old_log_probs).exp()
            loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            ((loss * mask).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times["update_actor"].append(time.perf_counter() - start)
    return {part: statistics.median(values[1:] or values) for part, values in times.items()}


def _micro_batches(sequences: list[list[int]], prompt_lengths: list[int]) -> Any:
    """(input ids, attention mask, mask of response tokens shifted by one) for as many rows as fit the token budget."""
    size = max(1, MICRO_BATCH_TOKENS // max(map(len, sequences)))
    for start in range(0, len(sequences), size):
        part = sequences[start : start + size]
        width = max(map(len, part))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in part])
        attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
        mask = attention[:, 1:].float()
        for row, length in enumerate(prompt_lengths[start : start + size]):
            mask[row, : length - 1] = 0
        yield ids, attention, mask


def _token_log_probs(model: Any, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    result: torch.Tensor = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return result


def report(task: Task, trainer: TrainerRun, bare: dict[str, float]) -> str:
    """Table of seconds a step, the rest that is not model time, and the ratio."""
    lines = [
        f"{task.rollouts} rollouts a step ({task.prompts} prompts x {task.group_size}), "
        f"at most {task.prompt_tokens} + {task.response_tokens} tokens, {trainer.steps} steps, medians in seconds",
        f"{'part':<16}{'trainer':>9}{'bare':>9}{'rest':>9}",
    ]
    for part in PARTS[:-1]:
        here, there = trainer.timing[part], bare.get(part, 0.0)
        lines.append(f"{part:<16}{here:>9.2f}{there:>9.2f}{here - there:>9.2f}")
    other = trainer.timing["step"] - sum(trainer.timing[part] for part in PARTS[:-1])
    lines.append(f"{'(between)':<16}{other:>9.2f}{0:>9.2f}{other:>9.2f}")
    step, all_bare = trainer.timing["step"], sum(bare.values())
    lines.append(f"{'step':<16}{step:>9.2f}{all_bare:>9.2f}{step - all_bare:>9.2f}   ratio {step / all_bare:.2f}")
    used = all_bare - (bare["old_log_prob"] if trainer.timing["old_log_prob"] < 0.5 * bare["old_log_prob"] else 0.0)
    lines.append(
        f"overhead a rollout: {1000 * (step - all_bare) / task.rollouts:.1f} ms; counting only what the trainer "
        f"computes (bare {used:.2f} s): {step - used:.2f} s, {1000 * (step - used) / task.rollouts:.1f} ms a rollout"
    )
    lines.append(f"limit 1 s + 8 ms a rollout: {1 + 0.008 * task.rollouts:.2f} s")
    lines.append(
        f"all processes: {trainer.cpu:.2f} CPU seconds a step, peak memory {trainer.memory / 2**30:.1f} GiB (PSS), "
        f"start-up {trainer.start_up:.0f} s"
    )
    return "\n".join(lines)


def maze_task(folder: Path, prompts: int, group_size: int, sft_steps: int) -> Task:
    """The mazes of the main job, made in `folder`."""
    from verl_fgrpo.tasks.common.start_model import SftSettings
    from verl_fgrpo.tasks.maze.prepare import MazeSettings, prepare

    manifest = prepare(folder, MazeSettings(train=2000, heldout=8, seed=1, sft=SftSettings(steps=sft_steps, seed=1)))
    return Task(
        model=folder / "start_model",
        tokenizer=folder / "start_model",
        train_file=folder / "train.parquet",
        reward="pkg://verl_fgrpo.tasks.maze.rewards",
        prompts=prompts,
        group_size=group_size,
        prompt_tokens=manifest["prompt_tokens"],
        response_tokens=manifest["response_limit"],
    )


def main(arguments: Sequence[str]) -> None:
    parser = command_parser(Path(__file__).name, __doc__)
    parser.add_argument("--prompts", type=COUNT, default=32)
    parser.add_argument("--group-size", type=COUNT, default=8)
    parser.add_argument("--sft-steps", type=COUNT, default=250, help="of the start model")
    parser.add_argument("--steps", type=COUNT, default=10)
    parser.add_argument("--warm-up", type=COUNT, default=2, help="steps that are not counted")
    parser.add_argument(
        "--repeats", type=COUNT, default=4, help="bare steps before and after; the first is not counted"
    )
    parser.add_argument("--threads", type=COUNT, default=1, help="torch threads of the bare run, as in the trainer")
    parser.add_argument("--dir", type=Path, help="folder to keep; default a new temporary one")
    parser.add_argument("overrides", nargs="*", help="further overrides for verl")
    args = parser.parse_args(arguments)
    if args.warm_up >= args.steps:
        parser.error(f"--warm-up {args.warm_up} must be below --steps {args.steps}")
    folder = Path(args.dir or tempfile.mkdtemp(prefix="bench-cpu-")).resolve()
    task = maze_task(folder / "data", args.prompts, args.group_size, args.sft_steps)
    print(f"logs in {folder}; bare run, trainer, bare run ...", flush=True)
    before = run_bare(task, args.repeats, args.threads)
    trainer = run_trainer(task, folder / "run", args.steps, args.warm_up, args.overrides)
    after = run_bare(task, args.repeats, args.threads)
    bare = {part: (before[part] + after[part]) / 2 for part in before}
    print(report(task, trainer, bare))
    for part in bare:
        print(f"bare {part}: {before[part]:.2f} s before, {after[part]:.2f} s after the trainer")


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, sys.argv[1:]))
