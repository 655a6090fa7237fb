"""pass@k of validations from verl's dumps: by hand, while they are written, across benchmarks, as a command."""

import csv
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from verl_fgrpo.cli import main as cli
from verl_fgrpo.host.validation import AVERAGE, Benchmarks, Incomplete, describe, main, read_dump, update

SYSTEM = {"role": "system", "content": "Answer in a box."}


def val_row(benchmark, problem, *answers):
    """A row of the validation file, in verl's schema."""
    return {
        "data_source": benchmark,
        "prompt": [SYSTEM, {"role": "user", "content": problem}],
        "reward_model": {"style": "rule", "ground_truth": list(answers)},
    }


ROWS = [val_row("amc", "What is 1 + 1?", "2"), val_row("amc", "Tom: What is 1 + 1?", "2"), val_row("aime", "Why?", "7")]


def samples(row, correct, uid, step=5, **more):
    """Dumped samples of a row, one per entry of `correct`, as verl writes them."""
    prompt = "system\n" + "\n".join(message["content"] for message in row["prompt"]) + "\nassistant\n"
    return [
        {
            "input": prompt, "output": "so", "gts": row["reward_model"]["ground_truth"], "score": float(right),
            "step": step, "acc": float(right), "uid": f"{uid}_{session}_0", **more,
        }
        for session, right in enumerate(correct)
    ]  # fmt: skip


#: c of n = 4: 1 and 3 in amc, 0 in aime
DUMP = samples(ROWS[0], [0, 1, 0, 0], "a") + samples(ROWS[1], [1, 1, 0, 1], "b") + samples(ROWS[2], [0, 0, 0, 0], "c")


def write(run, step, rows, age=60.0):
    """A dump that was last changed `age` seconds ago."""
    path = run / "validation" / f"{step}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return aged(path, age)


def aged(path, age):
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def values(rows, step="5"):
    return {(row["benchmark"], int(row["k"])): float(row["pass_at_k"]) for row in rows if row["step"] == step}


BY_HAND = {
    ("amc", 1): (1 / 4 + 3 / 4) / 2,
    ("amc", 2): ((1 - 3 / 6) + (1 - 0 / 6)) / 2,  # C(3, 2) = 3 and C(1, 2) = 0 of C(4, 2) = 6 pairs miss
    ("amc", 4): 1.0,  # both have a correct one among all four
    ("aime", 1): 0.0,
    ("aime", 2): 0.0,
    ("aime", 4): 0.0,
    (AVERAGE, 1): 0.25,
    (AVERAGE, 2): 0.375,
    (AVERAGE, 4): 0.5,
}


def scalars(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "passk"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_by_hand_in_the_csv_and_as_scalars(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_DIR", raising=False)
    write(tmp_path, 5, DUMP)
    rows, notes = update(tmp_path, Benchmarks(ROWS))
    assert values(rows) == pytest.approx(BY_HAND) and notes == []
    with (tmp_path / "passk.csv").open(newline="") as handle:
        assert list(csv.DictReader(handle)) == rows
    expected = {f"val-passk/{name}/pass@{k}": [(5, pytest.approx(value))] for (name, k), value in BY_HAND.items()}
    assert scalars(tmp_path) == expected

    # nothing new: nothing is written; a second validation: its points alone; a step validated again: its new values
    before = sorted((tmp_path / "tensorboard" / "passk").iterdir())
    update(tmp_path, Benchmarks(ROWS))
    assert sorted((tmp_path / "tensorboard" / "passk").iterdir()) == before
    write(tmp_path, 10, [row | {"acc": 1.0} for row in DUMP])
    rows, _ = update(tmp_path, Benchmarks(ROWS))
    assert values(rows) == pytest.approx(BY_HAND) and set(values(rows, "10").values()) == {1.0}
    assert scalars(tmp_path)["val-passk/aime/pass@2"] == [(5, 0.0), (10, 1.0)]
    (tmp_path / "validation" / "5.jsonl").unlink()  # a dump deleted for space: its rows stay
    assert values(update(tmp_path, Benchmarks(ROWS))[0]) == pytest.approx(BY_HAND)


def test_a_dump_is_taken_when_it_is_whole_and_never_earlier(tmp_path):
    path = write(tmp_path, 5, DUMP)
    whole, benchmarks = path.read_bytes(), Benchmarks(ROWS)
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(Incomplete):
            read_dump(path, benchmarks)
    lines = whole.splitlines(keepends=True)
    for count in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:count]))
        with pytest.raises(Incomplete):
            read_dump(path, benchmarks)
    path.write_bytes(whole)
    assert read_dump(path, benchmarks).num_correct.tolist() == [1, 3, 0]


def test_what_a_kill_leaves_is_told_and_does_not_replace_a_whole_validation(tmp_path):
    write(tmp_path, 5, DUMP)
    update(tmp_path, Benchmarks(ROWS), tensorboard=False)
    path = write(tmp_path, 5, DUMP[:6])  # resumed, validating the same step again, killed: two of three problems
    rows, notes = update(tmp_path, Benchmarks(ROWS), tensorboard=False)
    assert values(rows) == pytest.approx(BY_HAND)
    assert notes == [f"step 5 is left out: {path} holds 2 of 3 problems (6 samples)"]


def test_lost_samples_lower_k_and_are_told(tmp_path):
    """verl goes on when a rollout fails. pass@4 of a problem with three samples does not exist."""
    dump = write(tmp_path, 5, DUMP[:-1], age=0)
    with pytest.raises(Incomplete, match="changed within the last 10 s"):
        read_dump(dump, Benchmarks(ROWS))
    aged(dump, 60)
    rows, notes = update(tmp_path, Benchmarks(ROWS), tensorboard=False)
    assert values(rows) == pytest.approx({key: BY_HAND[key] for key in BY_HAND if key[1] < 4 or key[0] == "amc"})
    assert notes == ["step 5: 1 of 3 problems have fewer than 4 samples, the fewest 3, and k goes no further"]


