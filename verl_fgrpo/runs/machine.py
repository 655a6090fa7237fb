"""Is this machine fit for a run? GPUs and driver, installed packages, host memory, disks, limits, compiler, Ray.

Each check returns sentences with a remedy, none if nothing was found. What could hang or crash runs in a subprocess.
`python -m verl_fgrpo.runs.machine PACKAGE ...` imports each in a process of its own (scripts/setup_gpu.sh).
"""

import importlib.metadata
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from verl_fgrpo.evaluation.ray_grading import unreachable

PROBE_SECONDS = 50.0

#: smallest Linux driver of each CUDA major version (CUDA release notes, minor-version compatibility)
DRIVERS = {"12": (525, 60), "13": (580, 65)}

#: one small kernel on every GPU, and what is free there
_GPU_PROBE = """
import json, torch
report = {"cuda": torch.version.cuda, "torch": torch.__version__, "gpus": [], "error": None}
try:
    for i in range(torch.cuda.device_count()):
        device = f"cuda:{i}"
        assert float((torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum()) == 64**3
        report["gpus"].append([torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)])
except Exception as error:
    report["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(report))
"""


#: exit code 99: not installed
_IMPORT = """
import importlib, importlib.util, sys
sys.exit(99) if importlib.util.find_spec(sys.argv[1]) is None else importlib.import_module(sys.argv[1])
"""


def _python(code: str, *arguments: str) -> tuple[int | None, str, str]:
    """(exit code, stdout, stderr) of this interpreter running `code`; code None if it takes too long."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr


def gpus(config: DictConfig) -> list[str]:
    """Enough GPUs, a driver that is new enough, a kernel that runs on each, and memory that nobody else holds."""
    wanted = int(config.trainer.n_gpus_per_node)
    code, out, err = _python(_GPU_PROBE)
    if code is None:
        return [f"a first kernel on the GPUs took over {PROBE_SECONDS:.0f} s; look at nvidia-smi for a GPU that hangs"]
    if code != 0:
        last = (err.strip().splitlines() or ["no output"])[-1]
        return [f"torch does not start ({last}); install requirements/gpu-py312.lock (bash scripts/setup_gpu.sh)"]
    found = json.loads(out.strip().splitlines()[-1])
    problems = _driver(found["cuda"], found["torch"], len(found["gpus"]))
    if found["error"] and not problems:
        problems.append(f"GPU {len(found['gpus'])} fails at a first small kernel ({found['error']}); see nvidia-smi")
    if not problems and len(found["gpus"]) < wanted:
        problems.append(
            f"this machine has {len(found['gpus'])} GPU(s) that torch can use, but GPUS_PER_NODE is {wanted}; lower it "
            "(for one GPU also OFFLOAD=1), or start Ray on a cluster and set RAY_ADDRESS. To see the configuration "
            "alone: DRY_RUN=1"
        )
    for i, (name, free, total) in enumerate(found["gpus"][:wanted]):
        if free < 0.9 * total:
            problems.append(
                f"GPU {i} ({name}) has {free / 1e9:.0f} of {total / 1e9:.0f} GB free: another process uses it; end it "
                "(nvidia-smi names it) or choose others with CUDA_VISIBLE_DEVICES"
            )
    return problems


def _driver(cuda: str | None, torch: str, usable: int) -> list[str]:
    """What nvidia-smi says of the driver, where torch can use no GPU or the driver is too old for its CUDA."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        lines = done.stdout.split() if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        lines = []
    if not lines:
        return []
    if cuda is None:
        return [f"torch {torch} is built without CUDA; install requirements/gpu-py312.lock (bash scripts/setup_gpu.sh)"]
    needed = DRIVERS.get(cuda.split(".")[0])
    version = tuple(int(part) for part in re.findall(r"\d+", lines[0])[:2])
    if needed and version < needed:
        return [
            f"the GPU driver is {lines[0]}, but torch {torch} with CUDA {cuda} needs {needed[0]}.{needed[1]} or later; "
            "update the driver, or use a container image with a CUDA that the driver knows"
        ]
    if usable < len(lines) and usable == 0:
        return ["nvidia-smi sees GPUs, torch none; look at CUDA_VISIBLE_DEVICES, and at --gpus all of a container"]
    return []


