"""pass@k under its public name; the formulas are in `verl_fgrpo.core.passk`."""

from verl_fgrpo.core.passk import *  # noqa: F403
from verl_fgrpo.core.passk import __all__  # noqa: F401