def test_a_problem_of_two_benchmarks_counts_in_both(tmp_path):
    rows = [ROWS[0], val_row("math", "What is 1 + 1?", "2")]
    dump = samples(rows[0], [1, 1], "a") + samples(rows[1], [0, 0], "b")
    counts = read_dump(write(tmp_path, 5, dump), Benchmarks(rows))
    assert sorted(counts.benchmarks) == ["amc", "math"] and counts.num_samples.tolist() == [2, 2]
    for row in dump:
        del row["uid"]  # verl before 0.9: all four are samples of one problem
    counts = read_dump(write(tmp_path, 5, dump), Benchmarks(rows))
    assert sorted(counts.benchmarks) == ["amc", "math"]
    assert counts.num_samples.tolist() == [4, 4] and counts.num_correct.tolist() == [2, 2]


def test_the_last_output_of_a_session_counts(tmp_path):
    turns = samples(ROWS[2], [1, 0], "c")
    turns[0]["uid"], turns[1]["uid"] = "c_0_0", "c_0_1"
    counts = read_dump(write(tmp_path, 5, turns), Benchmarks(ROWS[2:]))
    assert counts.num_samples.tolist() == [1] and counts.num_correct.tolist() == [0]


def test_white_space_that_decoding_changes_does_not_matter_but_another_problem_is_refused(tmp_path):
    moved = [row | {"input": row["input"].replace(" ", "  ").replace("\n", "")} for row in DUMP]
    assert read_dump(write(tmp_path, 5, moved), Benchmarks(ROWS)).benchmarks == ("amc", "amc", "aime")
    stranger = samples(val_row("amc", "What is 2 + 2?", "4"), [1], "d")
    with pytest.raises(ValueError, match=r"gold answer \('4',\) and the prompt .*What is 2 \+ 2.*--val-file"):
        read_dump(write(tmp_path, 5, stranger), Benchmarks(ROWS))


def test_success_is_acc_and_without_it_the_score(tmp_path):
    shaped = [row | {"score": row["score"] - 0.9} for row in DUMP]  # overlong penalty: acc still tells
    assert read_dump(write(tmp_path, 5, shaped), Benchmarks(ROWS)).num_correct.tolist() == [1, 3, 0]
    for row in (plain := [dict(row) for row in DUMP]):
        del row["acc"]
    assert read_dump(write(tmp_path, 5, plain), Benchmarks(ROWS)).num_correct.tolist() == [1, 3, 0]


def test_without_the_validation_file_the_samples_own_source_or_all(tmp_path):
    assert read_dump(write(tmp_path, 5, DUMP)).benchmarks == ("all",) * 3
    with pytest.raises(Incomplete):  # nobody knows how many are to come
        read_dump(write(tmp_path, 5, DUMP, age=0))
    own = [row | {"data_source": "mine"} for row in DUMP]
    assert read_dump(write(tmp_path, 5, own)).benchmarks == ("mine",) * 3


def test_lines_that_are_no_samples_are_refused(tmp_path):
    no_gold = '{"input": "x", "gts": null, "score": 1.0}\n'
    for line, message in (("{broken}\n", "line 1 is not JSON"), (no_gold, "input, gts and score must be there")):
        path = write(tmp_path, 5, [])
        path.write_text(line)
        with pytest.raises(ValueError, match=message):
            read_dump(path)


def test_a_dump_of_another_file_does_not_hide_the_others(tmp_path):
    """A run resumed with fewer benchmarks: the earlier dumps hold problems that the file no longer has."""
    write(tmp_path, 5, DUMP)
    write(tmp_path, 10, DUMP[:8])
    rows, notes = update(tmp_path, Benchmarks(ROWS[:2]), tensorboard=False)
    assert {row["step"] for row in rows} == {"10"}
    assert len(notes) == 1 and notes[0].startswith("step 5 is left out: no row of the validation file has")


def test_the_table():
    assert describe([]) == "no validation yet\n"
    rows = [
        {"step": step, "benchmark": name, "k": k, "pass_at_k": value}
        for step, name, k, value in [("0", "amc", "1", "0.1"), ("0", "amc", "4", "0.25"), ("10", "amc", "1", "0.125")]
    ]
    assert describe(rows).splitlines()[1:] == ["step          amc", "   0  10.0 / 25.0", "  10     12.5 / -"]


def test_the_command_follows_a_run_until_its_process_ends(tmp_path, capsys):
    run = tmp_path / "run"
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "val.parquet")
    assert main([str(run)]) == 1 and "is not a folder" in capsys.readouterr().err
    run.mkdir()
    config = {"data": {"val_files": str(tmp_path / "val.parquet")}, "trainer": {"validation_data_dir": "elsewhere"}}
    OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
    assert main([str(run), "--no-tensorboard"]) == 0 and "no validation yet" in capsys.readouterr().out

    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
    watcher = subprocess.Popen(
        [sys.executable, "-m", "verl_fgrpo.cli", "val-passk", str(run), "--watch", "--pid", str(trainer.pid)]
        + ["--interval", "0.1", "--no-tensorboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    write(run, 5, DUMP, age=0)
    trainer.wait()
    out, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, err) == (0, "")
    assert out.splitlines()[-1].split() == ["5", "0.0", "/", "0.0", "50.0", "/", "100.0", "25.0", "/", "50.0"]
    assert (run / "passk.csv").exists()

    (tmp_path / "val.parquet").unlink()
    assert (
        cli(["val-passk", str(run)]) == 1 and "val.parquet is gone; give it with --val-file" in capsys.readouterr().err
    )
