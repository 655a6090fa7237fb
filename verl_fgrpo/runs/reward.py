"""verl's reward function for math: math-verify in worker processes, 1.0 or 0.0, and every failure counted.

    reward.custom_reward_function.path=pkg://verl_fgrpo.rewards reward.custom_reward_function.name=compute_score

verl calls a reward function in executor threads of its reward workers. math-verify's time limits are signals, which
work in a main thread alone, and a limit set by a thread cannot interrupt a regular expression or an integer power. So
each response is graded in a process of its own (`evaluation.workers`, the same code that grades the evaluation), which
is killed when it is overdue.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from verl_fgrpo.evaluation import workers
from verl_fgrpo.evaluation.graders import Graded
from verl_fgrpo.evaluation.problems import Problem, gold_answers
from verl_fgrpo.evaluation.workers import Limits

__all__ = ["GraderPool", "Tally", "compute_score"]

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


class GraderPool:
    """A fixed number of grading processes shared by any number of threads.

    Args:
        limits: time and memory of one response.
        size: processes, started when first needed; replaced when they had to be killed or have grown too large.
    """

    def __init__(self, limits: Limits, size: int) -> None:
        if size < 1:
            raise ValueError(f"graders={size} must be at least 1")
        self.limits = limits
        self._context = multiprocessing.get_context("forkserver")
        # Forked from a server that has loaded the libraries once, so a new worker starts in milliseconds. A worker
        # re-imports its parent's main module, in verl Ray's: preloaded too.
        preload = list(workers.PRELOAD)
        if "ray" in sys.modules:
            preload.append("ray._private.workers.default_worker")
        self._context.set_forkserver_preload(preload)
        self._idle: queue.LifoQueue[workers.Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)

    def grade(self, problem: Problem, response: str) -> Graded:
        """(verdict, extracted answer, detail), within the time limit once a process is free.

        Raises:
            RuntimeError: a process cannot start.
        """
        worker = self._idle.get()
        try:
            if worker is not None and worker.process.is_alive() and workers.has_grown(worker, self.limits):
                workers.kill_worker(worker)
            if worker is None or not worker.process.is_alive():
                worker = workers.start_worker(self._context, self.limits)
            return workers.grade_one(worker, problem, response, self.limits)
        finally:
            self._idle.put(worker if worker is not None and worker.process.is_alive() else None)

    def close(self) -> None:
        """End the idle processes; they are started again when needed."""
        for _ in range(self._idle.qsize()):
            worker = self._idle.get_nowait()
            if worker is not None:
                workers.kill_worker(worker)
            self._idle.put(None)


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


def _pool(seconds: float, memory_mib: int, graders: int) -> GraderPool:
    with _pool_lock:
        return _cached_pool(seconds, memory_mib, graders)


@lru_cache(maxsize=4)
def _cached_pool(seconds: float, memory_mib: int, graders: int) -> GraderPool:
    return GraderPool(Limits(seconds=seconds, memory_mib=memory_mib), graders)
