"""The maze study: a finished run is recorded once, and the report's numbers are those of the recorded counts."""

import json

import numpy as np
import pytest

from verl_fgrpo.cli import main
from verl_fgrpo.tasks.common.records import save_record
from verl_fgrpo.tasks.common.study import difference, load_runs, record_run, training_curves
from verl_fgrpo.tasks.maze.study_report import difference_figure, seed_figure

CURVES = {"step": [1, 2], "update_scale": [1.0, None], "active_share": [0.5, 0.5]}


def record(results, arm, seed, correct, gamma="0", size="8", mazes="m"):
    settings = {"focal_gamma": gamma, "group_size": size}
    row = {"settings": settings, "num_samples": 128, "problems": mazes, "correct": correct, "training": CURVES}
    return save_record(results, seed, arm, row)


@pytest.fixture
def results(tmp_path):
    record(tmp_path, "grpo", 1, {0: [64, 1, 0], 5: [128, 0, 0]})
    record(tmp_path, "gamma1", 1, {0: [64, 1, 0], 5: [96, 2, 0]}, gamma="1")
    return tmp_path


def test_a_finished_run_is_never_replaced(results):
    before = (results / "runs" / "seed1-grpo.json").read_bytes()
    record(results, "grpo", 1, {0: [64, 1, 0], 5: [128, 0, 0]})  # killed before the next one, the command is repeated
    with pytest.raises(ValueError, match="recorded already"):
        record(results, "grpo", 1, {0: [0, 0, 0]})
    assert (results / "runs" / "seed1-grpo.json").read_bytes() == before


def test_paired_difference_is_the_mean_over_mazes_and_seeds(results):
    # seed 1: pass@1 of gamma1 is (96 + 2 + 0) / 384, of grpo 128 / 384: -30/384
    mean, low, high, per_seed = difference(load_runs(results), "gamma1", "grpo", 1, 5)
    assert per_seed == [pytest.approx(-30 / 384)] and mean == pytest.approx(-30 / 384)
    assert low <= mean <= high
    record(results, "grpo", 2, {0: [0, 0, 0], 5: [0, 0, 0]})
    record(results, "gamma1", 2, {0: [0, 0, 0], 5: [0, 128, 0]}, gamma="1")
    mean, _, _, per_seed = difference(load_runs(results), "gamma1", "grpo", 1, 5)
    assert per_seed == [pytest.approx(-30 / 384), pytest.approx(1 / 3)]
    assert mean == pytest.approx((-30 / 384 + 1 / 3) / 2)
    assert difference(load_runs(results), "gamma0.5", "grpo", 1, 5) is None


@pytest.mark.parametrize(
    "change",
    [
        *("", "[]", "null", "{}", "nonsense", '{"arm": "grpo"}'),
        *({key: None} for key in ("arm", "seed", "settings", "num_samples", "problems", "correct", "training", "made")),
        *(
            {"correct": bad}
            for bad in ({}, {"0": [1], "5": [1, 2]}, {"0": [129]}, {"0": [-1]}, {"x": [1]}, {"5": [1]}, [[1]])
        ),
        *({"training": bad} for bad in ({}, CURVES | {"step": [1]}, CURVES | {"update_scale": ["x", 1]})),
        *({"settings": bad} for bad in ({}, {"focal_gamma": 1}, {"focal_gamma": "1"})),
        *({"settings": {"focal_gamma": gamma, "group_size": size}} for gamma, size in (("nan", "8"), ("1", "x"))),
    ],
    ids=str,
)
def test_what_is_no_record_is_told_in_one_line_with_its_file(tmp_path, capsys, change):
    record(tmp_path, "grpo", 1, {0: [1, 2]})
    path = next((tmp_path / "runs").iterdir())
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    for command in (["maze", "study"], ["countdown"], ["proofs", "report", "write"]):
        words = [*command, "report"] if command[0] != "proofs" else command
        assert main([*words, "--results", str(tmp_path)]) == 1
        told = capsys.readouterr().err
        assert str(path) in told and told.count("\n") == 1


def test_arms_tested_on_other_mazes_are_no_pair(results):
    record(results, "gamma0.5", 1, {0: [1], 5: [1]}, mazes="others")
    with pytest.raises(ValueError, match="different problems"):
        load_runs(results)


