"""The maze vocabulary: ten words. Actions are ordinary tokens, because verl decodes without special ones."""

from verl_fgrpo.tasks.common.tokenizer import END, WordTokenizer
from verl_fgrpo.tasks.maze.mazes import GOAL, MOVES, PATH, ROW_SEPARATOR, START, WALL

TOKENIZER = WordTokenizer((WALL, PATH, START, GOAL, ROW_SEPARATOR, *MOVES, END))
