"""Perfect mazes: generate, solve, write as tokens, read back, check an answer.

A maze of odd size S is an S x S grid whose outermost ring is wall. The (S-1)/2 squared cells at odd coordinates are
open and joined by a spanning tree ("perfect maze"), so any two positions have exactly one simple path between them.
Environment: arXiv 2602.06717, appendix K, which takes it from arXiv 2602.02710: tokens WALL / PATH / START / GOAL row
by row, answers of UP / DOWN / LEFT / RIGHT, one target action sequence each.
"""

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

WALL, PATH, START, GOAL = "WALL", "PATH", "START", "GOAL"
ROW_SEPARATOR = "\n"
MOVES: dict[str, tuple[int, int]] = {"UP": (-1, 0), "DOWN": (1, 0), "LEFT": (0, -1), "RIGHT": (0, 1)}
MIN_SIZE = 5  # a 2 x 2 arrangement of cells; size 3 has one cell, so no room for a start and a goal
MAX_SIZE = 63  # 3,969 tokens a prompt

Position: TypeAlias = tuple[int, int]


def check_size(size: int) -> int:
    """Returns `size`, or raises ValueError unless it is an odd number from `MIN_SIZE` to `MAX_SIZE`."""
    if size > MAX_SIZE:
        raise ValueError(f"maze size {size} is too large: a prompt has size * size tokens; use {MAX_SIZE} or less")
    if size < MIN_SIZE:
        raise ValueError(f"maze size {size} is too small: start and goal need {MIN_SIZE} or more; try 7 or 9")
    if size % 2 == 0:
        raise ValueError(
            f"maze size {size} is even: walls and cells alternate, so it must be odd; use {size - 1} or {size + 1}"
        )
    return size


