"""Worker processes end with their parent, however it ends, and at once where an exception leaves the pool."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from verl_fgrpo.core.processes import worker_pool

HANGS = """
import os, time
from verl_fgrpo.core.processes import worker_pool
with worker_pool(2) as pool:
    print(*sorted({pool.submit(os.getpid).result() for _ in range(50)}), flush=True)
    running = [pool.submit(time.sleep, 10**6) for _ in range(4)]
    time.sleep(10**6)
"""


def test_workers_of_a_killed_parent_end() -> None:
    parent = subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline()
    workers = [one for one in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(workers, timeout=600)[1] == []


def test_an_exception_waits_for_no_worker() -> None:
    with pytest.raises(KeyError), worker_pool(1) as pool:
        worker = psutil.Process(pool.submit(os.getpid).result())
        pool.submit(time.sleep, 10**6)
        raise KeyError
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
