"""Theorem proving with Mathlib, as in "Rewarding the Unlikely" (arXiv 2506.02355): prompts, data, reward, grading.

verl's reward function is `compute_score`; the toolchain is named by the variables that `settings_from` reads.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_parquet
from verl_fgrpo.core.gather import Gatherer
from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.evaluation.graders import ANSWER_CHARACTERS, Graded
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.tasks.proofs.repl import ReplPool, ReplSettings, toolchain_report
from verl_fgrpo.tasks.proofs.rewards import VERDICTS

DATA_SOURCE = "verl_fgrpo/mathlib"
HEADER = """\
import Mathlib
import Aesop

set_option maxHeartbeats 400000

open BigOperators Real Nat Topology Rat
"""
FENCE = "```"
#: what DeepSeek-Prover-V1.5 (arXiv 2408.08152) is asked; the model goes on after the statement and ends with the fence
PROMPT = "Complete the following Lean 4 code:\n\n" + FENCE + "lean4\n{header}\n{informal}{statement}"
RIGHT = ("theorem two_add_two : (2 : ℕ) + 2 = 4 := by", "  norm_num")
WRONG = ("theorem two_add_two : (2 : ℕ) + 2 = 5 := by", "  norm_num")


def settings_from(environment: Mapping[str, str]) -> ReplSettings:
    """LEAN_REPL and LEAN_PROJECT, and with defaults LEAN_WORKERS, LEAN_SECONDS, LEAN_MEMORY_GB.

    Raises:
        ValueError: one is missing or bad.
    """
    for name in ("LEAN_REPL", "LEAN_PROJECT"):
        if not environment.get(name):
            raise ValueError(
                f"{name} is not set: LEAN_PROJECT names a Lake project with Mathlib, LEAN_REPL the command of "
                "leanprover-community/repl in it, e.g. 'lake env /path/to/repl/.lake/build/bin/repl'"
            )
    return ReplSettings(
        environment["LEAN_REPL"],
        Path(environment["LEAN_PROJECT"]).resolve(),
        HEADER,
        int(environment.get("LEAN_WORKERS", "8")),
        float(environment.get("LEAN_SECONDS", "60")),
        memory_gb=float(environment.get("LEAN_MEMORY_GB", "16")),
    )


def proof_in(response: str) -> str | None:
    """The proof before the closing fence; None without a fence, or with any text after it (the paper fails both)."""
    proof, fence, rest = response.partition(FENCE)
    return proof if fence and not rest.strip() else None


def check(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Verdicts of (statement, response) pairs by this process's pool; a response without a proof is `error`.

    Raises:
        RuntimeError: there is no REPL, or it cannot be started.
    """
    proofs = [proof_in(response) for _, response in pairs]
    todo = [(statement, proof) for (statement, _), proof in zip(pairs, proofs, strict=True) if proof is not None]
    verdicts = iter(_pool().check(todo))
    return ["error" if proof is None else next(verdicts) for proof in proofs]


async def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float | bool]:
    """Binary reward: 1.0 if Lean accepts the response as a proof of the statement `ground_truth` and nothing follows.

    Raises:
        RuntimeError: the REPL cannot be started.
    """
    verdict = await _gatherer(asyncio.get_running_loop()).submit((ground_truth, solution_str))
    return {"score": float(verdict == "proved"), "acc": verdict == "proved"}


def grade_mathlib(problem: Problem, response: str) -> Graded:
    """One response, for `verl-fgrpo eval grade`; each grading process keeps REPLs of its own (LEAN_WORKERS=1)."""
    (verdict,) = check([(problem.answers[0], response)])
    return VERDICTS[verdict], (proof_in(response) or "").strip()[:ANSWER_CHARACTERS] or None, ""


def convert(source: Path, out: Path, split: str) -> int:
    """verl's Parquet OUT.parquet and the evaluation's OUT.jsonl of a file with the authors' columns.

    Columns: theorem_full_name, theorem_statement, informal_statement (may be empty). Returns the number of theorems.

    Raises:
        ValueError: a column is missing.
    """
    rows, problems = [], []
    for i, row in enumerate(iter_rows(source)):
        if missing := {"theorem_full_name", "theorem_statement", "informal_statement"} - set(row):
            raise ValueError(f"{source} has no column {sorted(missing)[0]}: it must be a file as the authors publish")
        prompt = PROMPT.format(header=HEADER, informal=row["informal_statement"], statement=row["theorem_statement"])
        extra = {"index": i, "split": split, "problem_id": row["theorem_full_name"]}
        rows.append(
            {
                "data_source": DATA_SOURCE,
                "prompt": [{"role": "user", "content": prompt}],
                "ability": "proofs",
                "reward_model": {"style": "rule", "ground_truth": row["theorem_statement"]},
                "extra_info": extra,
            }
        )
        answers = (row["theorem_statement"],)
        problems.append(Problem("mathlib", row["theorem_full_name"], prompt, "mathlib", answers))
    if not rows:
        raise ValueError(f"{source} holds no theorem; give a file as the authors publish")
    write_parquet(out.with_name(f"{out.name}.parquet"), rows)
    save_problems(problems, out.with_name(f"{out.name}.jsonl"))
    return len(rows)


def toolchain(environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the toolchain of the environment's variables works, and a line that says so."""
    return toolchain_report(settings_from(dict(environment) | {"LEAN_WORKERS": "1"}), RIGHT, WRONG)


@lru_cache(maxsize=1)
def _pool() -> ReplPool:
    try:
        return ReplPool(settings_from(os.environ))
    except ValueError as error:
        raise RuntimeError(str(error)) from None


@lru_cache(maxsize=1)
def _gatherer(loop: asyncio.AbstractEventLoop) -> Gatherer[tuple[str, str], str]:
    async def handle(items: list[tuple[str, str]]) -> list[str]:
        return await asyncio.to_thread(check, items)

    return Gatherer(handle, quiet_seconds=0.02)
