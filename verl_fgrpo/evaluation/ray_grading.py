"""Grading over a Ray cluster: on every CPU of it a grading process with the same limits, so the same verdicts."""

import os
import socket
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.graders import Graded, GraderOptions
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.workers import GradingPool, Limits, Task, in_flight


class RayPool(GradingPool):
    """A pool whose processes stand on the nodes of a Ray cluster, which must have this package and its graders.

    The cluster is that of RAY_ADDRESS, else one started here. Each Ray worker keeps one grading process, which dies
    with it; at most two tasks a CPU are in flight, which bounds what is held here and in the object store.
    """

    def __init__(self, limits: Limits, options: GraderOptions) -> None:
        import ray

        self._started = not ray.is_initialized()
        if self._started:
            connect(log_to_driver=False, include_dashboard=False)
        self._ray = ray
        super().__init__(limits, max(1, int(ray.cluster_resources().get("CPU", 1))), options)
        self._grade = ray.remote(num_cpus=1, max_retries=3)(_grade)

    def grade(self, problem: Problem, response: str) -> Graded:
        return next(self.grade_tasks([Task(problem, [response], [0])]))[1]

    def grade_tasks(self, tasks: Iterable[Task]) -> Iterator[tuple[Any, Graded]]:
        return in_flight(
            lambda task: self._grade.remote(task, self.limits, self.options).future(), tasks, 2 * len(self.workers)
        )

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()


def connect(**options: Any) -> None:
    """`ray.init`. Raises RuntimeError if RAY_ADDRESS is `unreachable`."""
    import ray

    if told := unreachable(os.environ.get("RAY_ADDRESS", "")):
        raise RuntimeError(told)
    ray.init(**options)


def unreachable(address: str) -> str:
    """Why `address`, of RAY_ADDRESS, leads to no Ray cluster; "" if it may. Ray itself would try for minutes."""
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"  # what `ray start` leaves there
    if address == "auto" and noted.is_file():
        address = noted.read_text().strip()
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if address in ("", "local", "auto") or "://" in address and not port.isdecimal():
        return ""
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        return f"RAY_ADDRESS is {address!r}, but it must be HOST:PORT, auto, or unset for a Ray of this run"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except OSError as error:
        return f"RAY_ADDRESS {address} does not answer ({error}); start Ray there, or unset it for a Ray of this run"
    return ""


def _grade(task: Task, limits: Limits, options: GraderOptions) -> list[tuple[Any, Graded]]:
    return _pool(limits, options).run(task)


@lru_cache(maxsize=2)
def _pool(limits: Limits, options: GraderOptions) -> GradingPool:
    return GradingPool(limits, 1, options)
