"""Mazes and paths for people to look at, as a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.core.figures import COLOURS, new_figure, save_figure
from verl_fgrpo.tasks.maze.mazes import WALL, Maze, walk


def draw(maze: Maze, paths: Mapping[str, Sequence[str]], axes: Any) -> None:
    """Draws the maze and the named paths on matplotlib `axes`; paths are set side by side so that none hides another.

    A path ends at a dot where the answer ends, or at a cross where an action runs into a wall.
    """
    import matplotlib.patheffects as effects

    size = maze.size
    axes.imshow([[token == WALL for token in row] for row in maze.grid], cmap="Greys", vmin=0, vmax=1.6)
    spread = 0.45 / max(1, len(paths) - 1)
    for i, (name, actions) in enumerate(paths.items()):
        shift = (i - (len(paths) - 1) / 2) * spread
        positions = walk(maze, actions)
        colour = COLOURS[i % len(COLOURS)]
        ys, xs = [r + shift for r, _ in positions], [c + shift for _, c in positions]
        axes.plot(xs, ys, color=colour, linewidth=2.5, label=name, solid_joinstyle="round", solid_capstyle="round")
        cut = len(positions) <= len(actions)
        axes.plot(xs[-1:], ys[-1:], "X" if cut else "o", color=colour, markersize=9, markeredgecolor="white")
    for letter, (r, c) in (("S", maze.start), ("G", maze.goal)):
        text = axes.text(c, r, letter, ha="center", va="center", fontsize=max(9, 130 // size), fontweight="bold")
        text.set_path_effects([effects.withStroke(linewidth=3, foreground="white")])
    axes.set(xticks=[], yticks=[], xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    if paths:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(2, len(paths)), frameon=False, fontsize=9
        )


def save_panels(panels: Sequence[tuple[str, Maze, Mapping[str, Sequence[str]]]], path: Path) -> None:
    """Writes one PNG with a panel for each (title, maze, named paths), whole or not at all.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("0 panels: a figure needs at least one (title, maze, paths)")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = new_figure(3.9 * columns, 4.6 * rows, rows, columns)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, maze, paths) in zip(grid, panels, strict=False):
        axes.set_title(title, fontsize=11)
        axes.grid(False)
        draw(maze, paths, axes)
    save_figure(figure, path, dpi=120)
