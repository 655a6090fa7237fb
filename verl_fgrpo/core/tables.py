"""Tables as Markdown, CSV and JSON. Names in them may come from anywhere: no cell can break a table or become HTML."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.provenance import provenance

# What would begin a line, a cell, a tag, an entity or a link.
_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_ESCAPES = (("\\", "\\\\"), ("|", "\\|"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("](", "]\\("), ("`", "\\`"))


def markdown_escape(text: object) -> str:
    """Text for one Markdown line or table cell that shows as it is: no line break, cell, HTML, link or code."""
    line = _LINE_BREAKS.sub(" ", str(text))
    for plain, escaped in _ESCAPES:
        line = line.replace(plain, escaped)
    return line


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; every cell is escaped, None is an empty cell; the first `left` columns are aligned left.

    Raises:
        ValueError: a row of another length.
    """
    marks = ["---" if column < left else "---:" for column in range(len(header))]
    lines = [_line(map(markdown_escape, header)), _line(marks)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, but the table has {len(header)} columns: {list(row)!r}")
        lines.append(_line("" if cell is None else markdown_escape(cell) for cell in row))
    return "".join(lines)


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """CSV of rows with the same keys; `columns` are those of the first row unless given (an empty table needs them).

    A NUL becomes U+2400: the csv module of Python 3.10 neither writes nor reads it.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]) if columns is None else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: cell.replace("\0", "\u2400") if isinstance(cell, str) else cell for name, cell in row.items()}
        for row in rows
    )
    return buffer.getvalue()


def write_table(rows: Sequence[Mapping[str, Any]], stem: Path | str, markdown: str, **extra: Any) -> list[Path]:
    """Write `stem`.md, .csv and .json, each atomically; the JSON also holds `extra` and the provenance.

    Args:
        rows: the table, the same keys in every row.
        stem: path without suffix (a dot in the name is kept).
        markdown: the text for people.

    Raises:
        ValueError: no rows, or a number that JSON cannot hold.
    """
    if not rows:
        raise ValueError("rows is empty: there is nothing to write")
    stem = Path(stem)
    content = {"rows": list(rows), **extra, "provenance": provenance()}
    texts = {".md": markdown, ".csv": csv_text(rows), ".json": json.dumps(content, indent=2, allow_nan=False) + "\n"}
    paths = []
    for suffix, text in texts.items():
        paths.append(stem.with_name(stem.name + suffix))
        write_atomic(paths[-1], text)
    return paths


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"
