"""Grading over a Ray cluster: on every CPU of it a grading process with the same limits, so the same verdicts."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
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
            ray.init(log_to_driver=False, include_dashboard=False)
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


def _grade(task: Task, limits: Limits, options: GraderOptions) -> list[tuple[Any, Graded]]:
    return _pool(limits, options).run(task)


@lru_cache(maxsize=2)
def _pool(limits: Limits, options: GraderOptions) -> GradingPool:
    return GradingPool(limits, 1, options)
