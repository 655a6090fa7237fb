"""Grading in worker processes that can be killed: a time and a memory limit for every single response.

A regular expression or an integer power inside sympy cannot be interrupted from Python, so a limit that holds needs a
process of its own. The parent sends a chunk of items to a worker, which replies every 20 ms and notes in shared memory
which item it is at since when; when that one is overdue, the parent kills the worker (SIGKILL), gives the item the
verdict "timeout", starts a new worker and sends it the rest. A worker that dies by itself (out of memory, segmentation
fault) gives its current item the verdict "error". Items graded since its last reply are graded again.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from verl_fgrpo.evaluation.graders import Graded, grader_of
from verl_fgrpo.evaluation.problems import Problem

__all__ = [
    "PRELOAD",
    "Limits",
    "Task",
    "Worker",
    "grade_one",
    "grade_tasks",
    "has_grown",
    "kill_worker",
    "start_worker",
]

START_SECONDS = 120.0
REPLY_SECONDS = 0.02
#: Modules of the fork server: loaded once, so that a new worker starts in milliseconds.
PRELOAD = ("verl_fgrpo.evaluation.workers", "verl_fgrpo.evaluation.warm")


@dataclass(frozen=True)
class Limits:
    """Limits of one response.

    Attributes:
        seconds: CPU time, so that a busy machine makes no time-outs; ten times as much wall-clock time ends it too.
            math-verify's own limit (5 s of wall-clock time a step) acts first where Python can be interrupted.
        memory_mib: address space a worker may use beyond what it has after loading its libraries.
    """

    seconds: float = 10.0
    memory_mib: int = 2048

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds} must be positive")
        if self.memory_mib < 64:
            raise ValueError(f"memory_mib={self.memory_mib} must be at least 64: sympy itself needs some")


@dataclass
class Task:
    """Responses to one problem; `tokens` come back with the verdicts, in whatever order."""

    problem: Problem
    responses: list[str]
    tokens: list[Any]


@dataclass
class Worker:
    """A grading process, the pipe to it, and what it is doing.

    Attributes:
        progress: shared with the process: index of its item in the task, its CPU time and the clock when it began it,
            and its address space in bytes when it was ready.
        done: items of the task that it has replied to.
        deadline: when to look whether the item is overdue.
    """

    process: Any
    pipe: Connection
    progress: Any
    task: Task | None = None
    done: int = 0
    deadline: float = 0.0
    ready: bool = False
    started: float = field(default_factory=time.monotonic)


def grade_tasks(
    tasks: Iterable[Task], limits: Limits | None = None, num_workers: int = 1, options: str = "{}"
) -> Iterator[tuple[Any, Graded]]:
    """Yield (token, (verdict, answer, detail)) for every response of every task, in order of completion.

    Args:
        tasks: read lazily, one per idle worker.
        limits: of one response.
        num_workers: processes.
        options: of the graders, see `graders.grader_of`.

    Raises:
        RuntimeError: a worker cannot start (a library is missing, say); its message is passed on.
    """
    limits = limits or Limits()
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers} must be at least 1")
    # Fork from a clean server: a new worker inherits neither the parent's threads nor its open files.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    source = iter(tasks)
    waiting: deque[Task] = deque()
    workers: list[Worker] = []

    def more() -> bool:
        if not waiting and (task := next(source, None)) is not None:
            waiting.append(task)
        return bool(waiting)

    try:
        while True:
            for worker in [worker for worker in workers if worker.ready and worker.task is None]:
                if has_grown(worker, limits):
                    kill_worker(worker)
                    workers.remove(worker)
                elif more():
                    _send(worker, waiting.popleft(), limits)
            if more() and len(workers) < num_workers:
                workers.append(start_worker(context, limits, options))
            if not waiting and all(worker.task is None for worker in workers):
                return
            busy = [worker for worker in workers if worker.task is not None or not worker.ready]
            timeout = max(0.0, min(map(_deadline, busy)) - time.monotonic())
            readable = set(wait([worker.pipe for worker in busy], timeout))
            for worker in busy:
                if worker.pipe in readable:
                    yield from _receive(worker, workers, waiting, limits)
                elif time.monotonic() > _deadline(worker):
                    if worker.task is None:
                        raise RuntimeError(f"a grading worker did not start within {START_SECONDS:.0f} s")
                    if _has_time_left(worker, limits):
                        continue
                    detail = f"no verdict within {limits.seconds:g} s of CPU time"
                    yield from _abandon(worker, workers, waiting, limits, "timeout", detail)
    finally:
        for worker in workers:
            kill_worker(worker)


def _deadline(worker: Worker) -> float:
    return worker.deadline if worker.ready else worker.started + START_SECONDS


def _start_clock(worker: Worker, limits: Limits) -> None:
    worker.progress[0], worker.progress[2] = 0, time.monotonic()
    worker.deadline = worker.progress[2] + limits.seconds


def _has_time_left(worker: Worker, limits: Limits) -> bool:
    """Whether the item has used less CPU time than it may; if so, the deadline moves on."""
    _, cpu_at_start, started, _ = worker.progress[:]
    try:
        fields = open(f"/proc/{worker.process.pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") - cpu_at_start
    except (OSError, IndexError):
        return False  # no /proc: wall-clock time decides
    left = limits.seconds - used
    if left <= 0 or time.monotonic() - started > 10 * limits.seconds:
        return False
    worker.deadline = time.monotonic() + max(0.05, left)
    return True


def has_grown(worker: Worker, limits: Limits) -> bool:
    """Whether what the libraries remember takes half of the memory that a response may need: time for a new worker.

    Args:
        worker: idle, after its first response.
        limits: those the worker was started with.
    """
    try:
        pages = int(open(f"/proc/{worker.process.pid}/statm").read().split()[0])  # noqa: SIM115
    except (OSError, IndexError):
        return False
    grown = pages * os.sysconf("SC_PAGE_SIZE") - worker.progress[3]
    return bool(grown > limits.memory_mib * 2**20 / 2)


def grade_one(worker: Worker, problem: Problem, response: str, limits: Limits) -> Graded:
    """Grade one response in a worker that has nothing else to do; one that is over its limits is killed.

    Args:
        worker: of `start_worker`; after the verdicts "timeout" and "error" it may be dead.
        problem: with the gold answers.
        response: text.
        limits: those the worker was started with.

    Returns:
        (verdict, answer, detail).

    Raises:
        RuntimeError: the worker could not start; its message is passed on.
    """
    try:
        if not worker.ready:
            message = worker.pipe.recv() if worker.pipe.poll(START_SECONDS) else "it did not answer"
            if message is not None:
                kill_worker(worker)
                raise RuntimeError(f"a grading worker cannot start: {message}")
            worker.ready = True
        _start_clock(worker, limits)
        worker.pipe.send((problem, [response]))
        while not worker.pipe.poll(max(0.0, worker.deadline - time.monotonic())):
            if not _has_time_left(worker, limits):
                kill_worker(worker)
                return "timeout", None, f"no verdict within {limits.seconds:g} s of CPU time"
        graded: Graded
        [graded] = worker.pipe.recv()
        return graded
    except (EOFError, OSError):
        kill_worker(worker)
        if not worker.ready:
            code = worker.process.exitcode
            raise RuntimeError(f"a grading worker died at its start, exit code {code}") from None
        return "error", None, _death(worker)


def _death(worker: Worker) -> str:
    return f"the worker died, exit code {worker.process.exitcode} (memory limit or a crash in a library)"


def start_worker(context: Any, limits: Limits, options: str = "{}") -> Worker:
    """Start a process that grades; `grade_tasks` or `grade_one` waits until it is ready."""
    parent, child = context.Pipe()
    progress = context.RawArray("d", 4)
    process = context.Process(target=_serve, args=(child, progress, limits.memory_mib, options), daemon=True)
    process.start()
    child.close()
    return Worker(process, parent, progress)


def _send(worker: Worker, task: Task, limits: Limits) -> None:
    worker.task, worker.done = task, 0
    _start_clock(worker, limits)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died reading: `_receive` will see the end
        worker.pipe.send((task.problem, task.responses))


def _receive(
    worker: Worker, workers: list[Worker], waiting: deque[Task], limits: Limits
) -> Iterator[tuple[Any, Graded]]:
    """Handle all replies that have arrived, or the death of the worker."""
    try:
        while worker.pipe.poll():
            message = worker.pipe.recv()
            if worker.ready:
                yield from _accept(worker, message, limits)
            elif message is not None:
                raise RuntimeError(f"a grading worker cannot start: {message}")
            else:
                worker.ready = True
    except (EOFError, OSError):
        worker.process.join(5)
        if not worker.ready:
            raise RuntimeError(f"a grading worker died at its start, exit code {worker.process.exitcode}") from None
        yield from _abandon(worker, workers, waiting, limits, "error", _death(worker))


def _accept(worker: Worker, replies: list[Graded], limits: Limits) -> Iterator[tuple[Any, Graded]]:
    task = worker.task
    assert task is not None
    tokens = task.tokens[worker.done : worker.done + len(replies)]
    worker.done += len(replies)
    worker.deadline = time.monotonic() + limits.seconds
    if worker.done == len(task.responses):
        worker.task = None
    yield from zip(tokens, replies, strict=True)


def _abandon(
    worker: Worker, workers: list[Worker], waiting: deque[Task], limits: Limits, verdict: str, detail: str
) -> Iterator[tuple[Any, Graded]]:
    """End this worker, give its current item its verdict, and keep the rest of the task for another worker."""
    worker.process.kill()
    worker.process.join()
    workers.remove(worker)
    with contextlib.suppress(EOFError, OSError):
        while worker.task is not None and worker.pipe.poll():  # what it sent before it ended
            yield from _accept(worker, worker.pipe.recv(), limits)
    worker.pipe.close()
    task, done = worker.task, worker.done
    if task is not None:
        at = max(done, int(worker.progress[0]))
        rest = [index for index in range(done, len(task.responses)) if index != at]
        if rest:
            responses, tokens = [task.responses[index] for index in rest], [task.tokens[index] for index in rest]
            waiting.appendleft(Task(task.problem, responses, tokens))
        yield task.tokens[at], (verdict, None, detail)


def kill_worker(worker: Worker) -> None:
    """End a worker at once, whatever it is doing."""
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _serve(pipe: Connection, progress: Any, memory_mib: int, options: str) -> None:
    """A worker: receive (problem, responses), reply lists of (verdict, answer, detail), in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its workers
    try:
        # Nothing a response makes the libraries print may reach the user's terminal.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno() if _has_fileno(sys.stdout) else 1)
        import logging

        logging.disable(logging.CRITICAL)
        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # noqa: SIM115
        limit = used + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    # What the libraries loaded stays; looking through it for garbage again and again takes a tenth of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    _note(progress, 0)
    progress[3] = used
    pipe.send(None)
    graders: dict[str, Any] = {}
    while True:
        try:
            problem, responses = pipe.recv()
        except EOFError:
            return
        replies: list[Graded] = []
        replied = time.monotonic()
        for index, response in enumerate(responses):
            if replies and time.monotonic() - replied > REPLY_SECONDS:
                pipe.send(replies)
                replies, replied = [], time.monotonic()
            _note(progress, index)
            replies.append(_grade(graders, problem, response, options))
        _note(progress, len(responses) - 1)
        pipe.send(replies)


def _note(progress: Any, index: int) -> None:
    progress[1] = time.process_time()
    progress[2] = time.monotonic()
    progress[0] = index


def _grade(graders: dict[str, Any], problem: Problem, response: str, options: str) -> Graded:
    try:
        if problem.kind not in graders:
            graders[problem.kind] = grader_of(problem.kind, options)
        graded: Graded = graders[problem.kind](problem, response)
        return graded
    except MemoryError:
        return "error", None, "memory limit"
    except RecursionError:
        return "error", None, "nested too deeply (RecursionError)"
    except Exception as error:
        return "error", None, f"{type(error).__name__}: {str(error)[:300]}"


def _has_fileno(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
