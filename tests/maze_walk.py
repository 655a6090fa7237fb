"""Whether an answer solves a maze, by walking it: what the reward's comparison of texts must agree with."""

from collections.abc import Sequence

from verl_fgrpo.tasks.maze.mazes import Maze, walk


def is_correct_path(maze: Maze, actions: Sequence[str]) -> bool:
    """Whether `actions` is the target: a walk that hits no wall, visits no position twice and ends on GOAL.

    In a perfect maze there is one such walk, so this equals `tuple(actions) == solve(maze)`. A detour that comes back
    and then reaches the goal is wrong: the paper has one target action sequence a maze (arXiv 2602.06717, appendix
    K).
    """
    positions = walk(maze, actions)
    complete = len(positions) == len(actions) + 1
    return complete and positions[-1] == maze.goal and len(set(positions)) == len(positions)
