"""Tables and figures from counts."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.core.tables import markdown_table, write_table
from verl_fgrpo.evaluation.report import (
    ProblemCounts,
    pass_at_k_rows,
    pass_cells,
    plot_pass_at_k,
    plot_training_curve,
)


def three_runs() -> dict[str, ProblemCounts]:
    rng = np.random.default_rng(0)
    return {
        name: ProblemCounts.of(64, rng.binomial(64, rng.beta(*shape, size=128)), benchmark="maze")
        for name, shape in {"start": (0.6, 1.0), "GRPO": (0.5, 0.3), "F-GRPO": (0.9, 0.4)}.items()
    }


def test_rows_hold_the_mean_over_problems_and_a_band_around_it() -> None:
    counts = ProblemCounts.of([4, 8], [2, 0])
    rows = pass_at_k_rows({"a": counts})
    assert [row["k"] for row in rows] == [1, 2, 4]  # up to the smallest n
    # pass@1: (2/4 + 0)/2; pass@2: (5/6 + 0)/2; pass@4: (1 + 0)/2.
    assert [row["value"] for row in rows] == pytest.approx([0.25, 5 / 12, 0.5])
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    with pytest.raises(ValueError, match="k=8 exceeds num_samples=4"):
        pass_at_k_rows({"a": counts}, ks=[8])


def test_benchmarks_are_kept_apart() -> None:
    counts = ProblemCounts.of(2, [2, 0, 1], ["x", "y", "x"], ["a", "a", "b"])
    rows = {(row["benchmark"], row["k"]): row for row in pass_at_k_rows({"r": counts}, ks=[1, 2])}
    assert rows["a", 1]["value"] == 0.5 and rows["b", 1]["value"] == 0.5
    assert rows["a", 2]["value"] == 0.5 and rows["b", 2]["value"] == 1.0
    assert rows["a", 1]["problems"] == 2


def test_markdown_csv_and_json_say_the_same(tmp_path: Path) -> None:
    rows = pass_at_k_rows(three_runs(), iterations=200)
    markdown = markdown_table(*pass_cells(rows))
    paths = write_table(rows, tmp_path / "pass.at.k", markdown, settings={"seed": 0})
    assert [path.name for path in paths] == ["pass.at.k.md", "pass.at.k.csv", "pass.at.k.json"]
    stored = json.loads(paths[2].read_text())
    assert stored["rows"] == rows and stored["settings"] == {"seed": 0} and "python" in stored["provenance"]
    with open(paths[1], newline="") as handle:
        assert [float(row["value"]) for row in csv.DictReader(handle)] == [row["value"] for row in rows]
    lines = paths[0].read_text().splitlines()
    assert lines[0] == "| benchmark | run | pass@1 | pass@2 | pass@4 | pass@8 | pass@16 | pass@32 | pass@64 |"
    first = three_runs()["start"]
    assert lines[2].startswith(f"| maze | start | {100 * pass_at_k(64, first.num_correct, 1).mean():.1f} [")


def test_figures_draw_the_values_and_are_reproducible(tmp_path: Path) -> None:
    rows = pass_at_k_rows(three_runs(), iterations=200)
    first = [path.read_bytes() for path in plot_pass_at_k(rows, tmp_path / "a")]
    second = [path.read_bytes() for path in plot_pass_at_k(rows, tmp_path / "b")]
    assert first == second
    assert first[0].startswith(b"\x89PNG")
    for text in (b"F-GRPO", b"maze (128 problems)", b"pass@k (%)", b">64<"):
        assert text in first[1]
    # Another curve gives another figure: the picture depends on the values.
    changed = [{**row, "value": row["value"] * 0.9} for row in rows]
    assert plot_pass_at_k(changed, tmp_path / "c")[1].read_bytes() != first[1]


def test_training_curve(tmp_path: Path) -> None:
    rows = [
        {"step": step, "run": run, "k": k, "value": 0.4 + 0.002 * step - 0.1 * (k > 1) * number}
        for number, run in enumerate(["GRPO", "F-GRPO"])
        for k in (1, 64)
        for step in (0, 20, 40)
    ]
    png, svg = plot_training_curve(rows, tmp_path / "steps", title="maze")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"training step" in svg.read_bytes() and b"pass@64" in svg.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, [5])), "num_correct=5 exceeds"),
        (((4, [1, 2], ["x", "x"])), "unique"),
        (((4, [1, 2], ["x"])), "equally many"),
        (((4, [])), "non-empty"),
    ],
)
def test_bad_counts(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        ProblemCounts.of(*arguments)


def test_nothing_to_write_or_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        write_table([], tmp_path / "x", "")
    with pytest.raises(ValueError, match="no rows"):
        plot_pass_at_k([], tmp_path / "x")
