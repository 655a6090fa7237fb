"""Files: interrupted at every system call and at every instruction, they hold the old, the new, or rows once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from faulty_os import FAULTS, FaultyOs

from verl_fgrpo.core import files
from verl_fgrpo.core.files import (
    CorruptLogError,
    LogWriter,
    claim,
    new_file,
    new_folder,
    read_json,
    read_log,
    read_members,
    refuse_other_settings,
    write_atomic,
    write_json,
)


def with_every_fault(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Path], None], root: Path) -> Iterator[Path]:
    """Run the scenario in a new folder for each call of `CALLS`, way of failing and fault; the folder after it.

    A fault may come twice in a row: the second hits what cleans up after the first.
    """
    counting = FaultyOs(-1, "before", KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", counting)
        (root / "whole").mkdir()
        scenario(root / "whole")
    assert len(counting.calls) > 3
    for at in range(1, len(counting.calls) + 1):
        for when in ("before", "after", "halfway"):
            for fault in FAULTS:
                for times in (1, 2):
                    folder = root / f"{at}-{when}-{times}-{FAULTS.index(fault)}"
                    folder.mkdir()
                    with monkeypatch.context() as patch, suppress(KeyboardInterrupt, OSError):
                        patch.setattr(files, "os", FaultyOs(at, when, fault, times))
                        scenario(folder)
                    yield folder


@contextmanager
def interrupted_at(step: int, code_of: str) -> Iterator[list[int]]:
    """KeyboardInterrupt before the step-th instruction executed in functions of a file; yields [steps seen]."""
    seen = [0]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(code_of):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            seen[0] += 1
            if seen[0] == step:
                raise KeyboardInterrupt
        return trace

    sys._getframe().f_trace_opcodes = True  # Python 3.12 gives no opcode events unless a frame asked before settrace
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(None)


ROWS = [{"row": index, "text": "x" * 50} for index in range(6)]


def write_log(folder: Path) -> None:
    """Six rows, two a flush, as the stores write them."""
    with LogWriter(folder / "log.gz", flush_rows=2) as log:
        for row in ROWS:
            log.append(row)


def test_a_log_interrupted_at_every_call_holds_rows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = set()
    for folder in with_every_fault(monkeypatch, write_log, tmp_path):
        path = folder / "log.gz"
        rows = list(read_log(path)) if path.exists() else []
        assert rows == ROWS[: len(rows)], folder.name
        kept.add(len(rows))
    assert {0, 2, 4, 6} <= kept


def test_a_log_interrupted_at_every_instruction_holds_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "os", FaultyOs(-1, "", KeyboardInterrupt))
    with interrupted_at(-1, "core/files.py") as whole:
        write_log(tmp_path / "whole")
    assert whole[0] > 500
    kept = set()
    for step in range(1, whole[0] + 1):
        folder = tmp_path / str(step)
        with interrupted_at(step, "core/files.py"), suppress(KeyboardInterrupt):
            write_log(folder)
        rows = list(read_log(folder / "log.gz")) if (folder / "log.gz").exists() else []
        assert rows == ROWS[: len(rows)], step
        kept.add(len(rows))
    assert {0, 2, 4, 6} <= kept


def test_rows_survive_a_disk_that_is_full_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = FaultyOs(-1, "halfway", FAULTS[1])
    monkeypatch.setattr(files, "os", faulty)
    with LogWriter(tmp_path / "log.gz", flush_rows=2) as log:
        log.append(ROWS[0])
        faulty.at = len(faulty.calls) + 3  # ftruncate, lseek, write
        with pytest.raises(OSError, match="No space left"):
            log.append(ROWS[1])
        assert faulty.calls[-1] == "write"
        assert list(read_log(tmp_path / "log.gz")) == []
        log.append(ROWS[2])
    assert list(read_log(tmp_path / "log.gz")) == ROWS[:3]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(FaultyOs):
        def __getattr__(self, name: str) -> Any:
            return (lambda fd, data: os.write(fd, data[:7])) if name == "write" else getattr(os, name)

    monkeypatch.setattr(files, "os", Short(-1, "", KeyboardInterrupt))
    write_log(tmp_path)
    assert list(read_log(tmp_path / "log.gz")) == ROWS
    write_atomic(tmp_path / "x", "0123456789")
    assert (tmp_path / "x").read_text() == "0123456789"


def test_a_member_written_twice_by_an_earlier_version_counts_once(tmp_path: Path) -> None:
    write_log(tmp_path)
    path = tmp_path / "log.gz"
    sizes = []
    for count in (4, 6):
        with LogWriter(tmp_path / f"{count}.gz", flush_rows=2) as log:
            for row in ROWS[:count]:
                log.append(row)
        sizes.append((tmp_path / f"{count}.gz").stat().st_size)
    path.write_bytes(path.read_bytes() + path.read_bytes()[sizes[0] :])
    members = [member for _, member in read_members(path, unique=True)]
    assert [json.loads(line) for member in members for line in member.splitlines()] == ROWS
    assert list(read_log(path)) == [*ROWS, *ROWS[4:]]


def test_a_line_that_is_no_object_is_damage(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "log.gz"
    for line in (b"[1]", b"{", b"\xff"):
        path.write_bytes(gzip.compress(b'{"a": 1}\n' + line + b"\n"))
        with pytest.raises(CorruptLogError, match="no JSON object"):
            list(read_log(path))


def test_a_whole_file_interrupted_at_every_call_is_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(folder: Path) -> None:
        (folder / "x").write_text("old")
        write_atomic(folder / "x", "new" * 100)

    seen = set()
    for folder in with_every_fault(monkeypatch, scenario, tmp_path):
        seen.add((folder / "x").read_text())
        assert list(folder.iterdir()) == [folder / "x"]
    assert seen == {"old", "new" * 100}


def test_a_whole_file_keeps_the_old_content_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    with pytest.raises(ZeroDivisionError), new_file(path) as partial:
        assert partial.suffix == ".txt"
        partial.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_interrupted_at_every_call_is_absent_or_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(folder: Path) -> None:
        with new_folder(folder / "made") as partial:
            (partial / "inner").mkdir()
            (partial / "inner" / "a").write_text("a")
            write_json(partial / "b.json", {"b": 1})

    for folder in with_every_fault(monkeypatch, scenario, tmp_path):
        made = folder / "made"
        if made.exists():
            assert (made / "inner" / "a").read_text() == "a" and read_json(made / "b.json") == {"b": 1}
        else:
            scenario(folder)  # what was left behind is in nobody's way
            assert sorted(path.name for path in folder.iterdir()) == ["made"]


def test_a_folder_is_filled_by_one_process_at_a_time(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made") as partial:
        (partial / "a").write_text("a")
        with pytest.raises(ValueError, match="being written by another process"), new_folder(tmp_path / "made"):
            pass
    assert (tmp_path / "made" / "a").read_text() == "a"
    with pytest.raises(OSError), new_folder(tmp_path / "made") as partial:  # it is there already, and stays
        (partial / "b").write_text("b")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a"]


def test_a_full_disk_under_safetensors_is_an_os_error(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(OSError, match="made could not be written .*No space left"), new_folder(tmp_path / "made"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    with pytest.raises(KeyError), new_folder(tmp_path / "made"):
        raise KeyError
    assert not (tmp_path / "made").exists()


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    for text in ("1", "2"):  # dangling, then not
        write_atomic(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "file").read_text() == text
    (tmp_path / "folder").symlink_to(tmp_path / "far")
    with pytest.raises(ValueError, match="name a file"):
        write_atomic(tmp_path / "folder", "3")


def test_other_settings_are_refused_key_by_key(tmp_path: Path) -> None:
    settings = {"seed": 0, "sizes": (1, 2), "sft": {"steps": 10, "rate": 0.1}}
    stored = claim(tmp_path / "run", settings)
    assert stored == {"seed": 0, "sizes": [1, 2], "sft": {"steps": 10, "rate": 0.1}}
    assert claim(tmp_path / "run", dict(reversed(settings.items()))) == stored
    other = {"sizes": (1, 3), "sft": {"steps": 20, "rate": 0.1}, "device": "cpu"}
    with pytest.raises(ValueError) as error:
        claim(tmp_path / "run", other, remedy="choose another --out")
    assert str(error.value) == (
        f"{tmp_path / 'run'} was made with other settings (device: not there, asked 'cpu'; seed: found 0, not asked "
        "for; sft.steps: found 10, asked 20; sizes: found [1, 2], asked [1, 3]); choose another --out"
    )
    assert read_json(tmp_path / "run" / "settings.json") == stored
    refuse_other_settings("x", {"a": None}, {"a": None})
    with pytest.raises(ValueError, match="a: found None, not asked for"):
        refuse_other_settings("x", {"a": None}, {})


def test_a_claim_interrupted_at_every_call_is_made_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in with_every_fault(monkeypatch, lambda folder: claim(folder / "r", {"a": 1}) and None, tmp_path):
        assert claim(folder / "r", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(("content", "message"), [("[]", "must hold a JSON object, not list"), ("{", "is no JSON")])
def test_a_file_that_holds_no_object_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        claim(tmp_path, {"a": 1})
    assert json.dumps(path.read_text()) == json.dumps(content)


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(folder: Path) -> None:
        write_atomic(folder / "whole", "x")
        with new_folder(folder / "f") as partial:
            files.os.write(-1 if folder.name == "closed" else 1, b"")
            (partial / "a").write_text("x")
        with LogWriter(folder / "log") as log:
            log.append({"a": 1})

    told = 0
    for at in range(1, 40):
        faulty = FaultyOs(at, "before", FAULTS[1])
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", faulty)
            try:
                scenario(tmp_path / str(at))
            except OSError as error:
                if faulty.calls[at - 1] in ("write", "fsync", "ftruncate", "lseek"):  # others name it themselves
                    assert str(tmp_path / str(at)) in str(error), faulty.calls[at - 1]
                    told += 1
    assert told >= 9


@pytest.mark.parametrize("there", ["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / there
    before = path.lstat().st_mode
    with pytest.raises(ValueError, match="is a folder or a device"):
        write_atomic(path, "x")
    assert path.lstat().st_mode == before
