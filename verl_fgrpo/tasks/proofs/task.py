"""Data rows, tokenizer and grading of the proofs, as the common experiment knows them."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.evaluation.graders import Graded
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.tasks.common.experiment import Task
from verl_fgrpo.tasks.common.tokenizer import END, NEWLINE, WordTokenizer
from verl_fgrpo.tasks.proofs.language import PROOF_TOKENS, STATEMENT_TOKENS
from verl_fgrpo.tasks.proofs.rewards import grade_proofs
from verl_fgrpo.tasks.proofs.theorems import Theorem, load_theorems

DATA_SOURCE = "verl_fgrpo/proofs"
TOKENIZER = WordTokenizer((*dict.fromkeys((*STATEMENT_TOKENS, *PROOF_TOKENS)), NEWLINE, END))


def prompt_of(statement: str) -> str:
    """What the model sees: the statement and a newline, which ends it."""
    return statement + NEWLINE


def as_problem(statement: str) -> Problem:
    """A theorem as the evaluation's commands know it; the gold answer is the statement, which Lean decides by."""
    problem_id = hashlib.sha256(statement.encode()).hexdigest()[:16]
    return Problem("proofs", problem_id, prompt_of(statement), "proofs", (statement,))


def to_rows(theorems: Iterable[Theorem], split: str) -> list[dict[str, Any]]:
    """One row of verl's data format a theorem; `reward_model.ground_truth` is the statement."""
    return [
        {
            "data_source": DATA_SOURCE,
            "prompt": [{"role": "user", "content": prompt_of(theorem.statement)}],
            "ability": "proofs",
            "reward_model": {"style": "rule", "ground_truth": theorem.statement},
            "extra_info": {"index": i, "split": split, "problem_id": as_problem(theorem.statement).problem_id},
        }
        for i, theorem in enumerate(theorems)
    ]


def read_heldout(data: Path) -> list[Theorem]:
    """Held-out theorems of a prepared folder with their enumerated proofs, in order."""
    return load_theorems(data / "heldout.json")


def read_problems(data: Path) -> list[Problem]:
    """The held-out theorems in the order of val.parquet."""
    return [as_problem(row["reward_model"]["ground_truth"]) for row in iter_rows(data / "val.parquet")]


def grade(pairs: Sequence[tuple[Problem, str]]) -> list[Graded]:
    """Lean's verdicts of (theorem, answer) pairs."""
    return grade_proofs([(problem.answers[0], response) for problem, response in pairs])


PROOFS = Task("proofs", TOKENIZER, read_problems, grade)
