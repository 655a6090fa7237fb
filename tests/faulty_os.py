"""`os` as `verl_fgrpo.core.files` sees it, with a fault at a chosen call."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

CALLS = ("open", "write", "ftruncate", "lseek", "fsync", "replace", "close")
FAULTS: tuple[Callable[[], BaseException], ...] = (
    KeyboardInterrupt,
    lambda: OSError(errno.ENOSPC, "No space left on device"),
)


class FaultyOs:
    """`os`, except that its n-th call of `CALLS` fails: before it, after it, or (a write) halfway."""

    def __init__(self, at: int, when: str, fault: Callable[[], BaseException], times: int = 1) -> None:
        self.at, self.when, self.fault, self.times = at, when, fault, times
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real: Any = getattr(os, name)
        if name not in CALLS:
            return real
        if name == "fsync":  # slow, and these tests do not pull the plug
            real = os.fstat

        def call(*args: Any) -> Any:
            self.calls.append(name)
            if not self.at <= len(self.calls) < self.at + self.times:
                return real(*args)
            if self.when == "halfway" and name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            elif self.when == "after":
                real(*args)
            raise self.fault()

        return call