def max_path_length(size: int) -> int:
    """The most actions a target path can have: a path through every cell, 2 * (((size - 1) / 2)^2 - 1)."""
    return 2 * (((check_size(size) - 1) // 2) ** 2 - 1)


@dataclass(frozen=True)
class Maze:
    """One maze: `grid` holds one tuple of tokens a row.

    Raises:
        ValueError: the grid is not square, of odd size, walled all round, made of the four tokens with one START and
            one GOAL,
            or its open positions are not a tree (then the solution would not be unique).
    """

    grid: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        size = check_size(len(self.grid))
        if any(len(row) != size for row in self.grid):
            raise ValueError(
                f"rows of length {[len(row) for row in self.grid]} in a maze of {size} rows: give a square grid"
            )
        tokens = [token for row in self.grid for token in row]
        if unknown := sorted(set(tokens) - {WALL, PATH, START, GOAL}):
            raise ValueError(f"unknown maze tokens {unknown}: use {WALL}, {PATH}, {START} and {GOAL}")
        for name in (START, GOAL):
            if tokens.count(name) != 1:
                raise ValueError(f"{tokens.count(name)} {name} tokens: a maze has exactly one; mark one position")
        ring = [*self.grid[0], *self.grid[-1], *(row[0] for row in self.grid), *(row[-1] for row in self.grid)]
        if set(ring) != {WALL}:
            raise ValueError("the outermost ring of the maze has an opening: it must be WALL all round; close it")
        # Connected with one edge fewer than positions: a tree, hence exactly one simple path between any two positions.
        edges = sum(len(self.neighbours(position)) for position in self.open_positions) // 2
        reached = len(_parents(self, self.start))
        if reached != len(self.open_positions) or edges != reached - 1:
            raise ValueError(
                f"{len(self.open_positions)} open positions, {reached} reached from START, {edges} edges: the solution "
                "must be unique, so open positions have to form a tree; remove loops and join unreached parts"
            )

    @property
    def size(self) -> int:
        return len(self.grid)

    @cached_property
    def open_positions(self) -> frozenset[Position]:
        return frozenset((r, c) for r, row in enumerate(self.grid) for c, token in enumerate(row) if token != WALL)

    @cached_property
    def start(self) -> Position:
        return next((r, row.index(START)) for r, row in enumerate(self.grid) if START in row)

    @cached_property
    def goal(self) -> Position:
        return next((r, row.index(GOAL)) for r, row in enumerate(self.grid) if GOAL in row)

    @property
    def text(self) -> str:
        """The prompt: tokens joined by blanks, rows joined by a newline; `parse` is its inverse."""
        return ROW_SEPARATOR.join(" ".join(row) for row in self.grid)

    @property
    def problem_id(self) -> str:
        """16 hexadecimal digits of SHA-256 over `text`: the same maze has the same id in every run."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def neighbours(self, position: Position) -> list[tuple[str, Position]]:
        """Actions that do not hit a wall, with the position each leads to."""
        r, c = position
        return [(a, (r + dr, c + dc)) for a, (dr, dc) in MOVES.items() if (r + dr, c + dc) in self.open_positions]


def parse(text: str) -> Maze:
    """The maze that `Maze.text` wrote.

    Raises:
        ValueError: as `Maze`.
    """
    return Maze(tuple(tuple(row.split()) for row in text.strip().split(ROW_SEPARATOR)))


def _parents(maze: Maze, root: Position) -> dict[Position, tuple[str, Position] | None]:
    """Breadth-first tree from `root`: position -> (action that led there, position before)."""
    parents: dict[Position, tuple[str, Position] | None] = {root: None}
    queue = deque([root])
    while queue:
        here = queue.popleft()
        for action, there in maze.neighbours(here):
            if there not in parents:
                parents[there] = (action, here)
                queue.append(there)
    return parents


def solve(maze: Maze) -> tuple[str, ...]:
    """The actions of the only simple path from START to GOAL (breadth-first search; shortest, hence simple)."""
    parents = _parents(maze, maze.start)
    actions: list[str] = []
    step = parents[maze.goal]
    while step is not None:
        action, before = step
        actions.append(action)
        step = parents[before]
    return tuple(reversed(actions))


def walk(maze: Maze, actions: Sequence[str]) -> list[Position]:
    """The positions visited from START on, stopping before the first action that hits a wall or is no action."""
    positions = [maze.start]
    for action in actions:
        if action not in MOVES:
            break
        (r, c), (dr, dc) = positions[-1], MOVES[action]
        if (r + dr, c + dc) not in maze.open_positions:
            break
        positions.append((r + dr, c + dc))
    return positions


def generate(size: int, rng: np.random.Generator, min_path: int = 2, corners: bool = False) -> Maze:
    """A random maze: randomised depth-first search for the tree, then two of its cells for START and GOAL.

    Args:
        size: side of the grid, walls included; odd, at least `MIN_SIZE`.
        rng: source of all randomness.
        min_path: least number of actions from START to GOAL; mazes with fewer are drawn again.
        corners: START in the upper left corner and GOAL in the lower right one, instead of two cells drawn uniformly.
    Raises:
        ValueError: bad `size`, or a `min_path` that no maze of this size has or that 10,000 draws did not reach.
    """
    longest = max_path_length(size)
    if not 1 <= min_path <= longest:
        raise ValueError(f"min_path {min_path}: paths in size {size} have 2 to {longest} actions; choose in this range")
    side = (size - 1) // 2
    for _ in range(10_000):
        grid = _carve(side, rng)
        first, second = (0, side * side - 1) if corners else rng.choice(side * side, size=2, replace=False)
        grid[2 * (first // side) + 1][2 * (first % side) + 1] = START
        grid[2 * (second // side) + 1][2 * (second % side) + 1] = GOAL
        maze = Maze(tuple(map(tuple, grid)))
        if min_path <= 2 or len(solve(maze)) >= min_path:
            return maze
    raise ValueError(f"min_path {min_path}: none of 10,000 mazes of size {size} has so long a path; choose a lower one")


def _carve(side: int, rng: np.random.Generator) -> list[list[str]]:
    """A grid of side x side cells joined by a random depth-first spanning tree."""
    size = 2 * side + 1
    grid = [[WALL] * size for _ in range(size)]
    root = (int(rng.integers(side)), int(rng.integers(side)))
    grid[2 * root[0] + 1][2 * root[1] + 1] = PATH
    stack = [root]
    while stack:
        r, c = stack[-1]
        fresh = [
            (r + dr, c + dc)
            for dr, dc in MOVES.values()
            if 0 <= r + dr < side and 0 <= c + dc < side and grid[2 * (r + dr) + 1][2 * (c + dc) + 1] == WALL
        ]
        if not fresh:
            stack.pop()
            continue
        nr, nc = fresh[int(rng.integers(len(fresh)))]
        grid[r + nr + 1][c + nc + 1] = PATH  # the wall between two cells lies half-way: (2r+1 + 2nr+1) / 2
        grid[2 * nr + 1][2 * nc + 1] = PATH
        stack.append((nr, nc))
    return grid


def generate_distinct(
    count: int, size: int, rng: np.random.Generator, min_path: int = 2, corners: bool = False
) -> list[Maze]:
    """`count` mazes, no two the same as problems (walls, START and GOAL together; a wall layout may come back).

    Depth-first search makes 88 wall layouts at size 7 and about 3,900 at size 9; size 11 has too many to run out of.

    Raises:
        ValueError: too few different mazes of this size were found (10,000 repeats in a row).
    """
    mazes: dict[str, Maze] = {}
    repeats = 0
    while len(mazes) < count:
        maze = generate(size, rng, min_path, corners)
        repeats = repeats + 1 if maze.text in mazes else 0
        mazes.setdefault(maze.text, maze)
        if repeats == 10_000:
            raise ValueError(
                f"only {len(mazes)} of {count} different mazes of size {size} (min_path {min_path}) found, then 10,000 "
                "repeats: ask for fewer mazes, a larger size, or endpoints anywhere"
            )
    return list(mazes.values())
