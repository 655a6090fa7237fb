"""What became of the registration with verl in this process, and what is remembered of its runs."""

import weakref
from dataclasses import dataclass, field
from typing import Any

from verl_fgrpo.methods.context import Run


@dataclass
class Registration:
    """What `register.py` did; the doctor shows it."""

    loaded: bool = False  # whether verl loaded the plugin
    failures: list[str] = field(default_factory=list)  # tracebacks of what went wrong
    # names of ours that another package holds, and who holds them
    clashes: dict[str, str] = field(default_factory=dict)


registration = Registration()

_runs: dict[int, tuple["weakref.ref[Any]", Run]] = {}


def run_of(config: Any) -> Run:
    """What is remembered of the run that this very configuration object belongs to; nothing for a plain dict."""
    try:
        reference = weakref.ref(config)
    except TypeError:
        return Run()
    entry = _runs.get(id(config))
    if entry is None or entry[0]() is not config:  # ids are given anew
        entry = _runs[id(config)] = (reference, Run())
    return entry[1]
