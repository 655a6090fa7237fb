"""The maze experiment after training: sample held-out mazes from every checkpoint, compare GRPO with F-GRPO, report.

OUT/samples/<run>-step<N>/   runs of verl-fgrpo eval, resumed at single samples
OUT/report/                  report.md, pass_at_k.{md,csv,json,png,svg}, training.{csv,...,png,svg}, tests.{csv,...}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.passk import powers_of_two
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.report import (
    ProblemCounts,
    markdown_table,
    pass_at_k_rows,
    plot_pass_at_k,
    plot_training_curve,
    write_table,
)
from verl_fgrpo.evaluation.samples import Sample, SampleStore, sample_seed
from verl_fgrpo.evaluation.significance import SubsampleTest, bootstrap_over_problems, subsample_tests
from verl_fgrpo.tasks.maze.dataset import fingerprint, read_parquet
from verl_fgrpo.tasks.maze.mazes import Maze, solve

BENCHMARK = "maze"
START = "start model"


@dataclass(frozen=True)
class Checkpoint:
    """A model to sample: which run, after how many steps, and its Hugging Face folder."""

    run: str
    step: int
    model: Path

    @property
    def name(self) -> str:
        return f"{self.run.replace(' ', '_')}-step{self.step}"


def find_checkpoints(data: Path, runs: Sequence[Path]) -> list[Checkpoint]:
    """The start model and every saved checkpoint of the runs, in order of steps.

    Raises:
        ValueError: a run without a saved Hugging Face model.
    """
    found = [Checkpoint(START, 0, data / "start_model")]
    for run in runs:
        models = {
            int(path.parent.parent.name.removeprefix("global_step_")): path
            for path in run.glob("global_step_*/actor/huggingface")
            if any(path.glob("*.safetensors"))
        }
        if not models:
            raise ValueError(
                f"{run} has no global_step_*/actor/huggingface with weights; train with "
                "actor_rollout_ref.actor.checkpoint.save_contents containing hf_model"
            )
        found += [Checkpoint(run.name, step, models[step]) for step in sorted(models)]
    return found


def sample_checkpoint(
    checkpoint: Checkpoint,
    run_folder: Path,
    mazes: Sequence[Maze],
    num_samples: int,
    max_tokens: int,
    seed: int,
    device: str = "cpu",
) -> int:
    """Draw what is missing of `num_samples` answers to every maze into a sample store; returns how many were drawn.

    Raises:
        verl_fgrpo.evaluation.samples.SampleStoreError: the store holds samples of another model or with other settings.
    """
    import torch

    from verl_fgrpo.tasks.maze.sampling import sample_answers
    from verl_fgrpo.tasks.maze.sft import load_model

    torch.set_num_threads(1)
    weights = checkpoint.model / "model.safetensors"
    settings = {
        "run": checkpoint.run,
        "step": checkpoint.step,
        "weights": _digest(weights),
        "mazes": fingerprint(mazes),
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": seed,
    }
    store = SampleStore(run_folder / "samples", settings)
    save_problems([as_problem(maze) for maze in mazes], run_folder / "problems.jsonl")
    missing = store.missing([(BENCHMARK, maze.problem_id) for maze in mazes], num_samples)
    todo: dict[str, list[int]] = {}
    for _, problem_id, index in missing:
        todo.setdefault(problem_id, []).append(index)
    if not todo:
        return 0
    model = load_model(checkpoint.model, device)
    remaining = [maze for maze in mazes if maze.problem_id in todo]
    with store.writer() as writer:
        for maze, answers in zip(
            remaining, sample_answers(model, remaining, num_samples, max_tokens, seed), strict=True
        ):
            for index in todo[maze.problem_id]:
                answer = answers[index]
                writer.append(
                    Sample(
                        benchmark=BENCHMARK,
                        problem_id=maze.problem_id,
                        sample_idx=index,
                        seed=sample_seed(seed, BENCHMARK, maze.problem_id, index),
                        response=answer.text,
                        num_tokens=len(answer.text.split()) + int(answer.finished),
                        finish_reason="stop" if answer.finished else "length",
                    )
                )
    return len(missing)


def as_problem(maze: Maze) -> Problem:
    """The maze as the evaluation's commands know it."""
    return Problem(BENCHMARK, maze.problem_id, maze.text, "maze", (" ".join(solve(maze)),))


