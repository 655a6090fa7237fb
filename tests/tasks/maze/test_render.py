"""Pictures of mazes: marks that stand where the path goes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from verl_fgrpo.tasks.maze.mazes import generate, parse, solve
from verl_fgrpo.tasks.maze.render import draw, save_panels

HOOK = parse("\n".join(" ".join({"#": "WALL", ".": "PATH", "S": "START", "G": "GOAL"}[s] for s in row)
                       for row in ("#####", "#S#G#", "#.#.#", "#...#", "#####")))  # fmt: skip


def test_lines_follow_the_walk():
    axes = Figure().add_subplot()
    draw(HOOK, {"right": solve(HOOK), "wrong": ["DOWN", "RIGHT"]}, axes)
    right, _, wrong, end = axes.lines
    # two paths, set apart by 0.45 in all: -0.225 and +0.225
    assert np.allclose(right.get_xdata(), np.array([1, 1, 1, 2, 3, 3, 3]) - 0.225)
    assert np.allclose(wrong.get_ydata(), np.array([1, 2]) + 0.225)
    assert (end.get_marker(), axes.lines[1].get_marker()) == ("X", "o")  # cross: into a wall; dot: ended


def test_figure_is_a_png(tmp_path):
    maze = generate(9, np.random.default_rng(0))
    save_panels([("target", maze, {"target": solve(maze)})] * 4, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]
    with pytest.raises(ValueError, match="0 panels"):
        save_panels([], tmp_path / "none.png")
