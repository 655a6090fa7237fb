"""Grade samples: every sample gets exactly one verdict, equal responses are graded once, and grading can be resumed."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.evaluation.graders import ANSWER_CHARACTERS, Graded
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.samples import Sample, SampleStore, Verdict, VerdictStore
from verl_fgrpo.evaluation.workers import Limits, Task, grade_tasks

__all__ = ["grade_samples", "grade_store", "grading_settings"]

WINDOW = 65_536  # samples held in memory at a time (twice as many while the workers finish a window) ...
WINDOW_CHARACTERS = 2**26  # ... or as many as have so many characters
TASK_RESPONSES = 2048  # to one worker at a time: many, so that one worker meets all equal answers to a problem
TASK_CHARACTERS = 2**24  # or as many as have so many characters: the worker holds them all
Key = tuple[str, str, bytes]  # benchmark, problem id, digest of a response
GRADER_PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy", "lm-eval")


def grading_settings(limits: Limits, options: str = "{}") -> dict[str, Any]:
    """What a verdict depends on besides the sample; stored with the verdicts, so that different ones never mix."""
    return {
        "seconds": limits.seconds,
        "memory_mib": limits.memory_mib,
        "options": json.loads(options),
        "answer_characters": ANSWER_CHARACTERS,
        "versions": provenance(GRADER_PACKAGES)["versions"],
    }


def grade_samples(
    samples: Iterable[Sample],
    problems: Mapping[tuple[str, str], Problem],
    limits: Limits | None = None,
    num_workers: int = 1,
    options: str = "{}",
) -> Iterator[Verdict]:
    """Yield one verdict per sample, in order of completion.

    Two samples of a problem with the same response are graded once. Samples are read in windows of 65,536, fewer if
    they are long; the workers stay, so that they know the answers of earlier windows.

    Raises:
        KeyError: a sample of an unknown problem.
    """
    known: dict[Key, Graded] = {}
    pending: dict[Key, list[Sample]] = {}
    repeated: deque[Verdict] = deque()
    source = iter(samples)

    def tasks() -> Iterator[Task]:
        while window := _window(source):
            groups = _grouped(window, problems)
            for key in [key for key in groups if key in known]:
                repeated.extend(_verdict(sample, known[key]) for sample in groups.pop(key))
            for key in [key for key in groups if key in pending]:  # a worker has it now
                pending[key] += groups.pop(key)
            pending.update(groups)
            yield from _tasks(groups, problems)

    for key, graded in grade_tasks(tasks(), limits, num_workers, options):
        known[key] = graded
        for sample in pending.pop(key):
            yield _verdict(sample, graded)
        while repeated:
            yield repeated.popleft()
    yield from repeated


def grade_store(
    store: SampleStore,
    destination: Path | str,
    problems: Iterable[Problem],
    limits: Limits | None = None,
    num_workers: int = 1,
    options: str = "{}",
    progress: bool = True,
) -> VerdictStore:
    """Grade what is not yet graded of a sample store into the folder `destination`; interrupt and repeat at will."""
    from tqdm import tqdm

    limits = limits or Limits()
    by_key = {problem.key: problem for problem in problems}
    answers = hashlib.sha256(
        json.dumps(sorted((*key, list(problem.answers)) for key, problem in by_key.items())).encode()
    ).hexdigest()[:16]
    settings = {**grading_settings(limits, options), "problems": answers}
    verdicts = VerdictStore(destination, settings)
    with verdicts.writer(flush_rows=1024) as writer:
        total = sum(map(len, store.present().values()))
        graded = sum(map(len, verdicts.present().values()))
        todo = (
            sample for sample in store.read() if (sample.benchmark, sample.problem_id, sample.sample_idx) not in writer
        )
        with tqdm(total=total, initial=graded, desc="grading", unit="sample", disable=not progress) as bar:
            for verdict in grade_samples(todo, by_key, limits, num_workers, options):
                writer.append(verdict)
                bar.update()
    return verdicts


def _window(source: Iterator[Sample]) -> list[Sample]:
    window = []
    characters = 0
    for sample in source:
        window.append(sample)
        characters += len(sample.response)
        if len(window) >= WINDOW or characters >= WINDOW_CHARACTERS:
            break
    return window


def _grouped(samples: Iterable[Sample], problems: Mapping[tuple[str, str], Problem]) -> dict[Key, list[Sample]]:
    groups: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        if (sample.benchmark, sample.problem_id) not in problems:
            raise KeyError(
                f"sample of unknown problem {(sample.benchmark, sample.problem_id)}: give the file of problems "
                "that was sampled"
            )
        digest = hashlib.sha256(sample.response.encode("utf-8", "surrogatepass")).digest()[:16]
        groups[sample.benchmark, sample.problem_id, digest].append(sample)
    return groups


def _tasks(groups: Mapping[Key, list[Sample]], problems: Mapping[tuple[str, str], Problem]) -> Iterator[Task]:
    by_problem: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key in groups:
        by_problem[key[:2]].append(key)
    for problem_key, keys in by_problem.items():
        task = Task(problems[problem_key], [], [])
        characters = 0
        for key in keys:
            task.responses.append(groups[key][0].response)
            task.tokens.append(key)
            characters += len(task.responses[-1])
            if len(task.responses) >= TASK_RESPONSES or characters >= TASK_CHARACTERS:
                yield task
                task, characters = Task(problems[problem_key], [], []), 0
        if task.responses:
            yield task


def _verdict(sample: Sample, graded: Graded) -> Verdict:
    verdict, answer, detail = graded
    return Verdict(sample.benchmark, sample.problem_id, sample.sample_idx, verdict, answer, detail)
