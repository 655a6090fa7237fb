"""Files that survive a crash: whole files replaced atomically, and append-only logs of compressed frames.

A log is a plain gzip file (`zcat` reads it) made of independent gzip members, one per flush, each holding JSON lines.
A member counts once it is complete; kill -9 can only leave an incomplete last one, which readers leave out.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

__all__ = [
    "CorruptLogError",
    "LogWriter",
    "new_file",
    "new_folder",
    "read_jsonl",
    "read_log",
    "write_atomic",
    "write_json",
]

READ_BYTES = 1 << 20


class CorruptLogError(RuntimeError):
    """A log is damaged in a way that an interrupted write cannot explain."""


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write a whole file: readers see the old content or the new, never a part, even after a crash."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content.encode("utf-8") if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to; on success it is synced and renamed to `path`, on an exception `path` stays as it was."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill; on success it becomes `path`, which must not exist yet."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for file in partial.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    os.replace(partial, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all."""
    write_atomic(path, json.dumps(content, indent=2) + "\n")


class LogWriter:
    """Append-only writer of one log file; every flush is a complete gzip member, synced to disk.

    Args:
        path: must not exist: a log is never reopened, each session writes its own file.
        flush_rows, flush_seconds: a flush happens when either is reached at an `append`.
    """

    def __init__(self, path: Path, flush_rows: int = 256, flush_seconds: float = 5.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle: BinaryIO = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        _sync_directory(path.parent)
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._lines: list[str] = []
        self._last_flush = time.monotonic()

    def append(self, row: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(row, ensure_ascii=True, separators=(",", ":")))
        if len(self._lines) >= self._flush_rows or time.monotonic() - self._last_flush >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            member = memoryview(gzip.compress(("\n".join(self._lines) + "\n").encode("ascii"), compresslevel=6))
            while member:  # an unbuffered write may be short
                member = member[self._handle.write(member) :]
            os.fsync(self._handle.fileno())
            self._lines.clear()
        self._last_flush = time.monotonic()

    def close(self) -> None:
        if not self._handle.closed:
            self.flush()
            self._handle.close()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines, one after another; empty lines are left out.

    Raises:
        ValueError: a line that is not a JSON object, with its number.
    """
    with path.open(encoding="utf-8", newline="\n") as lines:  # other line separators may stand inside a text
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number} is no JSON ({error.msg}): if a process still writes the file, or was "
                    "killed there, leave the line out"
                ) from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} must be a JSON object, not {type(row).__name__}")
            yield row


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of all complete members of a log; an incomplete last member (or a tail of zero bytes) is left out.

    Memory: one member at a time.

    Raises:
        CorruptLogError: damage that an interrupted write cannot leave (a bad checksum, foreign bytes).
    """
    with open(path, "rb") as handle:
        offset = 0
        pending = b""
        while True:
            member, consumed, pending = _next_member(path, handle, pending, offset)
            if member is None:
                return
            offset += consumed
            for line in member.splitlines():
                yield json.loads(line)


def _next_member(path: Path, handle: BinaryIO, pending: bytes, offset: int) -> tuple[bytes | None, int, bytes]:
    """(content, compressed size, bytes read past it) of the next member; content None at the end."""
    decoder = zlib.decompressobj(wbits=31)
    content = []
    consumed = 0
    chunk = pending or handle.read(READ_BYTES)
    first = chunk
    while chunk:
        try:
            content.append(decoder.decompress(chunk))
        except zlib.error as error:
            if not consumed and not first.strip(b"\0") and not handle.read().strip(b"\0"):
                return None, 0, b""  # a power failure can leave a file longer than what was written
            raise CorruptLogError(
                f"{path} is damaged at byte {offset} ({error}): this is not an interrupted write. Restore the file, or "
                "move it away to have its rows made again."
            ) from error
        consumed += len(chunk) - len(decoder.unused_data)
        if decoder.eof:
            return b"".join(content), consumed, decoder.unused_data
        chunk = handle.read(READ_BYTES)
    return None, 0, b""


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
