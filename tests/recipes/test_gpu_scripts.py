"""The scripts that need a GPU or Slurm, as far as they go without."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(script, *arguments, **variables):
    return subprocess.run(
        ["bash", str(ROOT / script), *arguments], env=os.environ | variables, cwd=ROOT, capture_output=True, text=True
    )


def test_the_gpu_check_says_that_there_is_no_gpu(tmp_path):
    done = run("scripts/gpu_check.sh", str(tmp_path / "page.md"), PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1 and "sees no GPU; bash scripts/setup_gpu.sh" in done.stderr


@pytest.fixture
def slurm(tmp_path):
    """Fakes of Slurm's and Ray's commands; every job step and every ray command is noted in tmp_path/calls."""
    calls = tmp_path / "calls"
    executable(tmp_path / "bin/scontrol", "#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    executable(tmp_path / "bin/hostname", "#!/bin/sh\necho 10.0.0.1 fe80::1\n")
    executable(
        tmp_path / "bin/srun",
        f'#!/bin/bash\nwhile [[ $1 == -* ]]; do [ "$1" = -w ] && {{ where=$2; shift; }}; shift; done\n'
        f'export FAKE_NODE=$where; [ "$1" = hostname ] || echo "step on $where" >>{calls}\nexec "$@"\n',
    )
    executable(tmp_path / "venv/bin/ray", f'#!/bin/sh\necho "$FAKE_NODE: ray $*" >>{calls}\n')
    executable(tmp_path / "venv/bin/python", "#!/bin/sh\nexit 0\n")  # all GPUs are there
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "VENV": str(tmp_path / "venv"), "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "PRINT_ARGUMENTS": "1",
    }, calls  # fmt: skip


def test_slurm_starts_ray_on_every_node_and_the_recipe_on_the_first(slurm):
    variables, calls = slurm
    done = run("recipes/slurm/train.sbatch", "fgrpo_qwen7b", "trainer.total_epochs=3", **variables)
    assert done.returncode == 0, done.stderr
    while "node2: ray start" not in calls.read_text():  # a job step of its own
        time.sleep(0.05)
    noted = calls.read_text()
    assert "node1: ray start --head --block --node-ip-address=10.0.0.1 --port=6379 --num-gpus=8" in noted
    assert "node2: ray health-check --address 10.0.0.1:6379" in noted
    assert "node2: ray start --block --address=10.0.0.1:6379 --num-gpus=8" in noted
    arguments = done.stdout.splitlines()  # of the recipe, which found RAY_ADDRESS and both nodes
    assert {"trainer.nnodes=2", "trainer.n_gpus_per_node=8", "trainer.total_epochs=3"} <= set(arguments)


@pytest.mark.parametrize(
    ("recipe", "changed", "message"),
    [
        ("fgrpo_qwen70b", {}, "recipes/run_fgrpo_qwen70b.sh is not in"),
        ("fgrpo_qwen7b", {"VENV": "/nowhere"}, "VENV is '/nowhere', but has no bin/python"),
    ],
)
def test_slurm_refuses_what_is_not_there(slurm, recipe, changed, message):
    variables, _ = slurm
    done = run("recipes/slurm/train.sbatch", recipe, **{**variables, **changed})
    assert done.returncode != 0 and message in done.stderr
