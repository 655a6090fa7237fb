"""The figure of the README, from docs/results/maze_seeds.csv: every seed of recipes/run_fgrpo_maze.sh.

pass@1 and pass@64 on held-out mazes before training, after GRPO and after F-GRPO; a line is a seed.
"""

from __future__ import annotations

import csv
from pathlib import Path

from verl_fgrpo.core.figures import COLOURS, GREY, figure_style, new_figure, save_figure

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
MODELS = ("GRPO", "start model", "F-GRPO, gamma 1")


@figure_style()
def draw(rows: list[dict[str, str]]) -> object:
    """A line a seed, from GRPO over the start model to F-GRPO, for pass@1 and pass@64."""
    figure, axes = new_figure(7.6, 3.0, 1, 2)
    for axis, column in zip(axes, ("pass_at_1", "pass_at_64"), strict=True):
        for seed in dict.fromkeys(row["seed"] for row in rows):
            values = [
                next(float(row[column]) for row in rows if (row["seed"], row["model"]) == (seed, m)) for m in MODELS
            ]
            axis.plot(range(3), values, color=GREY, linewidth=1, zorder=1)
            axis.scatter(range(3), values, color=[COLOURS[1], GREY, COLOURS[2]], s=28, zorder=2)
        axis.set_xticks(range(3), ["GRPO", "before\ntraining", "F-GRPO"])
        axis.set_xlim(-0.4, 2.4)
        axis.set_ylabel(f"{column.replace('_at_', '@')}, held-out mazes (%)")
    axes[0].set_title("One sample: both learn")
    axes[1].set_title("64 samples: GRPO loses, F-GRPO hardly")
    figure.suptitle(f"7 x 7 mazes, before and after {rows[0]['steps']} steps of GRPO or F-GRPO; a line is a seed")
    return figure


if __name__ == "__main__":
    with (RESULTS / "maze_seeds.csv").open(newline="") as file:
        for path in save_figure(draw(list(csv.DictReader(file))), RESULTS / "maze_seeds.png"):
            print(path)
