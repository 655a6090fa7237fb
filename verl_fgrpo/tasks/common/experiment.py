"""After training: sample held-out problems from every checkpoint and grade them. Rerun to resume.

OUT/samples/<run>-step<N>/   a run of verl-fgrpo eval (problems, samples) and the task's verdicts
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import read_json, typed
from verl_fgrpo.core.processes import worker_pool
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.graders import Graded
from verl_fgrpo.evaluation.grading import Judged
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.samples import Sample, SampleKey, SampleStore, Verdict, VerdictStore, key_of
from verl_fgrpo.runs.checkpoints import step_folders, weights
from verl_fgrpo.tasks.common.tokenizer import WordTokenizer

START = "start model"
VERDICT_FOLDER = "task_verdicts"  # `verl-fgrpo eval grade` keeps its own beside it


@dataclass(frozen=True)
class Task:
    """What the experiment has to know of a task; functions are of modules, so that processes can be handed them.

    Attributes:
        name: benchmark name of its problems.
        tokenizer: of prompts and answers.
        read_problems: held-out problems of a prepared folder, in order.
        grade: verdicts of (problem, response) pairs, in order.
    """

    name: str
    tokenizer: WordTokenizer
    read_problems: Callable[[Path], list[Problem]]
    grade: Callable[[Sequence[tuple[Problem, str]]], list[Graded]]


@dataclass(frozen=True)
class Sampling:
    """How held-out problems are sampled: how many, how many answers each, seed, processes at a time."""

    problems: int
    num_samples: int
    seed: int
    jobs: int = 1


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
    """The start model and every saved checkpoint of the runs, those of a run in order of steps.

    Raises:
        ValueError: a run without a saved Hugging Face model.
    """
    found = [Checkpoint(START, 0, data / "start_model")]
    for run in runs:
        models = {step: model for step, folder in step_folders(run).items() if (model := weights(folder))}
        if not models:
            raise ValueError(
                f"{run} has no global_step_*/actor/huggingface with weights; train with "
                "actor_rollout_ref.actor.checkpoint.save_contents containing hf_model"
            )
        found += [Checkpoint(run.name, step, model) for step, model in models.items()]
    return found


def final_checkpoints(data: Path, runs: Sequence[Path], step: int) -> list[Checkpoint]:
    """The start model and every run's checkpoint after `step` steps; a run is named as its folder.

    Raises:
        ValueError: a run has no Hugging Face weights at that step.
    """
    found = [Checkpoint(START, 0, data / "start_model")]
    for run in runs:
        folder = run / f"global_step_{step}"
        if (model := weights(folder)) is None:
            raise ValueError(f"{folder}/actor/huggingface holds no weights; train {run.name} for {step} steps first")
        found.append(Checkpoint(run.name, step, model))
    return found


def held_out(task: Task, data: Path, count: int) -> list[Problem]:
    """The first `count` held-out problems.

    Raises:
        ValueError: there are fewer.
    """
    problems = task.read_problems(data)
    if not 1 <= count <= len(problems):
        raise ValueError(
            f"{count} problems of {task.name} were asked for, but {data} holds {len(problems)} held-out ones; choose 1 "
            f"to {len(problems)}"
        )
    return problems[:count]


def sample_all(
    task: Task, checkpoints: Sequence[Checkpoint], samples: Path, data: Path, sampling: Sampling
) -> dict[str, ProblemCounts]:
    """Sample and grade every checkpoint, with a progress bar over checkpoints; returns counts by `Checkpoint.name`."""
    from tqdm import tqdm

    problems = held_out(task, data, sampling.problems)
    max_tokens = typed(read_json(data / "manifest.json").get("response_limit"), int, data / "manifest.json")
    with worker_pool(sampling.jobs) as pool:
        jobs = {
            pool.submit(
                sample_checkpoint, task, point, samples / point.name, problems, sampling, max_tokens
            ): point.name
            for point in checkpoints
        }
        with tqdm(total=len(jobs), desc=f"sampling held-out problems of {task.name}", unit="model") as bar:
            for job in as_completed(jobs):
                job.result()
                bar.set_postfix_str(jobs[job])
                bar.update()
    return {point.name: count_correct(samples / point.name, problems) for point in checkpoints}


def sample_checkpoint(
    task: Task,
    checkpoint: Checkpoint,
    run_folder: Path,
    problems: Sequence[Problem],
    sampling: Sampling,
    max_tokens: int,
) -> None:
    """Draw and grade what is missing of a checkpoint's answers.

    Raises:
        ValueError: the store holds samples of another model or with other settings.
    """
    import torch

    torch.set_num_threads(1)
    store = SampleStore(run_folder / "samples", _settings(checkpoint, problems, sampling.seed, max_tokens))
    save_problems(problems, run_folder / "problems.jsonl")
    missing = store.missing([problem.key for problem in problems], sampling.num_samples)
    if missing:
        _draw(task, checkpoint, store, problems, set(missing), sampling, max_tokens)
    grade_samples(task, run_folder, problems)


def grade_samples(task: Task, run_folder: Path, problems: Sequence[Problem]) -> None:
    """Verdicts for all samples of a run that have none. An answer that the token limit cut off is wrong."""
    by_key = {problem.key: problem for problem in problems}
    store = VerdictStore(run_folder / VERDICT_FOLDER, {"grader": task.name})
    judged = Judged(problems, store.settings)
    samples = [sample for sample in SampleStore(run_folder / "samples").read() if key_of(sample)[:2] in by_key]
    for sample in samples:
        judged.add(sample)
    rows = [row for row in store.read() if key_of(row)[:2] in by_key]
    if len(rows) == len(samples) and all(map(judged.holds, rows)):
        return
    with store.writer(drop=lambda row: key_of(row)[:2] in by_key and not judged.holds(row)) as writer:
        samples = [sample for sample in samples if key_of(sample) not in writer]
        graded = task.grade([(by_key[key_of(sample)[:2]], sample.response) for sample in samples])
        for sample, (verdict, answer, detail) in zip(samples, graded, strict=True):
            if sample.finish_reason != "stop":
                verdict, detail = "wrong", "cut off at the token limit"
            writer.append(Verdict(*key_of(sample), verdict, answer, detail, judged.digest(sample)))


def count_correct(run_folder: Path, problems: Sequence[Problem]) -> ProblemCounts:
    """How many samples of each problem a graded run has, and how many are correct."""
    total = dict.fromkeys((problem.key for problem in problems), 0)
    correct = dict(total)
    for row in VerdictStore(run_folder / VERDICT_FOLDER).read():
        if (key := key_of(row)[:2]) in total:
            total[key] += 1
            correct[key] += row.verdict == "correct"
    ids = [problem_id for _, problem_id in total]
    return ProblemCounts.of(list(total.values()), list(correct.values()), ids, problems[0].benchmark)


def _draw(
    task: Task,
    checkpoint: Checkpoint,
    store: SampleStore,
    problems: Sequence[Problem],
    missing: set[SampleKey],
    sampling: Sampling,
    max_tokens: int,
) -> None:
    from verl_fgrpo.tasks.common.model import load_model
    from verl_fgrpo.tasks.common.sampling import sample_answers

    keys = {key[:2] for key in missing}
    remaining = [problem for problem in problems if problem.key in keys]
    answers = sample_answers(
        load_model(checkpoint.model), task.tokenizer, remaining, sampling.num_samples, max_tokens, sampling.seed
    )
    with store.writer() as writer:
        for problem, group in zip(remaining, answers, strict=True):
            for index, answer in enumerate(group):
                if (*problem.key, index) in missing:
                    length = len(answer.text.split()) + int(answer.finished)
                    reason = "stop" if answer.finished else "length"
                    writer.append(Sample(*problem.key, index, answer.seed, answer.text, length, reason))


def _settings(checkpoint: Checkpoint, problems: Sequence[Problem], seed: int, max_tokens: int) -> dict[str, Any]:
    weights = hashlib.sha256((checkpoint.model / "model.safetensors").read_bytes()).hexdigest()[:16]
    prompts = hashlib.sha256("\n\n".join(problem.prompt for problem in problems).encode()).hexdigest()[:16]
    return {
        "run": checkpoint.run,
        "step": checkpoint.step,
        "weights": weights,
        "problems": prompts,
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": seed,
    }
