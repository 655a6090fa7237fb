"""What a finished (method, seed) leaves behind: counts and log-probabilities, from which the report is made.

RESULTS/runs/seed<S>-<method>.json; the start model of a seed is the method `START`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.samples import SampleStore
from verl_fgrpo.tasks.common.experiment import START, Checkpoint
from verl_fgrpo.tasks.common.model import load_model
from verl_fgrpo.tasks.common.records import load_records, record_path, save_record, trained_with
from verl_fgrpo.tasks.common.sampling import score_answers
from verl_fgrpo.tasks.proofs.diversity import (
    RANKED_SAMPLES,
    distinct_counts,
    enumerated_share,
    rank_correct,
    read_found,
    unique_proofs_per_step,
)
from verl_fgrpo.tasks.proofs.task import TOKENIZER, as_problem, prompt_of
from verl_fgrpo.tasks.proofs.theorems import Theorem

OWN_SETTINGS = ("preset", "focal_gamma", "overrides", "seed")  # in which the methods of a comparison may differ


@dataclass(frozen=True)
class ProofRun:
    """One method after training with one seed; lists are over the held-out theorems unless said otherwise.

    Attributes:
        arm: the method, or `START`.
        seed: of theorems, start model and training.
        settings: what it was trained with; the start model has none.
        num_samples: samples of each theorem.
        statements: the theorems.
        correct: correct samples.
        distinct: distinct proofs among them.
        enumerated: share of the enumerated proofs that was found.
        log_probs: log-probability of each of the start model's ranked correct samples.
        unique: training step -> distinct (theorem, proof) pairs among its correct rollouts.
        ranked: of the start model: (index of the theorem, rank, text) of each of its ranked correct samples.
        made: versions, commit and time.
    """

    arm: str
    seed: int
    settings: Mapping[str, str]
    num_samples: int
    statements: Sequence[str]
    correct: Sequence[int]
    distinct: Sequence[int]
    enumerated: Sequence[float]
    log_probs: Sequence[float]
    unique: Mapping[int, int]
    ranked: Sequence[tuple[int, int, str]] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if {len(self.correct), len(self.distinct), len(self.enumerated)} != {len(self.statements)}:
            raise ValueError("correct, distinct and enumerated must have a number for each statement")
        if not all(0 <= d <= c <= self.num_samples for c, d in zip(self.correct, self.distinct, strict=True)):
            raise ValueError("distinct must be at most correct, and correct at most num_samples, none below 0")
        if not all(0 <= place < len(self.statements) and rank > 0 for place, rank, _ in self.ranked):
            raise ValueError("ranked must name the place of a statement and a rank from 1")
        if not all(-math.inf < value <= 0 for value in self.log_probs):
            raise ValueError("log_probs must be finite and at most 0")
        if self.arm == START and len(self.ranked) != len(self.log_probs):
            raise ValueError("ranked and log_probs of the start model must be equally long")

    @property
    def counts(self) -> ProblemCounts:
        """n and c of every theorem."""
        ids = [as_problem(statement).problem_id for statement in self.statements]
        return ProblemCounts.of([self.num_samples] * len(ids), self.correct, ids, "proofs")


def record_seed(
    results: Path,
    seed: int,
    theorems: Sequence[Theorem],
    checkpoints: Mapping[str, Checkpoint],
    samples: Path,
    num_samples: int,
) -> None:
    """Record the start model and every method that is not recorded yet.

    Args:
        results: folder of the records.
        seed: of theorems, start model and training.
        theorems: held-out theorems with their enumerated proofs.
        checkpoints: by method; `START` among them. A trained model lies in RUN/global_step_*/actor/huggingface.
        samples: graded runs, by `Checkpoint.name`.
        num_samples: samples of each theorem.
    """
    ranked, own = _rank_start(samples / checkpoints[START].name, checkpoints[START], theorems)
    pairs = [(prompt_of(theorems[index].statement), text) for index, _, text in ranked]
    ids = [as_problem(theorem.statement).problem_id for theorem in theorems]
    for method, checkpoint in checkpoints.items():
        if record_path(results, seed, method).exists():
            continue
        found = read_found(samples / checkpoint.name)
        record: dict[str, Any] = {
            "settings": {},
            "num_samples": num_samples,
            "statements": [theorem.statement for theorem in theorems],
            "correct": [len(found.correct.get(problem_id, ())) for problem_id in ids],
            "distinct": distinct_counts(found, ids).astype(int).tolist(),
            "enumerated": np.round(enumerated_share(found, ids, theorems), 4).tolist(),
            "log_probs": own,
            "unique": {},
        }
        if method == START:
            record["ranked"] = ranked
        else:
            run = checkpoint.model.parents[2]
            settings = trained_with(run)
            words = settings.get("overrides", "").split()  # without the folder, which is of this machine
            settings["overrides"] = " ".join(w for w in words if not w.startswith("trainer.rollout_data_dir="))
            scores = score_answers(load_model(checkpoint.model), TOKENIZER, pairs)
            record |= {
                "settings": settings | {"steps": str(checkpoint.step)},
                "log_probs": [round(score, 4) for score in scores],
                "unique": unique_proofs_per_step(run / "rollouts"),
            }
        save_record(results, seed, method, record)


def _rank_start(
    folder: Path, start: Checkpoint, theorems: Sequence[Theorem]
) -> tuple[list[tuple[int, int, str]], list[float]]:
    """(theorem, rank, text) and log-probability of each correct one among the first samples of the start model."""
    places = {as_problem(theorem.statement).problem_id: place for place, theorem in enumerate(theorems)}
    texts: list[dict[int, str]] = [{} for _ in theorems]
    for sample in SampleStore(folder / "samples").read():
        if sample.sample_idx < RANKED_SAMPLES and sample.finish_reason == "stop" and sample.problem_id in places:
            texts[places[sample.problem_id]][sample.sample_idx] = sample.response
    correct = read_found(folder).correct
    model = load_model(start.model)
    ranked, log_probs = [], []
    for place, (problem_id, group) in enumerate(zip(places, texts, strict=True)):
        order = sorted(group)
        prompt = prompt_of(theorems[place].statement)
        scores = score_answers(model, TOKENIZER, [(prompt, group[index]) for index in order])
        right = [j for j, index in enumerate(order) if index in correct.get(problem_id, {})]
        for j, rank in rank_correct(scores, right).items():
            ranked.append((place, rank, group[order[j]]))
            log_probs.append(round(scores[j], 4))
    return ranked, log_probs


def load_runs(results: Path, methods: Sequence[str] | None = None) -> dict[int, dict[str, ProofRun]]:
    """Recorded runs by seed and method, the start model first: of all seeds, the methods that every seed has.

    Args:
        results: folder of the records.
        methods: only these, of the seeds that have them all; None for every method that all seeds have.

    Raises:
        ValueError: no seed has the methods, or runs that were trained or tested differently stand side by side.
    """
    runs: dict[int, dict[str, ProofRun]] = {}
    for run in load_records(results, ProofRun):
        runs.setdefault(run.seed, {})[run.arm] = run
    if methods is None:
        names = sorted(set.intersection(*(set(of_seed) for of_seed in runs.values())) - {START})
        names.sort(key=lambda name: (name.removeprefix("f_") != "grpo", name.removeprefix("f_"), name.startswith("f_")))
    else:
        names = list(methods)
    chosen = {
        s: {m: of_seed[m] for m in (START, *names)} for s, of_seed in runs.items() if {START, *names} <= {*of_seed}
    }
    if not chosen or not names:
        raise ValueError(
            f"{results} has no seed with {', '.join(names) or 'a method that all seeds have'}; train first"
        )
    for of_seed in chosen.values():
        if len({(tuple(run.statements), run.num_samples, len(run.log_probs)) for run in of_seed.values()}) > 1:
            raise ValueError(f"{results}: methods of one seed were tested on other theorems or samples")
    shared = {
        tuple(sorted((k, v) for k, v in run.settings.items() if k not in OWN_SETTINGS))
        for of_seed in chosen.values()
        for run in of_seed.values()
        if run.arm != START
    }
    if len(shared) > 1:
        differing = sorted({name for one in shared for name, _ in set(one) ^ set(next(iter(shared)))})
        raise ValueError(f"{results}: runs were trained with different {', '.join(differing)}; keep them apart")
    return chosen
