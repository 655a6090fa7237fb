"""Mazes: golden small ones, and properties of every generated one."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maze_walk import is_correct_path

from verl_fgrpo.tasks.maze.mazes import (
    GOAL,
    MOVES,
    PATH,
    START,
    WALL,
    Maze,
    generate,
    generate_distinct,
    max_path_length,
    parse,
    solve,
    walk,
)

TOKENS = {"#": WALL, ".": PATH, "S": START, "G": GOAL}


def from_picture(picture: str) -> Maze:
    return Maze(tuple(tuple(TOKENS[sign] for sign in row) for row in picture.split()))


#        columns 01234
HOOK = from_picture("""
                 #####
                 #S#G#
                 #.#.#
                 #...#
                 ##### """)
BRANCH = from_picture("""
                 #######
                 #S..#.#
                 ###.#.#
                 #.#...#
                 #.#.###
                 #....G#
                 ####### """)
mazes = st.builds(
    lambda side, seed: generate(2 * side + 1, np.random.default_rng(seed)), st.integers(2, 8), st.integers(0, 2**32 - 1)
)


def test_golden_solutions():
    assert solve(HOOK) == ("DOWN", "DOWN", "RIGHT", "RIGHT", "UP", "UP")
    # (1,1) -> (1,3) -> (5,3) -> (5,5): two right, four down, two right; the branch up to (1,5) is a dead end
    assert solve(BRANCH) == ("RIGHT",) * 2 + ("DOWN",) * 4 + ("RIGHT",) * 2


def test_golden_text():
    assert HOOK.text.split("\n")[1] == "WALL START WALL GOAL WALL"
    assert len(HOOK.text.split()) == 25 and HOOK.text.count("\n") == 4
    assert parse(HOOK.text) == HOOK


@pytest.mark.parametrize(
    ("actions", "correct"),
    [
        ("DOWN DOWN RIGHT RIGHT UP UP", True),
        ("DOWN DOWN RIGHT RIGHT UP", False),  # stops one short
        ("DOWN DOWN RIGHT RIGHT UP UP UP", False),  # runs on into the wall
        ("DOWN DOWN RIGHT RIGHT UP UP DOWN", False),  # leaves the goal again
        ("DOWN DOWN RIGHT RIGHT UP UP DOWN UP", False),  # back on the goal, but by a detour
        ("DOWN UP DOWN DOWN RIGHT RIGHT UP UP", False),  # reaches the goal by a detour
        ("RIGHT DOWN DOWN RIGHT RIGHT UP UP", False),  # wall first
        ("DOWN DOWN RIGHT JUMP UP UP", False),
        ("", False),
    ],
)
def test_only_the_target_sequence_is_correct(actions, correct):
    assert is_correct_path(HOOK, actions.split()) is correct


def test_walk_stops_at_a_wall():
    assert walk(HOOK, ["DOWN", "RIGHT", "DOWN"]) == [(1, 1), (2, 1)]


@given(mazes)
@settings(max_examples=60, deadline=None)
def test_generated_mazes_are_perfect(maze):
    """Every cell is open, the number of passages is a tree's, and exhaustive search finds one simple path."""
    side = (maze.size - 1) // 2
    assert all(maze.grid[r][c] != WALL for r in range(1, maze.size, 2) for c in range(1, maze.size, 2))
    # a spanning tree of side^2 cells has side^2 - 1 open passages
    assert len(maze.open_positions) == side**2 + side**2 - 1
    assert count_simple_paths(maze) == 1


@given(mazes)
@settings(max_examples=60, deadline=None)
def test_solver_is_the_shortest_walk_and_passes_the_check(maze):
    path = solve(maze)
    assert len(path) == distance(maze) <= max_path_length(maze.size)
    assert is_correct_path(maze, path)
    assert walk(maze, path)[-1] == maze.goal
    for i, action in enumerate(path):  # any single change makes it wrong
        other = next(name for name in MOVES if name != action)
        assert not is_correct_path(maze, (*path[:i], other, *path[i + 1 :]))


