"""The table of methods: means over seeds, paired differences, refusals, and the files it writes."""

import csv

import pytest

from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.tasks.common.experiment import START, final_checkpoints
from verl_fgrpo.tasks.common.method_report import method_rows, write_methods_report


def counts(*correct):
    return ProblemCounts.of(4, list(correct))


# n = 4 samples a maze, so pass@1 = c / 4 and pass@4 = (c > 0)
COUNTS = {
    1: {START: counts(2, 2), "grpo": counts(4, 0), "f_grpo": counts(3, 1)},
    2: {START: counts(2, 2), "grpo": counts(4, 4), "f_grpo": counts(4, 2)},
}


def test_means_over_seeds_and_paired_differences():
    rows = {(row["run"], row["k"]): row for row in method_rows(COUNTS, [1, 4])}
    # grpo: seed 1 (1 + 0) / 2, seed 2 (1 + 1) / 2
    assert rows["grpo", 1]["value"] == pytest.approx(0.75)
    assert (rows["grpo", 1]["seeds_low"], rows["grpo", 1]["seeds_high"]) == (0.5, 1.0)
    # f_grpo - grpo at k = 1: seed 1 (-1/4 + 1/4) / 2 = 0, seed 2 (0 - 1/2) / 2 = -1/4
    assert rows["f_grpo", 1]["difference"] == pytest.approx(-0.125)
    assert rows["f_grpo", 1]["difference_seeds_low"] == pytest.approx(-0.25)
    assert rows["f_grpo", 1]["difference_seeds_high"] == pytest.approx(0.0)
    # at k = 4: seed 1 (0 + 1) / 2, seed 2 nothing
    assert rows["f_grpo", 4]["difference"] == pytest.approx(0.25)
    # bootstrap within seeds: seed 1 gives 0, 1/2 or 1, seed 2 always 0, so the mean lies in 0 ... 1/2
    assert 0 <= rows["f_grpo", 4]["difference_low"] <= 0.25 <= rows["f_grpo", 4]["difference_high"] <= 0.5
    assert rows["grpo", 4]["difference"] is None and rows[START, 4]["difference"] is None


def test_seeds_with_different_methods_are_refused():
    with pytest.raises(ValueError, match="every seed must have the same methods"):
        method_rows({1: COUNTS[1], 2: {START: counts(1, 1), "grpo": counts(1, 1)}}, [1])
    with pytest.raises(ValueError, match="grpo among them"):
        method_rows({1: {START: counts(1, 1)}}, [1])


def test_the_report_has_every_method(tmp_path):
    text = write_methods_report(method_rows(COUNTS, [1, 4]), tmp_path / "report" / "methods", {"seeds": "1 2"}, "Mazes")
    assert "| f_grpo | 62.5 [" in text and "| -12.5 [" in text and "-25.0 to +0.0" in text
    with (tmp_path / "report" / "methods.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {START, "grpo", "f_grpo"}
    for suffix in ("png", "svg"):
        assert (tmp_path / "report" / f"methods.{suffix}").stat().st_size > 5_000


def test_a_run_without_weights_is_named(tmp_path):
    with pytest.raises(ValueError, match="train grpo for 50 steps first"):
        final_checkpoints(tmp_path, [tmp_path / "grpo"], 50)
