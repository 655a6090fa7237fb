"""verl's reward function for math: math-verify in worker processes, 1.0 or 0.0, and every failure counted.

    reward.custom_reward_function.path=pkg://verl_fgrpo.rewards reward.custom_reward_function.name=compute_score

verl calls a reward function in executor threads of its reward workers. math-verify's time limits are signals, which
work in a main thread alone, and a limit set by a thread cannot interrupt a regular expression or an integer power. So
responses are graded in processes of their own (`evaluation.workers.GradingPool`, as in the evaluation), which are
killed when they are overdue. math-verify runs there as it is installed: nothing of it is replaced.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from verl_fgrpo.evaluation.problems import Problem, gold_answers
from verl_fgrpo.evaluation.workers import GradingPool, Limits

logger = logging.getLogger(__name__)

FAILURES = ("timeout", "unparsed", "error")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Sequence[str] | Mapping[str, Any],
    extra_info: Any = None,
    seconds: float = 10.0,
    memory_mib: int = 2048,
    graders: int = 2,
    **_: Any,
) -> dict[str, float]:
    r"""Reward of one response: 1.0 if math-verify finds the gold answer in it, else 0.0 (arXiv 2602.06717, L.1).

    A response that is not graded within the limits, or in which nothing can be parsed, gets 0.0 and says so: the keys
    `timeout`, `unparsed` and `error` are 1.0 then (verl averages them at each validation as
    `val-aux/.../timeout/mean@n`), and the log tells their counts.

    Args:
        data_source: unused; part of verl's interface.
        solution_str: the decoded response.
        ground_truth: gold answer in LaTeX without `\boxed`; several alternatives as a list; or a mapping with `target`.
        extra_info: unused.
        seconds: of CPU time a response may take, so that a busy machine makes no time-outs; ten times as much
            wall-clock time ends it too.
        memory_mib: memory limit of a worker, beyond what it has after loading its libraries.
        graders: worker processes of this reward process, so that one slow response does not hold up the rest. These
            three are set with `+reward.custom_reward_function.reward_kwargs.seconds=5` and so on.

    Returns:
        `score` and `acc` (equal), `timeout`, `unparsed`, `error`: all 0.0 or 1.0.

    Raises:
        ValueError: no gold answer.
        RuntimeError: the workers cannot start (math-verify is missing, say).
    """
    problem = Problem(str(data_source), "", "", "math", gold_answers(ground_truth))
    verdict, _answer, detail = _pool(float(seconds), int(memory_mib), int(graders)).grade(problem, solution_str)
    _tally.add(verdict, detail)
    correct = float(verdict == "correct")
    return {"score": correct, "acc": correct, **{failure: float(verdict == failure) for failure in FAILURES}}


class Tally:
    """Counts verdicts of one process; logs the first failure of each kind, then at every doubling of their number."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, verdict: str, detail: str = "") -> None:
        """Count one verdict."""
        with self._lock:
            self.counts[verdict] += 1
            failed, total = self.counts[verdict], sum(self.counts.values())
        if verdict in FAILURES and failed & (failed - 1) == 0:
            logger.warning(
                "reward: %d of %d responses so far got 0.0 as %r%s",
                failed,
                total,
                verdict,
                f" (the last: {detail})" if detail else "",
            )


_tally = Tally()
_pool_lock = threading.Lock()


def _pool(seconds: float, memory_mib: int, graders: int) -> GradingPool:
    with _pool_lock:
        return _cached_pool(seconds, memory_mib, graders)


@lru_cache(maxsize=4)
def _cached_pool(seconds: float, memory_mib: int, graders: int) -> GradingPool:
    return GradingPool(Limits(seconds=seconds, memory_mib=memory_mib), graders)
