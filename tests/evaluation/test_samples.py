"""The sample store: nothing lost, doubled, mixed or half-read."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_fgrpo.core.files import CorruptLogError, LogWriter, read_log
from verl_fgrpo.evaluation.samples import Sample, SampleStore, key_of, merge_stores, sample_seed

SETTINGS = {"model": "tiny", "temperature": 1.0, "max_tokens": 16, "seed": 0}


def make(index: int, problem: str = "p0", response: str | None = None) -> Sample:
    text = f"response {index}" if response is None else response
    return Sample("maze", problem, index, sample_seed(0, "maze", problem, index), text, 3, "stop")


def fill(path: Path, samples: list[Sample], flush_rows: int = 2) -> SampleStore:
    store = SampleStore(path, SETTINGS)
    with store.writer(flush_rows=flush_rows) as writer:
        for sample in samples:
            writer.append(sample)
    return store


def test_rows_come_back_as_written_and_zcat_reads_them(tmp_path: Path) -> None:
    odd = ["", "a\nb\r\n\u2028", "\0 NUL", "\ud800 lone surrogate", "é漢🙂", "x" * 100_000]
    samples = [make(index, response=text) for index, text in enumerate(odd)]
    store = fill(tmp_path / "s", samples)
    assert list(SampleStore(store.path).read()) == samples
    with gzip.open(store.part_paths()[0], "rt") as handle:
        assert [json.loads(line)["response"] for line in handle] == odd


def test_missing_lists_exactly_what_a_top_up_needs(tmp_path: Path) -> None:
    problems = [("maze", "p0"), ("maze", "p1")]
    store = fill(tmp_path / "s", [make(0), make(2), make(0, "p1")])
    assert store.missing(problems, 3) == [("maze", "p0", 1), ("maze", "p1", 1), ("maze", "p1", 2)]
    fill(store.path, [make(1), make(1, "p1"), make(2, "p1")])
    assert store.missing(problems, 3) == []
    assert store.missing(problems, 4) == [("maze", "p0", 3), ("maze", "p1", 3)]
    assert len(store.part_paths()) == 2


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_an_incomplete_last_frame_is_left_out_and_drawn_again(tmp_path: Path, cut: int) -> None:
    samples = [make(index) for index in range(6)]
    store = fill(tmp_path / "s", samples)
    part = store.part_paths()[0]
    part.write_bytes(part.read_bytes()[:-cut])
    assert list(store.read()) == samples[:4]
    assert store.missing([("maze", "p0")], 6) == [("maze", "p0", 4), ("maze", "p0", 5)]
    fill(store.path, samples[4:])
    assert list(store.read()) == samples


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), max_size=12), st.integers(1, 5), st.data())
def test_any_truncation_gives_a_prefix(tmp_path_factory: pytest.TempPathFactory, texts, flush_rows, data) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("log") / "x.jsonl.gz"
    rows = [{"text": text} for text in texts]
    with LogWriter(path, flush_rows=flush_rows) as log:
        for row in rows:
            log.append(row)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    kept = list(read_log(path))
    assert kept == rows[: len(kept)]
    assert len(kept) % flush_rows == 0 or kept == rows


def test_zero_tail_after_a_power_failure_is_left_out(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", [make(0), make(1)])
    part = store.part_paths()[0]
    part.write_bytes(part.read_bytes() + bytes(3_000_000))
    assert list(store.read()) == [make(0), make(1)]


@pytest.mark.parametrize("where", ["middle", "tail"])
def test_damage_is_reported_not_skipped(tmp_path: Path, where: str) -> None:
    store = fill(tmp_path / "s", [make(index) for index in range(6)])
    part = store.part_paths()[0]
    content = bytearray(part.read_bytes())
    if where == "middle":
        content[len(content) // 2] ^= 0xFF
    else:
        content += b"foreign bytes"
    part.write_bytes(bytes(content))
    with pytest.raises(CorruptLogError, match="part-00000.jsonl.gz is damaged at byte"):
        list(store.read())


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "s", [make(0)])
    with pytest.raises(ValueError, match=r"temperature: found 1.0, asked 0.6") as error:
        SampleStore(tmp_path / "s", {**SETTINGS, "temperature": 0.6})
    assert "model" not in str(error.value)
    with pytest.raises(ValueError, match=r"top_p: not there, asked 0.9"):
        SampleStore(tmp_path / "s", {**SETTINGS, "top_p": 0.9})
    SampleStore(tmp_path / "s", dict(reversed(SETTINGS.items())))  # order does not matter


def test_no_store_no_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sample store at"):
        SampleStore(tmp_path)


def test_a_sample_is_never_stored_twice(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", [make(0)])
    with store.writer() as writer, pytest.raises(ValueError, match="already stored"):
        writer.append(make(0))
    assert Counter(key_of(sample) for sample in store.read()) == {("maze", "p0", 0): 1}


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", SETTINGS)
    with store.writer(), pytest.raises(ValueError, match="another process"):
        SampleStore(tmp_path / "s").writer()
    with store.writer():
        pass


def test_a_number_of_tokens_that_is_none_is_told(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", [replace(make(0), num_tokens=2**53)])
    with pytest.raises(ValueError, match="part-00000.jsonl.gz: num_tokens 9007199254740992 must be below"):
        list(store.read())


def test_merge_joins_shards_and_can_be_repeated(tmp_path: Path) -> None:
    fill(tmp_path / "a", [make(0), make(1)])
    fill(tmp_path / "b", [make(1), make(2)])  # sample 1 equal in both
    assert merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "all") == 3
    assert merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "all") == 0
    assert sorted(sample.sample_idx for sample in SampleStore(tmp_path / "all").read()) == [0, 1, 2]
    fill(tmp_path / "c", [replace(make(2), response="another")])
    with pytest.raises(ValueError, match="differs from the one already merged"):
        merge_stores([tmp_path / "b", tmp_path / "c"], tmp_path / "all")
    SampleStore(tmp_path / "d", {**SETTINGS, "seed": 1})
    with pytest.raises(ValueError, match="seed: found 0, asked 1"):
        merge_stores([tmp_path / "a", tmp_path / "d"], tmp_path / "other")


def test_seeds_are_stable_and_differ() -> None:
    seeds = {sample_seed(seed, "m", problem, index) for seed in range(3) for problem in "abc" for index in range(100)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sample_seed(0, "maze", "p0", 0) == 1547389601  # recorded: resuming an old store needs the same seeds


WRITER = """
import sys
from verl_fgrpo.evaluation.samples import Sample, SampleStore, sample_seed
store = SampleStore(sys.argv[1], {"model": "tiny"})
todo = store.missing([("maze", str(p)) for p in range(20)], 50)
with store.writer(flush_rows=3) as writer:
    for benchmark, problem, index in todo:
        writer.append(Sample(benchmark, problem, index, sample_seed(0, benchmark, problem, index),
                             f"{problem}/{index} " + "word " * (index % 7), index, "stop"))
print("done")
"""


def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Real processes, really killed, at moments spread over the writing (many more in the full kill test)."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, "-c", WRITER, str(tmp_path / "s")]
    parts = tmp_path / "s" / "parts"
    kills = 0
    while True:
        before = len(list(parts.glob("*.gz"))) if parts.exists() else 0
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE)
        if kills < 4:
            while process.poll() is None:  # kill some frames into the new part
                new = sorted(parts.glob("*.gz"))[before:] if parts.exists() else []
                if new and new[0].stat().st_size > 700 * (kills + 1):
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.001)
        out, _ = process.communicate()
        if out:
            break
    samples = list(SampleStore(tmp_path / "s").read())
    assert kills == 4
    assert sorted(key_of(sample) for sample in samples) == sorted(
        ("maze", str(problem), index) for problem in range(20) for index in range(50)
    )
    for sample in samples:
        words = "word " * (sample.sample_idx % 7)
        assert sample.response == f"{sample.problem_id}/{sample.sample_idx} {words}"
