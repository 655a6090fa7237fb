"""Any module of ours can be imported first, in a fresh process, and the estimators are there all the same."""

import os
import pkgutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import verl_fgrpo

MODULES = [
    module.name
    for module in pkgutil.walk_packages(verl_fgrpo.__path__, "verl_fgrpo.")
    if not module.name.endswith("__main__")
]
#: one of each room, and those that people import by hand
FEW = [
    "config",
    "rewards",
    "host.register",
    "runs.data",
    "evaluation.graders",
    "tasks.maze.rewards",
    "theory.tail_miss",
]
REGISTERED = "; from verl.trainer.ppo.core_algos import get_adv_estimator_fn; assert get_adv_estimator_fn('f_grpo')"


def failure(code: str) -> str:
    """What a fresh process says that runs `code`; empty if it succeeds."""
    environment = os.environ | {"RAY_ADDRESS": "local"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return done.stderr[-2000:] if done.returncode else ""


@pytest.mark.parametrize("names", [pytest.param(FEW, id="few"), pytest.param(None, id="all", marks=pytest.mark.full)])
def test_each_module_first(names: list[str] | None) -> None:
    modules = MODULES if names is None else [f"verl_fgrpo.{name}" for name in names]
    assert set(modules) <= set(MODULES) and len(MODULES) > 100
    with ThreadPoolExecutor(2) as threads:
        failed = dict(zip(modules, threads.map(lambda name: failure(f"import {name}"), modules), strict=True))
    assert {name: error for name, error in failed.items() if error} == {}


def test_estimators_are_registered_whatever_came_first() -> None:
    assert failure("from verl_fgrpo.config import FocalPolicyLossConfig" + REGISTERED) == ""