def count_correct(run_folder: Path, mazes: Sequence[Maze]) -> ProblemCounts:
    """Grade a run: how many samples of each maze are its target action sequence, ended by the model itself."""
    from verl_fgrpo.tasks.maze.rewards import is_correct_answer

    targets = {maze.problem_id: " ".join(solve(maze)) for maze in mazes}
    total = dict.fromkeys(targets, 0)
    correct = dict.fromkeys(targets, 0)
    for sample in SampleStore(run_folder / "samples").read():
        total[sample.problem_id] += 1
        correct[sample.problem_id] += sample.finish_reason == "stop" and is_correct_answer(
            sample.response, targets[sample.problem_id]
        )
    ids = list(targets)
    return ProblemCounts.of([total[i] for i in ids], [correct[i] for i in ids], ids, BENCHMARK)


def sample_all(
    checkpoints: Sequence[Checkpoint],
    samples: Path,
    data: Path,
    num_samples: int,
    num_mazes: int,
    seed: int,
    jobs: int = 1,
    device: str = "cpu",
) -> None:
    """Sample every checkpoint, `jobs` at a time, with a progress bar over checkpoints; resumes where it was."""
    from tqdm import tqdm

    mazes = held_out(data, num_mazes)
    max_tokens = int(json.loads((data / "manifest.json").read_text())["response_limit"])
    # spawn: a forked child would inherit torch's threads in an undefined state
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(
                sample_checkpoint, point, samples / point.name, mazes, num_samples, max_tokens, seed, device
            ): point
            for point in checkpoints
        }
        bar = tqdm(total=len(futures), desc="sampling held-out mazes", unit="model")
        for future in as_completed(futures):
            future.result()
            bar.set_postfix_str(futures[future].name)
            bar.update()
        bar.close()


def held_out(data: Path, num_mazes: int) -> list[Maze]:
    """The first `num_mazes` held-out mazes.

    Raises:
        ValueError: there are fewer.
    """
    mazes = read_parquet(data / "val.parquet")
    if not 1 <= num_mazes <= len(mazes):
        raise ValueError(
            f"{num_mazes} mazes were asked for, but {data} holds {len(mazes)} held-out ones; choose 1 to {len(mazes)}"
        )
    return mazes[:num_mazes]


