"""Tail miss under its public name; the formulas are in `verl_fgrpo.core.tail_miss`."""

from verl_fgrpo.core.tail_miss import *  # noqa: F403
from verl_fgrpo.core.tail_miss import __all__  # noqa: F401
