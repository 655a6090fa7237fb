"""Grading in worker processes that can be killed: a time and a memory limit for every single response.

A regular expression or an integer power inside sympy cannot be interrupted from Python, so a limit that holds needs a
process of its own. The parent sends a chunk of items to a worker, which replies every 20 ms and notes in shared memory
which item it is at since when; when that one is overdue, the parent kills the worker (SIGKILL), gives the item the
verdict "timeout" and sends the rest to a new process. A worker that dies by itself (out of memory, segmentation fault)
gives its current item the verdict "error". Items graded since its last reply are graded again.

A worker whose parent is gone is ended by the kernel, whatever it computes; a CPU limit on every item ends it too where
the parent is there but stopped.

Why not pebble: its limit is the wall-clock time of a whole chunk, so a busy machine makes time-outs and a killed chunk
loses the items that were done; CPU and memory limits, the parent's death and the clean fork would still be ours.
"""

import contextlib
import fcntl
import gc
import logging
import math
import multiprocessing
import os
import queue
import resource
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from verl_fgrpo.evaluation.graders import DEFAULTS, Graded, GraderOptions, grader_of
from verl_fgrpo.evaluation.problems import Problem

START_SECONDS = 600.0  # loading the libraries takes 6 s of CPU time, which a busy machine may stretch
REPLY_SECONDS = 0.02
#: Modules of the fork server: loaded once, so that a new worker starts in milliseconds.
PRELOAD = ("verl_fgrpo.evaluation.workers", "verl_fgrpo.evaluation.preload")


@dataclass(frozen=True)
class Limits:
    """Limits of one response.

    Attributes:
        seconds: CPU time, so that a busy machine makes no time-outs; ten times as much wall-clock time ends it too.
            math-verify's own limit (5 s of CPU time a step) acts first where Python can be interrupted.
        memory_mib: address space a worker may use beyond what it has after loading its libraries.
    """

    seconds: float = 10.0
    memory_mib: int = 2048

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 86_400:
            raise ValueError(f"seconds={self.seconds} must be positive, and at most a day")
        if not 64 <= self.memory_mib <= 2**24:
            raise ValueError(f"memory_mib={self.memory_mib} must be at least 64 (sympy needs some), at most 2**24")


DEFAULT_LIMITS = Limits()


@dataclass
class Task:
    """Responses to one problem; `tokens` come back with the verdicts, in whatever order."""

    problem: Problem
    responses: list[str]
    tokens: list[Any]


class WorkerClosed(Exception):
    """The worker was closed while it graded."""