def write_report(
    checkpoints: Sequence[Checkpoint],
    samples: Path,
    data: Path,
    report: Path,
    num_mazes: int,
    base: str,
    focal: str,
    m: int,
    settings: dict[str, str],
) -> str:
    """Tables, tests and figures of the final checkpoints and of the training curves.

    Args:
        checkpoints: as sampled; the last step of each run is its result.
        samples: folder of the sample stores.
        data: folder of `prepare`.
        report: folder to write.
        num_mazes: as sampled.
        base: run name of the baseline.
        focal: run name of the focal run.
        m: subsample size of the paired test.
        settings: what to note about the run.

    Returns:
        The report as Markdown; it is also in report/report.md.
    """
    mazes = held_out(data, num_mazes)
    counts = {point: count_correct(samples / point.name, mazes) for point in checkpoints}
    last = {point.run: point for point in sorted(checkpoints, key=lambda point: point.step)}
    final = {run: counts[last[run]] for run in (START, base, focal)}
    num_samples = int(min(min(c.num_samples) for c in final.values()))
    ks = [k for k in powers_of_two(num_samples) if k <= m]

    rows = pass_at_k_rows(final, ks)
    table = markdown_table(rows, index=("run",))
    write_table(rows, report / "pass_at_k", table)
    k = ks[-1]
    at_k = {row["run"]: 100 * row["value"] for row in rows if row["k"] == k}
    title = f"pass@{k}: {at_k[START]:.1f} -> {at_k[base]:.1f} ({base}), {at_k[focal]:.1f} ({focal})"
    plot_pass_at_k(rows, report / "pass_at_k", title)

    tests = subsample_tests(final[base].num_correct, final[focal].num_correct, num_samples, ks, m=m)
    test_rows = [_test_row(test, final[base], final[focal]) for test in tests.values()]
    test_table = _test_table(test_rows)
    write_table(test_rows, report / "tests", test_table, base=base, focal=focal)

    curve = []
    for point, problem_counts in counts.items():
        for run in (base, focal) if point.run == START else (point.run,):
            for row in pass_at_k_rows({run: problem_counts}, sorted({1, ks[-1]})):
                curve.append({"step": point.step, **row})
    # base first, so that it has the same colour in both figures
    curve.sort(key=lambda row: (row["run"] != base, row["step"], row["k"]))
    write_table(curve, report / "training", markdown_table(curve, index=("run", "step")))
    plot_training_curve(curve, report / "training", f"Held-out mazes, {num_samples} samples each")

    verdict = _verdict(test_rows[-1], final, base, focal)
    text = "\n".join(
        [
            f"# Mazes: {base} against {focal}",
            "",
            " ".join(f"{key}={value}" for key, value in settings.items()),
            "",
            f"{len(mazes)} held-out mazes, {num_samples} samples each. pass@k in percent, unbiased; intervals: "
            "bootstrap over mazes, 95%.",
            "",
            table,
            f"{focal} minus {base} in percentage points. Paired subsampling test (m = {m} of {num_samples} samples, "
            "50,000 rounds): would other samples of these two models say the same? Paired bootstrap: would other "
            "mazes? There is one training run each: neither covers the randomness of training.",
            "",
            test_table,
            verdict,
            "",
            "![pass@k](pass_at_k.png)",
            "",
            f"![pass@1 and pass@{k} during training](training.png)",
            "",
        ]
    )
    write_atomic(report / "report.md", text)
    return text


def _test_row(test: SubsampleTest, base: ProblemCounts, focal: ProblemCounts) -> dict[str, Any]:
    from verl_fgrpo.core.passk import pass_at_k

    over_mazes = bootstrap_over_problems(
        pass_at_k(base.num_samples, base.num_correct, test.k), pass_at_k(focal.num_samples, focal.num_correct, test.k)
    )
    return {
        "k": test.k,
        "base": test.base,
        "focal": test.focal,
        "difference": test.difference,
        "low": test.interval[0],
        "high": test.interval[1],
        "p_value": test.p_value,
        "mazes_low": over_mazes.interval[0],
        "mazes_high": over_mazes.interval[1],
        "mazes_p_value": over_mazes.p_value,
    }


def _test_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| k | difference | subsampling test | p | bootstrap over mazes | p |", "|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row['k']} | {100 * row['difference']:+.1f} | [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}] "
            f"| {row['p_value']:.3g} | [{100 * row['mazes_low']:+.1f}, {100 * row['mazes_high']:+.1f}] "
            f"| {row['mazes_p_value']:.3g} |"
        )
    return "\n".join(lines) + "\n"


def _verdict(row: dict[str, Any], final: dict[str, ProblemCounts], base: str, focal: str) -> str:
    """One sentence that says what came out at the largest k."""
    from verl_fgrpo.core.passk import pass_at_k

    k = row["k"]
    start = float(np.mean(pass_at_k(final[START].num_samples, final[START].num_correct, k)))
    sharpened = f"pass@{k} of {base} went from {100 * start:.1f} (start model) to {100 * row['base']:.1f}"
    if row["low"] > 0:
        finding = f"{focal} kept significantly more"
    elif row["high"] < 0:
        finding = f"{focal} kept significantly less"
    else:
        finding = f"the difference of {focal} is not significant"
    return f"Result: {sharpened}; {finding} ({100 * row['focal']:.1f}, p = {row['p_value']:.3g})."


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
