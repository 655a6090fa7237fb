"""Evaluation problems in one schema, whatever benchmark they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import read_jsonl, write_atomic

__all__ = ["KINDS", "Problem", "gold_answers", "load_problems", "problem_id_of", "save_problems"]

KINDS = ("math", "choice", "ifeval", "synlogic", "maze", "proofs")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        benchmark: e.g. "aime24".
        problem_id: unique within the benchmark.
        prompt: the user message, without any instruction on the answer format (that is the prompt preset's).
        kind: how it is graded, one of `KINDS`.
        answers: gold answers, any one of which is right. LaTeX for math, a letter for choice, the actions for maze;
            empty for kinds whose checker needs none (ifeval).
        extra: what a grader needs besides (instruction ids of IFEval, the game of SynLogic, the grid of a maze).
    """

    benchmark: str
    problem_id: str
    prompt: str
    kind: str
    answers: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of problem {self.problem_id} must be one of {KINDS}")
        if self.kind in ("math", "choice") and not self.answers:
            raise ValueError(f"problem {self.benchmark}/{self.problem_id} of kind {self.kind} has no gold answer")

    @property
    def key(self) -> tuple[str, str]:
        return (self.benchmark, self.problem_id)


def problem_id_of(prompt: str, answers: Sequence[str]) -> str:
    """An id derived from prompt and gold answer, for files that carry none (verl's dumps): 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([prompt, list(answers)]).encode()).hexdigest()[:16]


def gold_answers(ground_truth: str | Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Gold answers as a tuple of text.

    Raises:
        ValueError: there is none.
    """
    if isinstance(ground_truth, Mapping):
        ground_truth = ground_truth["target"]
    several = [ground_truth] if isinstance(ground_truth, str) else list(ground_truth)
    answers = tuple(text for item in several if (text := str(item).strip()))
    if not answers:
        raise ValueError(f"ground_truth is {ground_truth!r}, but a reward needs a gold answer; drop such rows")
    return answers


def save_problems(problems: Iterable[Problem], path: Path | str) -> None:
    """Write JSON lines, one problem a line, atomically."""
    write_atomic(path, "".join(json.dumps(asdict(problem), ensure_ascii=True) + "\n" for problem in problems))


def load_problems(paths: Iterable[Path | str], benchmarks: Sequence[str] | None = None) -> list[Problem]:
    """Read files of `save_problems`; keep only `benchmarks` if given.

    Raises:
        ValueError: a line that is no JSON object, a problem twice, or a benchmark of which there is none.
    """
    problems: dict[tuple[str, str], Problem] = {}
    for path in paths:
        for row in read_jsonl(Path(path)):
            problem = Problem(**{**row, "answers": tuple(row["answers"])})
            if problem.key in problems:
                raise ValueError(f"{path}: problem {problem.key} occurs twice")
            problems[problem.key] = problem
    if benchmarks is not None:
        known = {benchmark for benchmark, _ in problems}
        if unknown := [name for name in benchmarks if name not in known]:
            raise ValueError(f"no problems of {unknown}; the files hold {sorted(known)}")
        problems = {key: problem for key, problem in problems.items() if key[0] in benchmarks}
    return list(problems.values())