@given(mazes)
@settings(max_examples=60, deadline=None)
def test_text_round_trip(maze):
    assert parse(maze.text) == maze
    assert parse(maze.text.replace("\n", " \n ")) == maze  # as a tokenizer's decode spaces it
    assert parse(maze.text).problem_id == maze.problem_id


@given(mazes, st.lists(st.sampled_from(sorted(MOVES)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_walking_agrees_with_comparing(maze, actions):
    assert is_correct_path(maze, actions) == (tuple(actions) == solve(maze))


@given(st.integers(0, 1000), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_min_path_holds(seed, min_path):
    assert len(solve(generate(9, np.random.default_rng(seed), min_path))) >= min_path


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_corners(seed):
    maze = generate(9, np.random.default_rng(seed), corners=True)
    assert (maze.start, maze.goal) == ((1, 1), (7, 7))


def test_depth_first_layouts_of_size_7():
    """The count that the documentation gives: 88 wall layouts, the corners fix the rest of the maze."""
    with pytest.raises(ValueError, match="only 88 of 89"):
        generate_distinct(89, 7, np.random.default_rng(0), corners=True)


def test_same_seed_same_mazes_and_no_repeats():
    first, second = (generate_distinct(200, 7, np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert len({maze.text for maze in first}) == 200
    assert generate_distinct(5, 7, np.random.default_rng(4)) != first[:5]


def test_every_maze_of_size_5_is_found():
    # 2 x 2 cells: 4 spanning trees (leave out one of four passages), times 4 * 3 ordered (start, goal) pairs
    assert len(generate_distinct(48, 5, np.random.default_rng(0))) == 48
    with pytest.raises(ValueError, match="only 48 of 49 different mazes of size 5"):
        generate_distinct(49, 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(8, np.random.default_rng(0)), "8 is even.*use 7 or 9"),
        (lambda: generate(3, np.random.default_rng(0)), "3 is too small.*try 7 or 9"),
        (lambda: generate(1001, np.random.default_rng(0)), "1001 is too large.*use 63 or less"),
        (lambda: generate(7, np.random.default_rng(0), min_path=17), "min_path 17.*2 to 16"),
        (lambda: parse("WALL"), "too small"),
        (lambda: parse(HOOK.text.replace("GOAL", "PATH")), "0 GOAL tokens"),
        (lambda: parse(HOOK.text.replace("GOAL", "EXIT")), "unknown maze tokens.*EXIT"),
        (lambda: parse(HOOK.text.replace("WALL\n", "\n", 1)), "square"),
        (lambda: parse("PATH" + HOOK.text[4:]), "outermost ring"),
        (
            lambda: parse(
                BRANCH.text.replace("WALL WALL WALL PATH WALL PATH WALL", "WALL WALL WALL PATH PATH PATH WALL")
            ),
            "tree",
        ),
        (lambda: from_picture("##### #S#G# #.#.# #.#.# #####"), "tree"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def distance(maze: Maze) -> int:
    """Breadth-first distance on the raw grid, without the module's own helpers."""
    grid = maze.grid
    (start,) = [(r, c) for r, row in enumerate(grid) for c, token in enumerate(row) if token == START]
    seen, queue = {start: 0}, deque([start])
    while queue:
        r, c = queue.popleft()
        if grid[r][c] == GOAL:
            return seen[r, c]
        for there in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if grid[there[0]][there[1]] != WALL and there not in seen:
                seen[there] = seen[r, c] + 1
                queue.append(there)
    raise AssertionError("goal not reached")


def count_simple_paths(maze: Maze) -> int:
    """All simple paths from START to GOAL, by exhaustive search."""
    found, stack = 0, [(maze.start, frozenset([maze.start]))]
    while stack:
        here, seen = stack.pop()
        found += here == maze.goal
        stack += [(there, seen | {there}) for _, there in maze.neighbours(here) if there not in seen]
    return found
