"""Tests start a Ray of their own, also where another cluster runs on the machine; unless RAY_ADDRESS names one."""

import os
import signal

import pytest
from hypothesis import settings

os.environ.setdefault("RAY_ADDRESS", "local")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # `... &` in a script; commands under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")


@pytest.fixture(scope="session")
def mazes(tmp_path_factory):
    """Small mazes and a start model that solves some of them: the folder and its manifest."""
    from verl_fgrpo.tasks.common.start_model import SftSettings
    from verl_fgrpo.tasks.maze.prepare import MazeSettings, prepare

    folder = tmp_path_factory.mktemp("mazes")
    sft = SftSettings(steps=250, seed=3)
    return folder, prepare(folder, MazeSettings(size=7, train=1500, heldout=8, seed=3, sft=sft), progress=False)
