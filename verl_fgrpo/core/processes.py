"""Processes beside this one: they end with it, however it ends, and leave Ctrl-C to it."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker

PR_SET_PDEATHSIG = 1  # prctl(2)


def ends_with_parent() -> Callable[[], None]:
    """What a child of this process calls first, so that the kernel ends it with this thread, whatever it computes."""
    return partial(_end_with, os.getpid())


@contextmanager
def worker_pool(jobs: int, first: Callable[[], object] = int) -> Iterator[ProcessPoolExecutor]:
    """`jobs` spawned processes (a forked one would inherit torch's threads in an undefined state).

    Left by an exception, they are killed at once. Each calls `first` when it starts.
    """
    before = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_begin, initargs=(ends_with_parent(), first))
    try:
        resource_tracker.ensure_running()  # first: its own start unblocks SIGINT
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which is inherited
        try:
            for _ in range(jobs):
                pool.submit(int)  # starts one, as none is idle yet
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(ends: Callable[[], None], first: Callable[[], object]) -> None:
    ends()
    first()


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before
