"""The report of one run against another, from counts that are known."""

import csv
from pathlib import Path

import pytest

from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.tasks.common.experiment import START, Checkpoint
from verl_fgrpo.tasks.common.pair_report import write_pair_report


def counts(*correct):
    return ProblemCounts.of(8, list(correct), ["a", "b", "c"], "maze")


def test_it_says_what_changed(tmp_path):
    sampled = {
        Checkpoint(START, 0, Path()): counts(4, 2, 1),
        Checkpoint("grpo", 1, Path()): counts(5, 2, 1),
        Checkpoint("grpo", 2, Path()): counts(8, 0, 0),
        Checkpoint("f_grpo", 2, Path()): counts(6, 2, 0),
    }
    text = write_pair_report(sampled, tmp_path, "grpo", "f_grpo", 4, "seed=1")
    assert text == (tmp_path / "report.md").read_text()
    # the last step counts: pass@1 of grpo (8 + 0 + 0) / 24, of f_grpo (6 + 2) / 24
    with (tmp_path / "tests.csv").open() as file:
        tests = {int(row["k"]): row for row in csv.DictReader(file)}
    assert set(tests) == {1, 2, 4}
    assert float(tests[1]["base"]) == pytest.approx(8 / 24) == pytest.approx(float(tests[1]["focal"]))
    assert "f_grpo solves 1 problems that grpo never solved and loses 0" in text  # b
    # pass@4 of the start model: 1 - C(4,4)/C(8,4), 1 - C(6,4)/C(8,4), 1 - C(7,4)/C(8,4) = 69/70, 55/70, 35/70
    assert f"Result: pass@4 of grpo went from {100 * (69 + 55 + 35) / 210:.1f} (start model) to 33.3" in text
    with (tmp_path / "training.csv").open() as file:
        steps = {(row["run"], row["step"]) for row in csv.DictReader(file)}
    assert steps == {("grpo", "0"), ("grpo", "1"), ("grpo", "2"), ("f_grpo", "0"), ("f_grpo", "2")}
    assert (tmp_path / "pass_at_k.png").stat().st_size > 5_000
