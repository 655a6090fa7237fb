"""The folder that RL starts from: verl's format, disjoint splits, restartable, never overwritten."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from verl_fgrpo.cli import main
from verl_fgrpo.tasks.maze import prepare as module
from verl_fgrpo.tasks.maze.dataset import check_disjoint, make_splits, read_parquet, response_limit
from verl_fgrpo.tasks.maze.mazes import parse, solve
from verl_fgrpo.tasks.maze.prepare import prepare
from verl_fgrpo.tasks.maze.rewards import compute_score


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files(folder):
    assert {p.name for p in folder.iterdir()} == {
        ".lock", "train.parquet", "val.parquet", "start_model", "example.png", "settings.json", "manifest.json"
    }  # fmt: skip


def test_rows_are_what_verl_reads(folder, settings):
    for split, count in (("train", settings.train), ("val", settings.heldout)):
        table = pd.read_parquet(folder / f"{split}.parquet")
        assert len(table) == count
        for i, row in table.iterrows():
            (message,) = row["prompt"]
            maze = parse(message["content"])
            assert message["role"] == "user" and row["data_source"] == "verl_fgrpo/maze" and row["ability"] == "maze"
            assert row["reward_model"] == {"style": "rule", "ground_truth": " ".join(solve(maze))}
            assert row["extra_info"] == {"index": i, "split": split, "size": 5, "problem_id": maze.problem_id}
            assert compute_score(row["data_source"], " ".join(solve(maze)), row["reward_model"]["ground_truth"])["acc"]


def test_splits_are_disjoint(folder):
    train, heldout = (read_parquet(folder / f"{split}.parquet") for split in ("train", "val"))
    assert len({m.text for m in train} | {m.text for m in heldout}) == len(train) + len(heldout)
    with pytest.raises(ValueError, match="1 mazes are both"):
        check_disjoint(train, [train[0]])


def test_manifest_lengths(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["prompt_tokens"] == 5 * 5 + 4
    mazes = [m for split in ("train", "val") for m in read_parquet(folder / f"{split}.parquet")]
    assert manifest["response_limit"] == response_limit(mazes) == max(len(solve(m)) for m in mazes) + 1


def test_second_run_does_nothing(folder, settings):
    before, said = contents(folder), []
    manifest = prepare(folder, settings, progress=False, say=said.append)
    assert contents(folder) == before
    assert said == [f"already there: {folder}"]
    assert manifest == json.loads((folder / "manifest.json").read_text())


def test_other_settings_are_refused(folder, settings):
    before = contents(folder)
    for other, message in (
        (replace(settings, seed=1), "seed: found 0, asked 1.*another --out"),
        (replace(settings, sft=replace(settings.sft, steps=81)), "sft.steps: found 80, asked 81"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(folder, other, progress=False)
    assert contents(folder) == before


@pytest.mark.parametrize("at", ["make_splits", "write_parquet:2", "train_start_model", "save_panels", "fingerprint"])
def test_killed_anywhere_it_continues_to_the_same_result(tmp_path, monkeypatch, folder, settings, at):
    name, _, nth = at.partition(":")
    real, calls = getattr(module, name), []

    def killer(*args, **kwargs):
        calls.append(1)
        if len(calls) == int(nth or 1):
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killer)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "p", settings, progress=False)
    assert not (tmp_path / "p" / "manifest.json").exists()
    prepare(tmp_path / "p", settings, progress=False)
    a, b = contents(folder), contents(tmp_path / "p")
    assert a.keys() == b.keys()
    same = set(a) - {"start_model/manifest.json", "manifest.json"}  # hold times
    assert [key for key in same if a[key] != b[key]] == []
    first, second = (json.loads(side["manifest.json"]) for side in (a, b))
    assert first.pop("time") and second.pop("time") and first == second


def test_bad_counts_are_named(rng):
    with pytest.raises(ValueError, match="train = 0.*raise --train"):
        make_splits(7, 0, 5, rng)
    with pytest.raises(ValueError, match="fewer mazes, a larger size"):
        make_splits(5, 40, 9, rng)  # 48 exist


def test_command_reports_errors_without_a_traceback(folder, capsys):
    assert main(["maze", "prepare", "--out", str(folder), "--size", "8"]) == 1
    assert "8 is even" in capsys.readouterr().err
    assert main(["maze", "prepare", "--out", str(folder), "--size", "9"]) == 1
    assert "size: found 5, asked 9" in capsys.readouterr().err


def test_splits_follow_the_seed():
    first, second = (make_splits(7, 20, 5, np.random.default_rng(1)) for _ in range(2))
    assert first == second != make_splits(7, 20, 5, np.random.default_rng(2))
