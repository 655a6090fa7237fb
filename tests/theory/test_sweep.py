"""The sweep: same numbers as single runs, resumes, refuses other settings; figures are drawn from it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from verl_fgrpo.cli import main
from verl_fgrpo.theory import figures, sweep
from verl_fgrpo.theory.simulation import published_logits, simulate
from verl_fgrpo.theory.sweep import SweepConfig, run_sweep, settings_path

SMALL = SweepConfig(group_sizes=(4, 64), seeds=(0, 1), steps=25, num_actions=600, num_correct=60)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_published_sweep_is_136_runs():
    config = SweepConfig()
    assert config.group_sizes[0] == 2 and config.group_sizes[-1] == 131_072
    assert len(config.group_sizes) * len(config.focal_gammas) * len(config.seeds) == 136
    assert (config.steps, config.learning_rate, config.num_actions, config.num_correct) == (1000, 1e-2, 128_000, 10_000)


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_equal_single_runs(tmp_path, workers):
    rows = read(run_sweep(SMALL, tmp_path / "s.csv", workers, progress=False))
    assert len(rows) == 8 * 4  # steps 0, 10, 20, 25
    alone = simulate(64, 1.0, 25, 1, logits=published_logits(600, 60), num_correct=60)
    own = [r for r in rows if (r["group_size"], r["focal_gamma"], r["seed"]) == ("64", "1.0", "1")]
    assert [int(r["step"]) for r in own] == [0, 10, 20, 25]
    for row in own:
        assert float(row["q_pos"]) == pytest.approx(alone.q_pos[int(row["step"])], rel=1e-8)
        assert float(row["m_ret"]) == pytest.approx(alone.m_ret[int(row["step"])], rel=1e-8)
    stored = json.loads(settings_path(tmp_path / "s.csv").read_text())
    assert stored["settings"]["num_actions"] == 600 and stored["versions"]["torch"]


@pytest.mark.parametrize("table", ["", "a,b\n1,2\n", "\0", "CUT", "LONG"])
@pytest.mark.parametrize("settings", ["GOOD", "", "[]", "{}", '{"settings": 1}', '{"settings": {"steps": 1}}'])
def test_what_is_no_sweep_is_told_in_one_line(tmp_path, capsys, table, settings):
    """By simulate, which would go on with it, and by figures."""
    output = tmp_path / "sweep.csv"
    words = ["--group-sizes", "2", "--seeds", "0", "--focal-gammas", "0", "--steps", "1", "--workers", "1"]
    words += ["--num-actions", "9", "--num-correct", "2"]
    assert main(["simulate", *words, "--output", str(output)]) == 0
    text = output.read_text()
    output.write_text({"CUT": text[:-30], "LONG": text + "8,nonsense\n"}.get(table, table))
    if settings != "GOOD":
        (tmp_path / "sweep.csv.json").write_text(settings)
    elif table == "":
        return  # nothing is finished yet
    capsys.readouterr()
    assert main(["simulate", *words, "--output", str(output)]) == 1
    told = capsys.readouterr().err
    assert "sweep.csv" in told and told.count("\n") == 1
    assert main(["figures", "--sweep", str(output), "--output", str(tmp_path / "figures")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "figures").exists()


def test_interrupted_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
    output, honest, done = tmp_path / "s.csv", sweep.simulate_batch, []

    def interrupted(group_size, runs, *args, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append((group_size, tuple(runs)))
        return honest(group_size, runs, *args, **options)

    monkeypatch.setattr(sweep, "simulate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(SMALL, output, progress=False)
    kept = output.read_bytes()
    assert len(read(output)) == 4 * 4
    first, done[:] = list(done), [None, None, None]  # count on without interruption
    run_sweep(SMALL, output, progress=False)
    assert not set(first) & set(done[3:]) and len(done[3:]) == 2
    assert set(kept.splitlines()) <= set(output.read_bytes().splitlines())
    monkeypatch.setattr(sweep, "simulate_batch", honest)
    assert run_sweep(SMALL, tmp_path / "whole.csv", progress=False).read_bytes() == output.read_bytes()


def test_a_sweep_grows_but_keeps_its_settings(tmp_path):
    output = run_sweep(SMALL, tmp_path / "s.csv", progress=False)
    before = set(output.read_text().splitlines())
    run_sweep(replace(SMALL, group_sizes=(4, 8)), output, progress=False)
    after = set(output.read_text().splitlines())
    assert before < after and len(after - before) == 4 * 4
    with pytest.raises(ValueError, match="learning_rate: found 0.01, asked 0.1"):
        run_sweep(replace(SMALL, learning_rate=0.1), output, progress=False)
    settings_path(output).unlink()
    with pytest.raises(ValueError, match="settings are unknown"):
        run_sweep(SMALL, output, progress=False)
    assert set(output.read_text().splitlines()) == after


def test_bad_configs():
    with pytest.raises(ValueError, match="seeds"):
        SweepConfig(seeds=(0, 0))
    with pytest.raises(ValueError, match="record_every"):
        SweepConfig(record_every=0)
    with pytest.raises(ValueError, match="workers"):
        run_sweep(SMALL, Path("unused.csv"), workers=0)


def test_scripts_end_to_end(tmp_path, capsys):
    csv_path, folder = tmp_path / "s.csv", tmp_path / "figures"
    small = "--group-sizes 2 8 64 --seeds 0 1 --steps 20 --num-actions 600 --num-correct 60 --workers 1"
    main(["simulate", *small.split(), "--output", str(csv_path)])
    main(["figures", "--sweep", str(csv_path), "--output", str(folder)])
    names = {"tail_miss", "tail_miss_by_success_rate", "advantage_scale", "simulation", "simulation_tail_miss"}
    assert {path.name for path in folder.iterdir()} == {f"{n}.{e}" for n in names for e in ("png", "svg")} | {
        "simulation.csv",
        "simulation.csv.json",
    }
    assert [r["step"] for r in read(folder / "simulation.csv")] == ["20"] * 12
    assert main(["figures", "--sweep", str(tmp_path / "none.csv"), "--output", str(folder)]) == 1
    assert "verl-fgrpo simulate" in capsys.readouterr().err
    # the committed last steps are enough to draw the figure again
    again = tmp_path / "again"
    assert main(["figures", "--sweep", str(folder / "simulation.csv"), "--output", str(again)]) == 0
    assert (again / "simulation.svg").read_bytes() == (folder / "simulation.svg").read_bytes()


def test_figures_draw_the_numbers(tmp_path):
    """The plotted lines are the data: final retained mass per group size, and peaks at the worst group sizes."""
    path = run_sweep(SMALL, tmp_path / "s.csv", progress=False)
    data, config = figures.read_outcomes(path), SMALL.settings()
    last = [row for row in read(path) if (row["group_size"], row["focal_gamma"], row["step"]) == ("64", "1.0", "25")]
    np.testing.assert_array_equal(data[64, 1.0], [[float(row[name]) for row in last] for name in ("q_pos", "m_ret")])
    drawn = [
        {line.get_label(): line.get_xydata() for line in axes.get_lines()}
        for axes in figures.simulation_figure(data, config).axes
    ]
    for number in range(2):
        expected = [[n, data[n, 1.0][number].mean()] for n in (4, 64)]
        np.testing.assert_allclose(drawn[number]["focal_gamma = 1"], expected)
    start = simulate(4, 0.0, 0, logits=published_logits(600, 60), num_correct=60).q_pos[0]
    assert drawn[0]["before training"][:, 1] == pytest.approx(start, rel=1e-6)
    stars = [
        line.get_xydata()[0] for line in figures.tail_miss_figure().axes[0].get_lines() if line.get_marker() == "*"
    ]
    sizes = np.arange(1, 513)
    for (peak, height), share in zip(stars, figures.RARE_SHARES, strict=True):
        risk = (1 - share * 0.5) ** sizes - (0.5 - share * 0.5) ** sizes - 0.5**sizes
        assert peak == sizes[np.argmax(risk)] and height == pytest.approx(risk.max())
    with pytest.raises(ValueError, match="baseline 0"):
        figures.simulation_figure({key: value for key, value in data.items() if key[1] == 1.0}, config)