def test_curves_are_those_of_the_dumped_groups(tmp_path):
    # two groups of four: 1 of 4 and 3 of 4 correct, plus a row that fills the batch up
    rows = [("a", 1), ("a", 0), ("a", 0), ("a", 0), ("b", 1), ("b", 1), ("b", 1), ("b", 0)]
    lines = [
        {"input": uid, "output": "", "gts": "x", "score": score, "step": 1, "uid": f"{uid}_{i}_0"}
        for i, (uid, score) in enumerate(rows)
    ]
    lines.append({"input": "a", "output": "", "gts": "x", "score": 0, "step": 1, "uid": "pad0f_0_0"})
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = training_curves(tmp_path, 1.0)
    # weights 3/4 and 1/4; sizes are equal, so the update scale is their mean
    assert curves["weight_mean"] == [0.5] and curves["update_scale"] == [0.5] and curves["active_share"] == [1.0]
    assert curves["histogram"] == [[0, 1, 0, 1, 0]]
    curves = training_curves(tmp_path, 1.0, normalize=True)  # 3/2 and 1/2
    assert curves["weight_mean"] == [1.0] and curves["update_scale"] == [1.0]
    with pytest.raises(ValueError, match="no STEP.jsonl"):
        training_curves(tmp_path / "none", 1.0)


@pytest.mark.parametrize(("extra", "mean"), [("", 0.5), ("+algorithm.focal_normalize=True", 1.0)])
def test_a_record_has_the_settings_and_the_weights_of_its_run(tmp_path, extra, mean):
    run = tmp_path / "gamma1"
    (run / "rollouts").mkdir(parents=True)
    rows = [{"input": "p", "output": "", "gts": "g", "score": score, "step": 1} for score in (0.0, 1.0)]
    (run / "rollouts" / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"focal_gamma": "1", "group_size": "2", "overrides": "trainer.n=1", "extra": extra}
    (run / "settings.json").write_text(json.dumps(settings))
    record_run(tmp_path, 3, run, 4, "m", {0: [1], 1: [2]})
    (found,) = load_runs(tmp_path)
    assert (found.arm, found.seed, found.settings) == ("gamma1", 3, {"focal_gamma": "1", "group_size": "2"})
    assert found.training["weight_mean"] == [mean]  # one group, half of it right: (1 - 1/2) ** 1, or over itself


def test_report_and_what_is_left(results, capsys):
    record(results, "n4-grpo", 1, {0: [64, 1, 0], 5: [100, 0, 0]}, size="4")
    assert main(["maze", "study", "left", "--results", str(results), "--seed", "1", "grpo", "gamma0.5"]) == 0
    assert capsys.readouterr().out == "gamma0.5\n"
    assert main(["maze", "study", "report", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("| F-GRPO, gamma 1"))
    assert f"{100 * 98 / 384:.1f} [" in row and f"{-100 * 30 / 384:+.1f} [" in row
    row = next(line for line in text.splitlines() if line.startswith("| 4 | 0 | 1 | 5 |"))
    assert row.startswith("| 4 | 0 | 1 | 5 | 26.0 |")  # 100 / 384
    assert row.endswith("| 1 |  |  |")  # the second maze is lost
    for name in ("seeds", "training", "differences", "mazes", "weights", "group_size"):
        assert (results / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((results / "results.json").read_text())["rows"]
    assert np.isclose(next(r for r in rows if r["arm"] == "gamma1" and r["k"] == 1)["difference"], -30 / 384)


def test_a_line_of_the_seed_figure_is_grpo_start_and_focal_run(results):
    grpo, focal = sorted(load_runs(results), key=lambda run: run.arm, reverse=True)
    (line,) = seed_figure([(grpo, focal)], 5).axes[0].lines
    assert line.get_ydata() == pytest.approx([100 * 128 / 384, 100 * 65 / 384, 100 * 98 / 384])


def test_the_report_compares_with_updates_of_the_same_size(results, capsys):
    record(results, "grpo_low_lr", 1, {0: [64, 1, 0], 5: [90, 0, 0]})
    assert main(["maze", "study", "report", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert f"| F-GRPO, gamma 1 minus GRPO, learning rate x 0.5 | 5 | {100 * (98 - 90) / 384:+.1f} [" in text
    assert f"| F-GRPO, gamma 1 minus GRPO | 5 | {100 * (98 - 128) / 384:+.1f} [" in text


def test_without_runs_the_remedy_is_named(tmp_path, capsys):
    assert main(["maze", "study", "report", "--results", str(tmp_path)]) == 1
    assert "train and record one with the task's recipe" in capsys.readouterr().err
    (tmp_path / "runs").write_text("")
    for file in (tmp_path, tmp_path / "runs"):
        assert main(["maze", "study", "left", "--results", str(file), "grpo"]) == 1
        assert "is no folder with runs/" in capsys.readouterr().err


def test_differences_of_more_arms_than_colours_and_of_a_width_that_rounding_makes_negative():
    row = {"difference": 0.1, "d_low": 0.1 + 1e-12, "d_high": 0.1}
    figure = difference_figure([row | {"arm": f"gamma{gamma}", "k": k} for gamma in range(1, 12) for k in (1, 2)], 5)
    assert len(figure.axes[0].containers) == 11
