"""The folder of a verl run: claims, checkpoints after a kill, metrics over several starts, leftovers, watching."""

import json
import subprocess
import sys
import time

import pytest

from verl_fgrpo.cli import main
from verl_fgrpo.runs.run_folder import claim, last_checkpoint, read_metrics, stop_leftovers, watch


def test_a_run_is_claimed_once_and_only_resumed_with_the_same_settings(tmp_path):
    run = tmp_path / "run"
    claim(run, {"focal_gamma": "0.5", "method": "grpo"})
    claim(run, {"focal_gamma": "0.5", "method": "grpo"})
    with pytest.raises(ValueError, match=r"focal_gamma: found '0\.5', asked '1'.*use another OUT"):
        claim(run, {"focal_gamma": "1", "method": "grpo"})
    assert json.loads((run / "settings.json").read_text())["focal_gamma"] == "0.5"


def checkpoint(run, step, complete=True):
    actor = run / f"global_step_{step}" / "actor"
    actor.mkdir(parents=True)
    (actor / "model_world_size_1_rank_0.pt").touch()
    if complete:
        (run / f"global_step_{step}" / "data.pt").touch()


def test_last_checkpoint(tmp_path):
    assert last_checkpoint(tmp_path) == 0
    checkpoint(tmp_path, 20)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("20")
    assert last_checkpoint(tmp_path) == 20
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("40")
    with pytest.raises(ValueError, match=r"names step 40, but global_step_40 is gone \(there: 20\); restore it"):
        last_checkpoint(tmp_path)


def test_a_pointer_cut_off_by_a_kill_is_mended(tmp_path):
    pointer = tmp_path / "latest_checkpointed_iteration.txt"
    checkpoint(tmp_path, 20)
    checkpoint(tmp_path, 40)
    checkpoint(tmp_path, 60, complete=False)
    pointer.write_text("")
    assert last_checkpoint(tmp_path) == 40
    assert pointer.read_text() == "40"


def test_an_empty_pointer_without_checkpoints_is_removed(tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("")
    assert last_checkpoint(tmp_path) == 0
    assert not (tmp_path / "latest_checkpointed_iteration.txt").exists()


def test_metrics_of_several_starts_are_joined_and_a_torn_line_is_left_out(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "1.jsonl").write_text('{"step":1,"data":{"a":1}}\n{"step":2,"data":{"a":2}}\n{"step":3,"da')
    (logs / "2.jsonl").write_text('{"step":2,"data":{"a":20}}\n{"step":3,"data":{"a":30}}\n')
    assert [(step, data["a"]) for step, data in read_metrics(tmp_path).items()] == [(1, 1), (2, 20), (3, 30)]


@pytest.mark.parametrize(("name", "spelt"), [("run", "run"), ("it's a=b", "'it\\'s a=b'")])
def test_leftover_trainers_of_this_folder_are_ended_and_no_others(tmp_path, name, spelt):
    sleep = "import time; time.sleep(60)"
    mine, other = tmp_path / name, f"{tmp_path}/{name}-2"
    spelt = f"'{tmp_path}/{spelt[1:]}" if spelt.startswith("'") else f"{tmp_path}/{spelt}"
    processes = [
        subprocess.Popen([sys.executable, "-c", sleep, f"trainer.default_local_dir={folder}"])
        for folder in (spelt, other)
    ]
    try:
        time.sleep(0.3)
        assert stop_leftovers(mine) == 1
        assert processes[0].poll() is not None
        assert processes[1].poll() is None
        assert stop_leftovers(mine) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_watch_names_the_runs_that_ended_too_early(tmp_path):
    runs = [tmp_path / "done", tmp_path / "failed"]
    for run in runs:
        run.mkdir()
    checkpoint(runs[0], 2)
    (runs[0] / "latest_checkpointed_iteration.txt").write_text("2")
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert watch(runs, 2, [process.pid, process.pid], poll=0.01) == [runs[1]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["claim", "RUN", "gamma"], "'gamma' must be key=value"),
        (["claim", "RUN", "=1"], "'=1' must be key=value"),
        (["claim", "RUN", "a=1", "a=2"], "a key is given twice: a a"),
        (["claim", "", "a=1"], "'' is no path"),
        (["watch", "--steps", "1", "RUN"], "must be RUN=PID"),
        (["watch", "--steps", "1", "RUN=x"], "must be RUN=PID"),
        (["watch", "--steps", "1", "RUN=-1"], "must be RUN=PID"),
        (["watch", "--steps", "0", "RUN=1"], "--steps: 0 must be a whole number from 1"),
    ],
)
def test_words_that_cannot_be_meant_are_told_in_one_line(tmp_path, capsys, words, told):
    try:
        code = main(["run-folder", *(word.replace("RUN", str(tmp_path / "run")) for word in words)])
    except SystemExit as usage:
        code = usage.code
    printed = capsys.readouterr().err
    assert code in (1, 2) and told in printed and printed.count("\n") == 1 and not (tmp_path / "run").exists()