def pins(rollout: str) -> list[str]:
    """Installed packages that differ from what the installed verl pins for this rollout."""
    from packaging.requirements import Requirement

    problems = []
    for line in importlib.metadata.requires("verl") or []:
        wanted = Requirement(line)
        if not (wanted.marker and wanted.marker.evaluate({"extra": rollout})) or wanted.extras or not wanted.specifier:
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # told where the package is imported
        if not wanted.specifier.contains(version, prereleases=True):
            problems.append(
                f"{wanted.name} {version} is installed, but verl pins {wanted.name}{wanted.specifier} for {rollout}; "
                "install requirements/gpu-py312.lock (bash scripts/setup_gpu.sh)"
            )
    return problems


def packages(wanted: dict[str, str]) -> list[str]:
    """Packages that are missing or do not import, each in a process of its own; `wanted` is name -> remedy."""
    running = {
        name: subprocess.Popen([sys.executable, "-c", _IMPORT, name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for name in wanted
    }
    problems = []
    for name, process in running.items():
        try:
            _, err = process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue  # slow is not broken
        if process.returncode == 99:
            problems.append(f"the package {name} is missing: {wanted[name]}")
        elif process.returncode != 0:
            last = (err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            problems.append(f"the package {name} does not import ({last[:200]}): {wanted[name]}")
    return problems


def host_memory(config: DictConfig, billions: float, tied: bool) -> list[str]:
    """Host memory for loading the model, and for OFFLOAD.

    Rank 0 of a node loads the parameters in fp32; with tied embeddings verl has every rank load them.
    """
    import psutil

    ranks = int(config.trainer.n_gpus_per_node)
    offload = bool(config.actor_rollout_ref.actor.fsdp_config.optimizer_offload)
    needed = 4 * billions * (ranks if tied else 1) + offload * 12 * billions / int(config.trainer.nnodes) + 16
    free = psutil.virtual_memory().available / 1e9
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        free = min(free, int(text) / 1e9)
    if free >= needed:
        return []
    why = f"{ranks} ranks load it in fp32, its embeddings being tied" if tied else "rank 0 loads it in fp32"
    if offload:
        why += ", and OFFLOAD keeps optimiser and parameters there"
    remedy = ", or OFFLOAD=0" if offload else ", or fewer GPUs a node" if tied else ""
    return [
        f"{free:,.0f} GB of host memory are free, but about {needed:,.0f} GB are needed ({why}); use a machine with "
        f"more{remedy}"
    ]


def disks(places: Sequence[tuple[str, Path, float, str]]) -> list[str]:
    """Places (what for, folder, GB needed, remedy) without enough room."""
    problems = []
    for purpose, folder, needed, remedy in places:
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed:
            problems.append(f"{folder} has {free:,.0f} GB free, but {purpose} about {needed:,.0f} GB; {remedy}")
    return problems


def limits() -> list[str]:
    """Open files: Ray, verl's servers and TransferQueue hold thousands."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= 16_384:
        return []
    return [
        f"ulimit -Hn is {hard}, but Ray and verl hold thousands of open files; raise it to 65536 (limits.conf, or "
        "--ulimit nofile=65536 of a container)"
    ]


def compiler() -> list[str]:
    """A C compiler and Python.h, with which Triton builds its launchers at the first step."""
    problems = []
    if not (os.environ.get("CC") or any(shutil.which(name) for name in ("gcc", "clang", "cc"))):
        problems.append("there is no C compiler, which Triton needs at the first step; apt-get install gcc, or set CC")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        problems.append(f"{header} is missing, which Triton needs; apt-get install python{version}-dev")
    return problems


def cluster(config: DictConfig) -> list[str]:
    """The Ray cluster that RAY_ADDRESS names answers; a run on several machines names one."""
    address = os.environ.get("RAY_ADDRESS", "local")
    if address in ("", "local"):
        if int(config.trainer.nnodes) == 1:
            return []
        return [
            f"NNODES is {config.trainer.nnodes}, but RAY_ADDRESS names no cluster; start Ray on every node and set it "
            "(docs/gpu.md, More than one machine)"
        ]
    return [told] if (told := unreachable(address)) else []


def main(names: Sequence[str]) -> int:
    """Import each package; 0 if all do."""
    problems = packages(dict.fromkeys(names, "install it again (bash scripts/setup_gpu.sh)"))
    print("\n".join(problems) or f"{', '.join(names)}: all import", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
