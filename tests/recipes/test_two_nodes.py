"""A run on a Ray cluster of two nodes (both on this machine): the plugin in workers of both, metrics in one place, and
after a killed node and a killed driver the run goes on from its newest checkpoint and ends at the same step.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_math import write_data, write_model

pytestmark = [pytest.mark.full, pytest.mark.verl_start]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5

#: run on each node: does a worker there know our estimators and the CPU platform?
PLUGIN = """
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False)
@ray.remote
def known():
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
    from verl.plugin.platform import get_platform
    return "f_grpo" in ADV_ESTIMATOR_REGISTRY, get_platform().device_name
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
where = [known.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes]
print(ray.get(where))
"""


@pytest.fixture
def cluster(monkeypatch):
    """Head and one worker node, each with one logical GPU; their raylets inherit this environment."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    node = {"num_cpus": 16, "num_gpus": 1, "object_store_memory": 2**28, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.settings = {key: node[key] for key in ("num_cpus", "num_gpus", "object_store_memory")}
    made.worker = made.add_node(**made.settings)
    yield made
    made.shutdown()


def start(tmp_path, address):
    settings = {
        "PYTHON": sys.executable, "DEVICE": "cpu", "NNODES": "2", "RAY_ADDRESS": address, "TOTAL_STEPS": str(STEPS),
        "MODEL_PATH": str(tmp_path / "model"), "DATA_DIR": str(tmp_path / "data"), "OUT": str(tmp_path / "run"),
        "TRAIN_BATCH_SIZE": "8", "MINI_BATCH_SIZE": "4", "MAX_PROMPT_LENGTH": "320", "MAX_RESPONSE_LENGTH": "48",
        "SAVE_FREQ": "1", "WEIGHTS_FREQ": "100", "TEST_FREQ": "-1", "VAL_BEFORE_TRAIN": "0", "LOGGER": "[console,file]",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    output = (tmp_path / f"output{time.monotonic_ns()}").open("w")
    return subprocess.Popen(
        ["bash", str(ROOT / "recipes" / "run_fgrpo_qwen7b.sh")],
        env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def saved(tmp_path):
    pointer = tmp_path / "run" / "latest_checkpointed_iteration.txt"
    return int(pointer.read_text() or 0) if pointer.exists() else 0


def wait_for(step, process, tmp_path):
    end_of_patience = time.monotonic() + 1800  # only ends what hangs
    while saved(tmp_path) < step:
        assert time.monotonic() < end_of_patience, log(tmp_path)
        assert process.poll() is None, log(tmp_path)
        time.sleep(0.5)


def log(tmp_path):
    return sorted(tmp_path.glob("output*"))[-1].read_text()[-4000:]


def end(process):
    """Kill -9 of driver and shell."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_node_and_a_killed_driver_cost_no_finished_step(tmp_path, cluster):
    write_data(tmp_path / "data", write_model(tmp_path / "model"))
    known = subprocess.run(
        [sys.executable, "-c", PLUGIN],
        env=os.environ | {"RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
    )
    assert known.stdout.strip() == "[(True, 'cpu'), (True, 'cpu')]", known.stderr[-3000:]

    process = start(tmp_path, cluster.address)
    wait_for(1, process, tmp_path)
    cluster.remove_node(cluster.worker, allow_graceful=False)
    before = saved(tmp_path)
    for _ in range(240):  # verl ends by itself when a worker is gone; a hanging driver is killed as a user would
        if process.poll() is not None:
            break
        time.sleep(0.5)
    print("verl ended by itself" if process.poll() is not None else "verl did not end by itself")
    if process.poll() is None:
        end(process)
    assert process.returncode != 0 and saved(tmp_path) >= before

    cluster.worker = cluster.add_node(**cluster.settings)
    kept = saved(tmp_path)
    process = start(tmp_path, cluster.address)
    wait_for(kept + 1, process, tmp_path)
    end(process)
    assert saved(tmp_path) == kept + 1

    process = start(tmp_path, cluster.address)
    assert process.wait(timeout=3600) == 0, log(tmp_path)
    run = tmp_path / "run"
    assert saved(tmp_path) == STEPS
    shards = {file.name for file in (run / f"global_step_{STEPS}" / "actor").glob("model_*.pt")}
    assert shards == {f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1)}
    files = sorted((run / "logs").glob("*.jsonl"))  # in one place, whichever node the trainer ran on
    steps = [[json.loads(line)["step"] for line in file.open()] for file in files]
    assert len(files) == 3
    # the last start went on after the newest checkpoint; a start that was killed between a checkpoint and its line in
    # the log has the step and not the line
    assert steps[2] == list(range(kept + 2, STEPS + 1)) and all(step > kept for step in steps[1])
