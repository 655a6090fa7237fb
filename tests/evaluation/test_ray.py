"""On a real local Ray cluster of two workers: grading gives the pool's verdicts, sampling is planned and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answer_mix import answer_variants, sample_responses
from test_generation import PROBLEMS, make_model
from test_grading import HALF, store_of

from verl_fgrpo.cli import main
from verl_fgrpo.evaluation.backends import VllmRayBackend
from verl_fgrpo.evaluation.generation import Decoding, plan_text, sample_run
from verl_fgrpo.evaluation.problems import save_problems
from verl_fgrpo.evaluation.samples import SampleStore, VerdictStore, key_of, sample_seed

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_grading_gives_the_verdicts_of_the_pool_and_a_killed_driver_resumes(cluster: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    responses = sample_responses("Let $x = 3$.", answer_variants(HALF.answers[0], ["3", "x^2"], rng, 20), 300, rng)
    responses[7] = "$9^{9^{9^9}}$"  # the limits act there too
    for name in ("pool", "ray"):
        store_of(tmp_path / name / "samples", responses)
        save_problems([HALF], tmp_path / name / "problems.jsonl")
    assert main(["eval", "grade", "--run", str(tmp_path / "pool"), "--seconds", "2", "--workers", "1"]) == 0

    command = [sys.executable, "-m", "verl_fgrpo.cli", "eval", "grade", "--ray", "--seconds", "2"]
    command += ["--run", str(tmp_path / "ray")]
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "ray" / "verdicts" / "parts").glob("*.gz")) and driver.poll() is None:
        time.sleep(0.05)
    time.sleep(1)  # wherever it is now
    driver.kill()
    driver.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdicts = {}
    for name in ("pool", "ray"):
        rows = VerdictStore(tmp_path / name / "verdicts").read()
        verdicts[name] = {key_of(row): (row.verdict, row.answer, row.digest) for row in rows}
    assert len(verdicts["ray"]) == 300 and verdicts["ray"] == verdicts["pool"]
    assert verdicts["ray"][(*HALF.key, 7)][0] == "timeout"


def test_sampling_by_ray_data_is_planned_resumed_and_topped_up(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data itself hands the requests to two engines; the first session ends in the middle."""

    class Engine:
        """Stands for vLLM's stage: reads and writes the columns that it does."""

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            length = row["sampling_params"]["seed"] % row["sampling_params"]["max_tokens"] + 1
            text = f"text {row['sampling_params']['seed']} {os.getpid()}"
            return {"key": row["key"], "seed": row["seed"], "generated_text": text, "num_generated_tokens": length}

    monkeypatch.setattr(
        "ray.data.llm.build_processor",
        lambda config, preprocess: lambda rows: rows.map(preprocess).map(Engine, concurrency=config.concurrency),
    )
    monkeypatch.setattr("ray.cluster_resources", lambda: {"GPU": 2.0, "CPU": 2.0})
    backend = VllmRayBackend(make_model(tmp_path / "tiny", 0), batch_size=4)
    run, decoding = tmp_path / "run", Decoding(max_tokens=6, seed=1)

    class EndsEarly(VllmRayBackend):
        def generate(self, requests: Any, decoding: Decoding) -> Any:
            for number, item in enumerate(backend.generate(requests, decoding)):
                if number == 15:
                    raise RuntimeError("a node is gone")
                yield item

    with pytest.raises(RuntimeError, match="a node is gone"):
        sample_run(run, PROBLEMS, EndsEarly(backend.folder), 20, decoding, "none", progress=False)
    before = {key_of(row): row for row in SampleStore(run / "samples").read()}
    assert len(before) == 15
    assert f"already there: 15; to draw: {20 * len(PROBLEMS) - 15} " in plan_text(run, PROBLEMS, 20, decoding)
    for wanted in (20, 24):
        rows = list(sample_run(run, PROBLEMS, backend, wanted, decoding, "none", progress=False).read())
        found = {key_of(row): row for row in rows}
        assert len(rows) == len(found) == wanted * len(PROBLEMS) and before.items() <= found.items()
    assert all(row.response.startswith(f"text {sample_seed(1, *key)} ") for key, row in found.items())
    assert len({row.response.split()[2] for row in found.values()}) >= 2  # two workers have answered
