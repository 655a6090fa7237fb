"""Grading over a Ray cluster: the verdicts of the pool, with the same limits; a killed driver resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from answer_mix import answer_variants, sample_responses
from test_grading import HALF, store_of

from verl_fgrpo.cli import main
from verl_fgrpo.evaluation.problems import save_problems
from verl_fgrpo.evaluation.samples import VerdictStore, key_of

COMMAND = ["eval", "grade", "--ray", "--seconds", "2", "--run"]


@pytest.mark.full
def test_ray_gives_the_verdicts_of_the_pool_and_resumes(tmp_path: Path) -> None:
    responses = sample_responses("Let $x = 3$.", answer_variants(HALF.answers[0], ["3", "x^2"], rng(), 20), 300, rng())
    responses[7] = "$9^{9^{9^9}}$"  # a limit acts there too
    verdicts = {}
    for name in ("pool", "ray"):
        store_of(tmp_path / name / "samples", responses)
        save_problems([HALF], tmp_path / name / "problems.jsonl")
    assert main(["eval", "grade", "--run", str(tmp_path / "pool"), "--seconds", "2", "--workers", "1"]) == 0

    two_cpus = (
        "import ray, runpy, sys; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False);"
        "sys.argv = ['verl-fgrpo', *sys.argv[1:]]; runpy.run_module('verl_fgrpo.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", two_cpus, *COMMAND, str(tmp_path / "ray")]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    parts = tmp_path / "ray" / "verdicts" / "parts"
    while not list(parts.glob("*.gz")) and first.poll() is None:
        time.sleep(0.05)
    time.sleep(2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("pool", "ray"):
        rows = VerdictStore(tmp_path / name / "verdicts").read()
        verdicts[name] = {key_of(row): (row.verdict, row.answer, row.digest) for row in rows}
    assert len(verdicts["ray"]) == 300 and verdicts["ray"] == verdicts["pool"]
    assert verdicts["ray"][(*HALF.key, 7)][0] == "timeout"


def rng() -> np.random.Generator:
    return np.random.default_rng(3)
