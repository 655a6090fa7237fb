"""One small trained start model for all tests of the folder."""

import numpy as np
import pytest

from verl_fgrpo.tasks.common.model import ModelSize
from verl_fgrpo.tasks.common.start_model import SftSettings
from verl_fgrpo.tasks.maze.prepare import MazeSettings, prepare

TINY = ModelSize(layers=1, hidden=32, mlp=64, heads=2, kv_heads=1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def settings():
    # size 5 has 48 mazes, which a tiny model can learn
    return MazeSettings(
        5, train=32, heldout=16, sft=SftSettings(steps=80, batch_size=16, learning_rate=5e-3, model=TINY)
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory, settings):
    path = tmp_path_factory.mktemp("maze") / "prepared"
    prepare(path, settings, progress=False)
    return path


@pytest.fixture
def rng():
    return np.random.default_rng(0)
