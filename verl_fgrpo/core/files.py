"""Files that survive a crash: whole files and folders replaced atomically, claimed folders, append-only logs.

A log is a plain gzip file (`zcat` reads it) made of independent gzip members, one per flush, each holding JSON lines.
A member counts once it is complete; kill -9 can only leave an incomplete last one, which readers leave out.

All system calls go through `os`, one a line: a test interrupts at each of them in turn.
"""

import fcntl
import gzip
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

READ_BYTES = 1 << 20
T = TypeVar("T")
REMEDY = "use another folder, the settings found, or delete the folder"


class CorruptLogError(RuntimeError):
    """A log is damaged in a way that an interrupted write cannot explain."""


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An OSError inside that names no file, as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """A path to write to; on success it is synced and renamed to `path`, on an exception `path` stays as it was.

    The path to write to ends like `path`, for writers that choose a format by the ending.

    Raises:
        ValueError: `path` is a folder, a device or a pipe, which the rename would replace or not.
    """
    path = Path(os.path.realpath(path))  # of a link, what it leads to is replaced
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder or a device, but a file is to be written there; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name[-50:]}")  # names have 255 bytes
    try:
        with _named(path):
            yield partial
        _sync(partial, os.O_RDWR)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """An empty folder to fill; on success it becomes `path`, which must not exist yet.

    After an exception or a kill NAME.partial is left behind; the next call begins with an empty one.

    Raises:
        ValueError: another process fills it.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.with_name(f".{path.name}.lock")
    with lock(held):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            with _named(path):
                yield partial
        except Exception as error:
            if not type(error).__module__.startswith("safetensors"):
                raise
            raise OSError(f"{path} could not be written ({error})") from error  # a full disk is no OSError there
        for entry in sorted(partial.rglob("*")):
            _sync(entry)
        _sync(partial)
        os.replace(partial, path)
        held.unlink()
        _sync(path.parent)


def lock(file: Path) -> TextIO:
    """Hold `file`, made if absent and left behind, until what is returned is closed or the process ends.

    Raises:
        ValueError: another process holds it.
    """
    handle = open(file, "w")  # noqa: SIM115 - held open for as long as the writer lives
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise ValueError(f"{file.parent} is being written by another process; wait for it, or use another") from None
    return handle


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write a whole file: readers see the old content or the new, never a part, even after a crash."""
    rest = memoryview(content.encode("utf-8") if isinstance(content, str) else content)
    with new_file(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """`write_atomic` of a JSON object, for people to read."""
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def write_parquet(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file, whole or not at all; a column that a row lacks is null there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    with new_file(path) as partial:
        pq.write_table(table, partial)


def read_json(path: Path | str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        ValueError: it holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}): restore it, or delete what it belongs to") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def typed(content: Any, kind: type[T], where: Path | str) -> T:
    """What JSON holds as a dataclass or built-in type; keys it does not know are left out.

    Raises:
        ValueError: a key is missing, or a value is of another type or refused by the dataclass; names `where`.
    """
    import msgspec

    try:
        return msgspec.convert(content, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where} does not hold what it must ({error}); restore it, or make it anew") from None


def refuse_other_settings(
    where: Path | str, found: Mapping[str, Any], asked: Mapping[str, Any], remedy: str = REMEDY
) -> None:
    """Compare the settings of what is there with those asked for; a tuple equals the list that it is stored as.

    Raises:
        ValueError: they differ; the message has every differing key (`outer.inner`) with both values, and the remedy.
    """
    different = list(_differences(found, json.loads(json.dumps(dict(asked)))))
    if different:
        raise ValueError(f"{where} was made with other settings ({'; '.join(different)}); {remedy}")


def claim(folder: Path | str, settings: Mapping[str, Any], remedy: str = REMEDY) -> dict[str, Any]:
    """Note the settings in settings.json of a new folder, or check that an old one was claimed with the same.

    Returns:
        The settings as they are stored.

    Raises:
        ValueError: the folder was claimed with other settings, see `refuse_other_settings`.
    """
    path = Path(folder) / "settings.json"
    if path.exists():
        refuse_other_settings(folder, read_json(path), settings, remedy)
    else:
        write_atomic(path, json.dumps(dict(settings), indent=2, sort_keys=True) + "\n")
    return read_json(path)


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*found, *asked}):
        one, other = found.get(key), asked.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif key not in found:
            yield f"{prefix}{key}: not there, asked {other!r}"
        elif key not in asked:
            yield f"{prefix}{key}: found {one!r}, not asked for"
        elif one != other:
            yield f"{prefix}{key}: found {one!r}, asked {other!r}"


class LogWriter:
    """Append-only writer of one log file; every flush is a complete gzip member, synced to disk.

    An exception at any point (disk full, Ctrl-C) leaves every row of earlier flushes on disk once, and the others
    once or not at all: a flush that is repeated, by `close` for instance, first cuts off what the last one left.

    Args:
        path: must not exist: a log is never reopened, each session writes its own file.
        flush_rows, flush_seconds: a flush happens when either is reached at an `append`.
    """

    def __init__(self, path: Path, flush_rows: int = 256, flush_seconds: float = 5.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle: BinaryIO = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        _sync(path.parent)
        self._path = path
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._last_flush = time.monotonic()
        # (bytes on disk, lines that are not yet there): one attribute, so that an interrupt cannot part them.
        self._state: tuple[int, list[str]] = (0, [])

    def append(self, row: Mapping[str, Any]) -> None:
        lines = self._state[1]
        lines.append(json.dumps(row, ensure_ascii=True, separators=(",", ":")))
        if len(lines) >= self._flush_rows or time.monotonic() - self._last_flush >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Put everything appended so far safely on disk."""
        size, lines = self._state
        if lines:
            member = gzip.compress(("\n".join(lines) + "\n").encode("ascii"), compresslevel=6, mtime=0)
            descriptor = self._handle.fileno()
            with _named(self._path):
                os.ftruncate(descriptor, size)
                os.lseek(descriptor, size, os.SEEK_SET)
                rest = memoryview(member)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            self._state = size + len(member), []
        self._last_flush = time.monotonic()

    def close(self) -> None:
        if not self._handle.closed:
            try:
                self.flush()
            finally:
                self._handle.close()

    def __enter__(self) -> "LogWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of all complete members of a log; see `read_members`."""
    for offset, member in read_members(path):
        for line in member.splitlines():
            yield log_row(path, offset, line)


def read_members(path: Path, unique: bool = False) -> Iterator[tuple[int, bytes]]:
    """(place in the file, JSON lines) of all complete members; an incomplete last one (or zero bytes) is left out.

    Memory: two members at a time. With `unique` no row occurs twice, so a member that repeats the one before it is left
    out: in logs of earlier versions, an interrupted flush may have been repeated by `close`.

    Raises:
        CorruptLogError: damage that an interrupted write cannot leave (a bad checksum, foreign bytes).
    """
    with open(path, "rb") as handle:
        offset = 0
        pending = last = b""
        while True:
            member, consumed, pending = _next_member(path, handle, pending, offset)
            if member is None:
                return
            if not (unique and member == last):
                yield offset, member
            offset += consumed
            last = member


def log_row(path: Path, offset: int, line: bytes) -> dict[str, Any]:
    """One line of a member as a row; CorruptLogError if it is no JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise CorruptLogError(
            f"{path} holds a line that is no JSON object, after byte {offset}: this is no log of ours"
        )
    return row


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


def _sync(path: Path, flags: int = os.O_RDONLY) -> None:
    """Put a file, or the names in a folder, safely on disk."""
    descriptor = os.open(path, flags)
    try:
        with _named(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
