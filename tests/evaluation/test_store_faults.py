"""Sampling and grading through faults: whatever call fails, rows are there once and the same command ends it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faulty_os import FAULTS, FaultyOs

from verl_fgrpo.cli import main as command_line
from verl_fgrpo.core import files
from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.generation import Decoding, Generated, Request, sample_run
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.problems import Problem, load_problems
from verl_fgrpo.evaluation.samples import Sample, SampleStore, VerdictStore
from verl_fgrpo.evaluation.workers import GradingPool

PROBLEMS = [Problem("toy", name, name, "math", ("1",)) for name in "ab"]
N = 3


class Echo:
    """A backend that answers with the seed, at once."""

    def identity(self) -> dict[str, Any]:
        return {"backend": "echo"}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        for request in requests:
            yield Generated(request.key, request.seed, f"\\boxed{{{request.seed % 3}}}", 1, "stop")


def sample(run: Path, num_samples: int = N) -> SampleStore:
    return sample_run(run, PROBLEMS, Echo(), num_samples, Decoding(max_tokens=4), "none", progress=False)


def grade(run: Path, **options: Any) -> VerdictStore:
    return grade_store(SampleStore(run / "samples"), run / "verdicts", PROBLEMS, progress=False, **options)


@pytest.fixture(autouse=True)
def graded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grade in this process: what is tested is the store."""

    def grade_tasks(pool: GradingPool, tasks: Any) -> Any:
        for task in tasks:
            for token, response in zip(task.tokens, task.responses, strict=True):
                yield token, ("correct" if response == "\\boxed{1}" else "wrong", response, "")

    monkeypatch.setattr(GradingPool, "grade_tasks", grade_tasks)
    monkeypatch.setattr(GradingPool, "grade", lambda pool, problem, response: ("unparsed", None, ""))
    monkeypatch.setattr("verl_fgrpo.evaluation.samples.provenance", dict)


def rows(store: Any) -> list[str]:
    return sorted(json.dumps(vars(row), sort_keys=True) for row in store.read())


def calls_of(monkeypatch: pytest.MonkeyPatch, step: Callable[[Path], Any], run: Path) -> list[str]:
    counting = FaultyOs(-1, "before", KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", counting)
        step(run)
    return counting.calls


@pytest.mark.parametrize("fault", FAULTS, ids=["interrupt", "disk full"])
@pytest.mark.parametrize("when", ["before", "after", "halfway"])
def test_sample_and_grade_through_a_fault_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, fault: Callable[[], BaseException]
) -> None:
    """The n-th system call fails, for all n; then the same command, undisturbed, gives what a whole run gives."""
    expected = {}
    for step in (sample, grade):
        calls = calls_of(monkeypatch, step, tmp_path / "whole")
        assert calls.count("fsync") >= 3 and calls.count("replace") >= 2
        expected[step] = rows(step(tmp_path / "whole"))
        for at in range(1, len(calls) + 1):
            run = tmp_path / f"{step.__name__}-{at}"
            if step is grade:
                sample(run)
            with monkeypatch.context() as patch:
                patch.setattr(files, "os", FaultyOs(at, when, fault))
                with suppress(KeyboardInterrupt, OSError):
                    step(run)
            kind: Any = SampleStore if step is sample else VerdictStore
            folder = run / ("samples" if step is sample else "verdicts")
            if (folder / "manifest.json").exists():
                found = rows(kind(folder))
                assert len(set(found)) == len(found) and set(found) <= set(expected[step]), at
            assert rows(step(run)) == expected[step], at
    assert len(expected[sample]) == len(expected[grade]) == 2 * N