class Worker:
    """One grading process after another: started when needed, replaced when it was killed or has grown.

    Attributes:
        process: the present one; None before the first task.
        progress: shared with the process: index of its item in the task, its CPU time and the clock when it began it,
            and its address space in bytes when it was ready.
    """

    def __init__(self, limits: Limits, options: GraderOptions = DEFAULTS) -> None:
        self.limits = limits
        self.options = options
        self.process: Any = None
        self.progress: Any = None
        self._pipe: Any = None
        self._lifeline: Connection | None = None
        self._deadline = 0.0
        self._closed = False

    def run(self, task: Task) -> list[tuple[Any, Graded]]:
        """(token, (verdict, answer, detail)) of every response of a task.

        Raises:
            RuntimeError: the process cannot start (a library is missing, say); its message is passed on.
        """
        verdicts: dict[int, Graded] = {}
        while todo := [index for index in range(len(task.responses)) if index not in verdicts]:
            if self.process is not None and (not self.process.is_alive() or self.has_grown()):
                self.kill()
            if self.process is None:
                self._start()
            self._attempt(task, todo, verdicts)
        return [(token, verdicts[index]) for index, token in enumerate(task.tokens)]

    def _attempt(self, task: Task, todo: list[int], verdicts: dict[int, Graded]) -> None:
        """Send the responses `todo` to the process; where it had to be killed or died, not all get a verdict."""
        waiting = deque(todo)

        def receive() -> None:
            for graded in self._pipe.recv():
                verdicts[waiting.popleft()] = graded

        try:
            self._start_clock()
            self._pipe.send((task.problem, [task.responses[index] for index in todo]))
            while waiting:
                if self._pipe.poll(max(0.0, self._deadline - time.monotonic())):
                    receive()
                    self._deadline = time.monotonic() + self.limits.seconds
                elif not self._has_time_left():
                    failure = "timeout", self._too_slow()
                    break
            else:
                return
        except (EOFError, OSError):  # it died, or reading did not fit into its memory
            failure = self._death()
        if self._closed:
            raise WorkerClosed
        self.process.kill()
        with contextlib.suppress(EOFError, OSError):
            while self._pipe.poll():  # what it sent before it ended
                receive()
        verdicts.setdefault(todo[min(int(self.progress[0]), len(todo) - 1)], (failure[0], None, failure[1]))
        self.kill()

    def _start(self) -> None:
        """Start a process and wait until it is ready."""
        # Fork from a clean server: a new worker inherits neither the parent's threads nor its open files.
        context = multiprocessing.get_context("forkserver")
        preload = list(PRELOAD)
        if "ray" in sys.modules:  # a worker imports its parent's main module again, in verl that of Ray
            preload.append("ray._private.workers.default_worker")
        context.set_forkserver_preload(preload)
        self._pipe, child = context.Pipe()
        hangs_up, self._lifeline = context.Pipe(duplex=False)
        self.progress = context.RawArray("d", 4)
        arguments = (child, hangs_up, self.progress, self.limits, self.options)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        with _starting:  # and with SIGINT blocked, which is inherited: Ctrl-C is for the parent, which ends its workers
            resource_tracker.ensure_running()  # first: its own start unblocks SIGINT
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.process = process
        if self._closed:
            process.kill()
        child.close()
        hangs_up.close()
        try:
            message = self._pipe.recv() if self._pipe.poll(START_SECONDS) else f"no answer in {START_SECONDS:.0f} s"
        except (EOFError, OSError):
            process.join(5)
            message = f"it died, exit code {process.exitcode}"
        if self._closed:
            raise WorkerClosed
        if message is not None:
            self.kill()
            raise RuntimeError(f"a grading worker cannot start: {message}")

    def kill(self) -> None:
        """End the process at once, whatever it is doing; the next task starts another one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.join()
        for end in (self._pipe, self._lifeline):
            if end is not None:
                end.close()

    def close(self) -> None:
        """End the process for good, from whatever thread; a `run` in progress raises `WorkerClosed`."""
        self._closed = True
        process = self.process
        if process is not None:
            process.kill()

    def has_grown(self) -> bool:
        """Whether what the libraries remember takes half of the memory that a response may need."""
        try:
            pages = int(open(f"/proc/{self.process.pid}/statm").read().split()[0])  # noqa: SIM115
        except (OSError, IndexError):
            return False
        grown = pages * os.sysconf("SC_PAGE_SIZE") - self.progress[3]
        return bool(grown > self.limits.memory_mib * 2**20 / 2)

    def _start_clock(self) -> None:
        self.progress[0], self.progress[2] = 0, time.monotonic()
        self._deadline = self.progress[2] + self.limits.seconds

    def _has_time_left(self) -> bool:
        """Whether the item has used less CPU time than it may; if so, the deadline moves on."""
        _, cpu_at_start, started, _ = self.progress[:]
        try:
            stat = open(f"/proc/{self.process.pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115
            used = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") - cpu_at_start
        except (OSError, IndexError):
            return False  # no /proc: wall-clock time decides
        left = self.limits.seconds - used
        if left <= 0 or time.monotonic() - started > 10 * self.limits.seconds:
            return False
        self._deadline = time.monotonic() + max(0.05, left)
        return True

    def _too_slow(self) -> str:
        return f"no verdict within {self.limits.seconds:g} s of CPU time"

    def _death(self) -> tuple[str, str]:
        self.process.join(5)
        code = self.process.exitcode
        if code == -signal.SIGXCPU:
            return "timeout", self._too_slow()
        return "error", f"the worker died, exit code {code} (memory limit or a crash in a library)"


_starting = threading.Lock()  # multiprocessing counts its children in one set


class GradingPool:
    """Up to `size` grading processes, for `grade` (`grade_tasks`) and for the reward (`grade`, from any thread)."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, size: int = 1, options: GraderOptions = DEFAULTS) -> None:
        if size < 1:
            raise ValueError(f"{size} grading workers: at least 1 is needed")
        self.limits, self.options = limits, options
        self.workers = [Worker(self.limits, options) for _ in range(size)]
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self.workers:
            self._idle.put(worker)

    def run(self, task: Task) -> list[tuple[Any, Graded]]:
        """`Worker.run` of the next worker that is free."""
        worker = self._idle.get()
        try:
            return worker.run(task)
        finally:
            self._idle.put(worker)

    def grade(self, problem: Problem, response: str) -> Graded:
        """(verdict, extracted answer, detail) of one response, within the limits once a process is free.

        Raises:
            RuntimeError: a process cannot start.
        """
        return self.run(Task(problem, [response], [0]))[0][1]

    def grade_tasks(self, tasks: Iterable[Task]) -> Iterator[tuple[Any, Graded]]:
        """Yield (token, (verdict, answer, detail)) for every response of every task, in order of completion.

        `tasks` is read in this thread, at most two a worker ahead, which bounds what is held. Left early, by an
        exception or otherwise, the pool is closed.

        Raises:
            RuntimeError: a process cannot start (a library is missing, say); its message is passed on.
        """
        threads = ThreadPoolExecutor(len(self.workers))
        try:
            yield from in_flight(lambda task: threads.submit(self.run, task), tasks, 2 * len(self.workers))
        except BaseException:
            self.close()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End all processes, at once and for good."""
        for worker in self.workers:
            worker.close()

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_flight(
    submit: Callable[[Task], Future[list[tuple[Any, Graded]]]], tasks: Iterable[Task], limit: int
) -> Iterator[tuple[Any, Graded]]:
    """The results of all tasks, in order of completion; at most `limit` of them are submitted at a time."""
    source = iter(tasks)
    begun: set[Future[list[tuple[Any, Graded]]]] = set()
    while True:
        begun |= {submit(task) for task in islice(source, limit - len(begun))}
        if not begun:
            return
        done, begun = wait(begun, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()


def _serve(pipe: Connection, lifeline: Connection, progress: Any, limits: Limits, options: GraderOptions) -> None:
    """A worker: receive (problem, responses), reply lists of (verdict, answer, detail), in order."""
    try:
        progress[3] = _confine(lifeline, limits)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    # What the libraries loaded stays; looking through it for garbage again and again takes a tenth of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
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
            _note(progress, index, limits)
            replies.append(_grade(graders, problem, response, options))
        _note(progress, len(responses) - 1, limits)
        pipe.send(replies)


def _confine(lifeline: Connection, limits: Limits) -> int:
    """Set the limits of this process; returns its address space in bytes, to which they add."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the fork server was started by others
    # The parent holds the other end. When it is gone, however it went, the kernel sends SIGIO, whose default is to end
    # the process; a thread that watches would not run while a library computes.
    fcntl.fcntl(lifeline.fileno(), fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline.fileno(), fcntl.F_SETFL, fcntl.fcntl(lifeline.fileno(), fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(1)  # it was gone before
    # Nothing a response makes the libraries print may reach the user's terminal.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)
    used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # noqa: SIM115
    # the soft limit alone: Lean, which a grader may start, has limits of its own and asks for more address space
    _lower(resource.RLIMIT_AS, used + limits.memory_mib * 2**20)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return used


def _note(progress: Any, index: int, limits: Limits) -> None:
    """Tell the parent which item begins now, and the kernel when to end it (the parent is meant to be faster)."""
    progress[1] = time.process_time()
    progress[2] = time.monotonic()
    progress[0] = index
    _lower(resource.RLIMIT_CPU, math.ceil(progress[1] + limits.seconds) + 2)


def _lower(which: int, soft: int) -> None:
    """Set a soft limit, at most the hard one."""
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _grade(graders: dict[str, Any], problem: Problem, response: str, options: GraderOptions) -> Graded:
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
