"""Files of rows: what is tolerated in each format, and how a mistake is told."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from verl_fgrpo.core.rows import Row, iter_rows

ROWS = [{"a": 1, "b": "x\u2028y"}, {"a": None, "b": "\u00e9"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\n\n" + LINES.rstrip(b"\n")),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", b"\xef\xbb\xbf  " + json.dumps(ROWS, indent=1).encode()),
        ("a.json", LINES),
    ],
)
def test_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(iter_rows(tmp_path / name)) == ROWS


def test_parquet_with_lists_mappings_and_null(tmp_path: Path) -> None:
    rows = [{"a": 1, "gold": ["1", "2"], "more": {"target": "x"}}, {"a": None, "gold": None, "more": None}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = list(iter_rows(tmp_path / "a.parquet"))
    assert found == rows and found[1].where.endswith("a.parquet, row 1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": ', "a.jsonl, line 2 is no JSON .*the file ends within it"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a.jsonl, line 2 must be a JSON object, not \[1\]"),
        ("a.jsonl", b'{"a": "\xff"}', "a.jsonl, line 1 is no JSON .*repair the line"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "a.jsonl, line 1 is no JSON .*repair the line"),
        ("a.jsonl", b'{"a": "\xe4\xb8', "a.jsonl, line 1 is no JSON .*the file ends within it"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is no JSON .*recursion"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "a.jsonl, line 1 is no JSON"),
        ("a.json", b"[1, 2]", "a.json, row 0 must be a JSON object, not 1"),
        ("a.json", b"[{]", "a.json is no JSON list"),
        ("a.parquet", b"PAR1", "a.parquet is no Parquet file"),
        ("a.csv", b"", "unknown suffix '.csv'; use .json, .jsonl or .parquet"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(iter_rows(tmp_path / name))


def test_long_values_are_cut_in_errors() -> None:
    error = Row({"a": "x" * 1000}, "f, line 1").error("a", "short")
    assert len(str(error)) < 150 and str(error).startswith("f, line 1: a is 'xxx") and "must be short" in str(error)