def test_changed_responses_are_graded_again_through_a_fault_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing stale verdicts rewrites parts: old or new at every moment."""

    def changed(run: Path) -> None:
        sample(run)
        grade(run)
        part = SampleStore(run / "samples").part_paths()[0]
        lines = [{**row, "response": "\\boxed{1}"} for row in files.read_log(part)]
        part.unlink()
        with files.LogWriter(part) as log:
            for line in lines[:4]:
                log.append(line)
        sample(run)

    changed(tmp_path / "whole")
    calls = calls_of(monkeypatch, grade, tmp_path / "whole")
    expected = rows(grade(tmp_path / "whole"))
    assert len(expected) == 2 * N and sum('"correct"' in row for row in expected) >= 4
    for at in range(1, len(calls) + 1):
        run = tmp_path / str(at)
        changed(run)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", FaultyOs(at, "after" if at % 2 else "before", FAULTS[at // 2 % 2]))
            with suppress(KeyboardInterrupt, OSError):
                grade(run)
        assert rows(grade(run)) == expected, at


def test_regrade_through_a_fault_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample(tmp_path / "whole")
    expected = rows(grade(tmp_path / "whole"))
    calls = calls_of(monkeypatch, lambda run: grade(run, regrade=True), tmp_path / "whole")
    for at in range(1, len(calls) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", FaultyOs(at, "before", FAULTS[at % 2]))
            with suppress(KeyboardInterrupt, OSError):
                grade(tmp_path / "whole", regrade=True)
        assert rows(grade(tmp_path / "whole")) == expected, at


def test_merged_runs_keep_the_problems_of_earlier_merges_and_refuse_other_golds(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        gold = "2" if name == "c" else "1"
        problems = [Problem("toy", "b" if name == "c" else name, name, "math", (gold,))]
        sample_run(tmp_path / name, problems, Echo(), N, Decoding(max_tokens=4), "none", progress=False)
        sources = ["--sources", str(tmp_path / name), "--run", str(tmp_path / "all")]
        if number < 2:
            main(["merge", *sources])
    with pytest.raises(ValueError, match=r"problem \('toy', 'b'\) in .* differs from that of another run"):
        main(["merge", *sources])
    assert [problem.problem_id for problem in load_problems([tmp_path / "all" / "problems.jsonl"])] == ["b", "a"]
    assert len(rows(SampleStore(tmp_path / "all" / "samples"))) == 2 * N


def test_a_refused_second_process_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    store = sample(run)
    sample_run(other, [Problem("toy", "c", "c", "math", ("1",))], Echo(), N, Decoding(max_tokens=4), "none", False)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert {"plan.json", "problems.jsonl"} <= set(before)
    with store.writer():
        with pytest.raises(ValueError, match="another process"):
            sample_run(run, [Problem("toy", "c", "c", "math", ("1",))], Echo(), 9, Decoding(max_tokens=4), "none")
        assert "another process" in one_line(capsys, "merge", "--sources", str(other), "--run", str(run))
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that fails says: exit code 1, no traceback, one line beside the bars."""
    assert command_line(["eval", *arguments]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "it/s" not in line]
    told = [line for line in told if "sample/s" not in line and "?sample" not in line]
    assert len(told) == 1 and told[0].startswith("verl-fgrpo eval: "), told
    return told[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    run = tmp_path / "run"
    sample(run)
    monkeypatch.setattr(files, "os", FaultyOs(1, "before", lambda: OSError(number, os.strerror(number)), 10**9))
    assert os.strerror(number) in one_line(capsys, "grade", "--run", str(run))
    assert os.strerror(number) in one_line(capsys, "merge", "--sources", str(run), "--run", str(tmp_path / "all"))
    monkeypatch.setattr(files, "os", os)
    assert command_line(["eval", "grade", "--run", str(run)]) == 0


def test_wrong_kinds_of_paths_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = tmp_path / "run", tmp_path / "file"
    sample(run)
    file.write_text("text")
    (tmp_path / "empty").mkdir()
    asked = ["--model", "m", "--backend", "openai", "--dry-run"]
    assert "file" in one_line(capsys, "grade", "--run", str(file))
    assert "no sample store at" in one_line(capsys, "grade", "--run", str(tmp_path / "nowhere"))
    assert "no sample store at" in one_line(capsys, "grade", "--run", str(tmp_path / "empty"))
    assert "directory" in one_line(capsys, "sample", "--run", str(run), "--problems", str(tmp_path), *asked)
    assert "nowhere" in one_line(capsys, "sample", "--run", str(run), "--problems", str(tmp_path / "nowhere"), *asked)
    for name in ("samples/manifest.json", "problems.jsonl"):
        kept = (run / name).read_bytes()
        for content in (b"", b"[]", b"{}", b"\xff", b'{"format": 9, "settings": {}}', b"null"):
            (run / name).write_bytes(content)
            one_line(capsys, "grade", "--run", str(run))
        (run / name).write_bytes(kept)
    for option, value in (("--workers", "0"), ("--seconds", "nan"), ("--seconds", "inf"), ("--memory-mib", "-1")):
        with pytest.raises(SystemExit, match="2"):
            command_line(["eval", "grade", "--run", str(run), option, value])
        assert f"{option}: {value} must be" in capsys.readouterr().err
    assert command_line(["eval", "grade", "--run", str(run)]) == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from faulty_os import CALLS
from test_store_faults import sample
from verl_fgrpo.core import files

class Killing:
    calls = 0
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in CALLS:
            return real
        def call(*arguments):
            Killing.calls += 1
            if Killing.calls == int(sys.argv[2]):
                if name == "write":
                    os.write(arguments[0], arguments[1][:len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)
        return call

for number in range(int(sys.argv[3])):
    pid = os.fork()
    if not pid:
        sys.argv[2] = str(number + 1)
        files.os = Killing()
        sample(Path(sys.argv[1]) / str(number))
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        print(number)
        break
"""


def test_sigkill_at_every_call(tmp_path: Path) -> None:
    """A process really killed, at its n-th system call, for all n; then the same command."""
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (here, here.parent, here.parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "1", "1000"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    kills = int(done.stdout)
    assert kills > 20
    expected = rows(sample(tmp_path / "whole"))
    for number in range(kills):
        assert rows(sample(tmp_path / str(number))) == expected, number
    assert all(isinstance(row, Sample) for row in SampleStore(tmp_path / "0" / "samples").read())
