"""verl's reward function for proofs: 1.0 for a proof that the Lean kernel accepts, 0.0 for anything else.

Use it with `reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.proofs.rewards` and `name=compute_score`.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from verl_fgrpo.core.gather import Gatherer
from verl_fgrpo.evaluation.graders import ANSWER_CHARACTERS, Graded
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.tasks.common.tokenizer import END
from verl_fgrpo.tasks.proofs.lean import check_proofs, kernel_report
from verl_fgrpo.tasks.proofs.search import canonical

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.02  # a batch is sent to Lean when nothing new came for so long
PATIENCE = 60.0  # seconds for one proof alone: heartbeats end a blow-up in two, a busy machine must not cost a verdict

#: Lean's verdict -> that of the evaluation
VERDICTS = {"proved": "correct", "wrong": "wrong", "error": "unparsed", "timeout": "timeout"}


def proof_of(response: str) -> str:
    """The proof in a response: without the end token and blanks around it."""
    return response.strip(" ").removesuffix(END).strip(" ")


async def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float | bool]:
    """Binary reward R = 1[the kernel accepts the response as a proof of the statement].

    What verl's worker asks for at the same moment is checked by one Lean process in a thread, so its event loop never
    waits; one process at a time a worker bounds memory.

    Args:
        data_source: unused; part of verl's interface.
        solution_str: the decoded response.
        ground_truth: the statement.
        extra_info: unused.
        kwargs: unused.
    Returns:
        `score` 1.0 or 0.0, and `acc`, the same as a bool. A response that Lean did not decide within its limits is
        wrong; the worker's log counts them.
    Raises:
        RuntimeError: there is no Lean kernel that works.
    """
    accepted = await _gatherer(asyncio.get_running_loop()).submit((ground_truth, proof_of(solution_str))) == "proved"
    return {"score": float(accepted), "acc": accepted}


@lru_cache(maxsize=1)
def _gatherer(loop: asyncio.AbstractEventLoop) -> Gatherer[tuple[str, str], str]:
    turn = asyncio.Lock()

    async def check(items: list[tuple[str, str]]) -> list[str]:
        async with turn:
            await asyncio.to_thread(require_kernel)
            verdicts = await asyncio.to_thread(check_proofs, items, PATIENCE)
        if late := verdicts.count("timeout"):
            logger.warning("Lean decided %d of %d proofs within its limits", len(items) - late, len(items))
        return verdicts

    return Gatherer(check, QUIET_SECONDS)


@lru_cache(maxsize=1)
def require_kernel() -> None:
    """Raises RuntimeError unless a Lean kernel is there and works: without one every reward would be 0 in silence."""
    works, line = kernel_report()
    if not works:
        raise RuntimeError(line)


def grade_proofs(pairs: Sequence[tuple[str, str]]) -> list[Graded]:
    """Verdicts of (statement, response) pairs; the answer is the canonical proof, so that distinct ones can be counted.

    A response that is not in the language of proofs is unparsed.
    """
    if not pairs:
        return []
    require_kernel()
    proofs = [proof_of(response) for _, response in pairs]
    items = [(statement, proof) for (statement, _), proof in zip(pairs, proofs, strict=True)]
    verdicts = check_proofs(items, PATIENCE)
    return [
        (VERDICTS[verdict], canonical(proof)[:ANSWER_CHARACTERS] if verdict in ("proved", "wrong") else None, "")
        for verdict, proof in zip(verdicts, proofs, strict=True)
    ]


def grade_proof(problem: Problem, response: str) -> Graded:
    """One response, for `verl-fgrpo eval grade`; a Lean process each, so the recipe's own grading is much faster."""
    return grade_proofs([(problem.answers[0], response)])[0]
