"""The rows of input files: JSON lines, a JSON list or Parquet; every mistake in them told with file, line and column.

What is the same for every file: UTF-8, a byte-order mark and CRLF are tolerated, empty lines left out; a `.json` file
may hold a list or JSON lines; one of two columns may be there or not, and null is as if it were not.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_COUNT = 2**53  # of tokens and the like: JSON's numbers are exact below it


def shown(value: object) -> str:
    """A value for an error text: its first 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def told_with(where: str) -> Iterator[None]:
    """A ValueError inside begins with where the row stands."""
    try:
        yield
    except ValueError as error:
        raise error if where in str(error) else ValueError(f"{where}: {error}") from error


class CutLineError(ValueError):
    """A file without an end or without rows: the process that wrote it was killed, or still writes."""


class Row(dict[str, Any]):
    """One row by column; `where` says where it stands, e.g. "val.jsonl, line 3"."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def error(self, column: str, rule: str) -> ValueError:
        """The error for a column that breaks `rule`, a text that goes on after "must be" and may hold a remedy."""
        return ValueError(f"{self.where}: {column} is {shown(self.get(column))}, but it must be {rule}")

    def first(self, *columns: str) -> str:
        """The first of `columns` that has a value. Raises ValueError if none has."""
        for column in columns:
            if self.get(column) is not None:
                return column
        names = ", ".join(columns)
        raise ValueError(f"{self.where}: none of the columns {names} has a value; the row has {sorted(map(str, self))}")

    def text(self, column: str, default: str | None = None) -> str:
        """Text as it stands; null or absent: `default`, an error without one."""
        value = self.get(column, default)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.error(column, "text; repair the row or leave it out")
        return value

    def name(self, column: str, default: str | None = None) -> str:
        """Text that is not empty and can be written as UTF-8, or a whole number as text: an id, a name."""
        value = self.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        value = default if value is None else value
        if not isinstance(value, str) or not value.strip() or re.search("[\ud800-\udfff]", value):
            raise self.error(column, "text or a whole number, not empty and without half of a surrogate pair")
        return value

    def count(self, column: str, default: int) -> int:
        """A whole number from 0, below `MAX_COUNT`; null, NaN (Parquet's null) or absent: `default`."""
        value = self.get(column)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < MAX_COUNT or value % 1:
            raise self.error(column, f"a whole number from 0, or null where it is unknown, below {MAX_COUNT}")
        return int(value)

    def mapping(self, column: str) -> dict[str, Any]:
        """A JSON object; null or absent: an empty one."""
        value = self.get(column)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(column, "a JSON object, or null")
        return dict(value or {})


def iter_rows(path: Path | str) -> Iterator[Row]:
    """Rows of a .jsonl, .json or .parquet file, one after another; only a JSON list is held in memory as a whole.

    Raises:
        ValueError: another suffix, no file of that kind, or a row that is no JSON object, with its line.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".json" and _begins_with_bracket(path):
        try:
            rows = json.loads(path.read_bytes().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON list ({error}); restore or repair the file") from error
        for number, row in enumerate(rows):
            yield _row(row, f"{path}, row {number}")
    elif path.suffix in (".json", ".jsonl"):
        yield from read_jsonl(path)
    else:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; use .json, .jsonl or .parquet")


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines, one line in memory at a time.

    Raises:
        CutLineError: the last line is cut off.
        ValueError: a line that is not a JSON object, with its number.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                told = f"{path}, line {number} is no JSON ({error})"
                cut = isinstance(error, json.JSONDecodeError) or "unexpected end of data" in str(error)
                if cut and not line.endswith(b"\n"):
                    raise CutLineError(
                        f"{told}: the file ends within it, so a process still writes the file, or was killed there; "
                        "leave the line out"
                    ) from error
                raise ValueError(f"{told}; repair the line or leave it out") from error
            yield _row(row, f"{path}, line {number}")


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be a JSON object, not {shown(row)}; docs/grading.md tells the columns")
    return Row(row, where)


def _begins_with_bracket(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield Row(row, f"{path}, row {number}")
                    number += 1
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file that can be read ({error}); restore it") from error
