"""What a recipe does before it starts verl: compose the configuration, estimate the cost, look for what is missing.

    verl-fgrpo preflight --billions 7.62 dry-run +focal=grpo ...   YAML on stdout, the estimate on stderr
    verl-fgrpo preflight compose +focal=grpo ...                   the configuration alone: refused, or cannot be meant
    verl-fgrpo preflight --billions 7.62 check +focal=grpo ...     everything that would stop the run, all at once
    verl-fgrpo preflight --billions 7.62 start +focal=grpo ...     the same, then claims the run folder

Recipes call it: DRY_RUN=1 is dry-run, PREFLIGHT_ONLY=1 is check.
"""

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_fgrpo.core.command import COUNT, command_parser
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.host.contract import RECIPES_VERL
from verl_fgrpo.methods.settings import ALGORITHM_KEYS
from verl_fgrpo.runs import machine
from verl_fgrpo.runs.checkpoints import step_folders, world_size
from verl_fgrpo.runs.configuration import compose_config, implausible
from verl_fgrpo.runs.cost import EVALUATION_SAMPLES, PAPER_PROBLEMS, VALIDATION_PROBLEMS, Estimate, describe, estimate
from verl_fgrpo.runs.inputs import data_problems, local_model, model_problems, parameters, rows
from verl_fgrpo.runs.run_folder import claim, last_checkpoint, trainers_of

#: What makes two runs different experiments. Resuming a run folder with another value of these is refused.
_EXPERIMENT = {
    "algorithm": ("adv_estimator", *ALGORITHM_KEYS, "norm_adv_by_std_in_grpo", "filter_groups.enable"),
    "actor_rollout_ref.actor": (
        *("policy_loss.loss_mode", "policy_loss.focal_gamma", "clip_ratio_low", "clip_ratio_high", "loss_agg_mode"),
        *("entropy_coeff", "use_kl_loss", "kl_loss_coef", "optim.lr", "ppo_mini_batch_size", "ppo_epochs"),
    ),
    "actor_rollout_ref": ("model.path", "rollout.n", "rollout.temperature"),
    "trainer.v1": ("trainer_mode",),
    "data": ("train_files", "train_batch_size", "max_prompt_length", "max_response_length", "seed"),
    "reward": ("custom_reward_function.path", "reward_manager.name"),
}
EXPERIMENT = tuple(f"{section}.{key}" for section, keys in _EXPERIMENT.items() for key in keys)


def findings(config: DictConfig, plan: Estimate, billions: float) -> list[str]:
    """What would stop the run, one sentence each with a remedy; empty if nothing was found. Under a minute."""
    folder = Path(config.trainer.default_local_dir)
    checks: list[Callable[[], list[str]]] = [
        _verl,
        lambda: _packages(config),
        lambda: data_problems(config),
        lambda: model_problems(str(config.actor_rollout_ref.model.path)),
        lambda: machine.disks([_checkpoint_disk(folder, plan)]),
        lambda: _running(folder),
        lambda: _resumable(config),
        lambda: machine.cluster(config),
    ]
    if config.trainer.device == "cuda":
        checks += [lambda: _gpu_machine(config, billions)]
        if not _on_cluster(config):
            checks.append(lambda: machine.gpus(config))
    with ThreadPoolExecutor(len(checks)) as pool:  # several wait for a subprocess or the network
        return [problem for found in pool.map(lambda check: check(), checks) for problem in found]


def _on_cluster(config: DictConfig) -> bool:
    """Whether the GPUs are elsewhere: the head node of a cluster may have none, Ray knows and verl asks it."""
    return int(config.trainer.nnodes) > 1 or os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def _verl() -> list[str]:
    problems = []
    version = importlib.metadata.version("verl")
    if version not in RECIPES_VERL and os.environ.get("ALLOW_UNTESTED_VERL") != "1":
        problems.append(
            f"verl {version} is installed, but the recipes were tested with {', '.join(RECIPES_VERL)}; install one of "
            "these, or run `python -m verl_fgrpo`, which checks every function of verl that is used, and set "
            "ALLOW_UNTESTED_VERL=1"
        )
    plugins = {point.name for point in importlib.metadata.entry_points(group="verl.plugins")}
    modules = os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")
    if "verl_fgrpo" not in plugins and "verl_fgrpo.register" not in modules:
        problems.append("verl_fgrpo is importable but not installed, so verl will not load it; pip install -e .")
    return problems


def _packages(config: DictConfig) -> list[str]:
    setup = "bash scripts/setup_gpu.sh installs the tested set"
    wanted = {"math_verify": "pip install math-verify", "transfer_queue": "pip install TransferQueue"}
    rollout = str(config.actor_rollout_ref.rollout.name)
    if rollout == "vllm":
        wanted["vllm"] = setup
    elif rollout == "sglang":
        wanted["sglang"] = (
            "no set of versions resolves with pip (sglang 0.5.12 pins transformers 5.6.0, which verl 0.9.1 excludes); "
            "use verl's own image verlai/verl:sgl... (docs/gpu.md), or ROLLOUT=vllm"
        )
    if config.trainer.device == "cuda" and not config.actor_rollout_ref.model.override_config:
        wanted["flash_attn"] = (
            f"{setup}, with flash-attn as its second step; or add "
            "+actor_rollout_ref.model.override_config.attn_implementation=sdpa "
            "actor_rollout_ref.model.use_remove_padding=False"
        )
    for package in ("tensorboard", "wandb", "swanlab"):
        if package in config.trainer.logger:
            wanted[package] = f"pip install {package}, or take it out of LOGGER"
    return machine.packages(wanted) + (machine.pins(rollout) if config.trainer.device == "cuda" else [])


def _gpu_machine(config: DictConfig, billions: float) -> list[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    path = str(config.actor_rollout_ref.model.path)
    model = local_model(path)
    tied = bool(model and json.loads((model / "config.json").read_text()).get("tie_word_embeddings"))
    places = [
        ("Ray's object store and the engines' shared memory need", Path("/dev/shm"), 10.0, "docker run --shm-size=32g"),
        ("Ray's session and spilled objects need", Path(os.environ.get("RAY_TMPDIR", "/tmp")), 20.0, "set RAY_TMPDIR"),
    ]
    if model is None and "://" not in path:
        places.append(("the download of the model needs", Path(HF_HUB_CACHE), 2 * billions, "set HF_HOME"))
    return [
        *machine.disks(places),
        *machine.limits(),
        *machine.compiler(),
        *machine.host_memory(config, billions, tied),
    ]


def _checkpoint_disk(folder: Path, plan: Estimate) -> tuple[str, Path, float, str]:
    """Disk still to be paid for: the plan's peak without what the run has written, but at least the next state."""
    written = sum(file.stat().st_size for step in step_folders(folder).values() for file in step.rglob("*.*")) / 1e9
    needed = max(plan.disk_gb - written, plan.state_gb if plan.states else 0.0)
    remedy = "set OUT to a larger disk, or keep weights of fewer steps with WEIGHTS_FREQ"
    return "the checkpoints still need", folder, needed, remedy


def _running(folder: Path) -> list[str]:
    pids = [process.pid for process in trainers_of(folder) if process.pid not in (os.getpid(), os.getppid())]
    if not pids:
        return []
    return [f"process {pids[0]} already trains in {folder}; wait for it, end it, or use another OUT"]


def _resumable(config: DictConfig) -> list[str]:
    """The newest checkpoint was written by as many ranks as will load it."""
    folder = Path(config.trainer.default_local_dir)
    step = last_checkpoint(folder)
    if not step:
        return []
    wrote = world_size(folder / f"global_step_{step}")
    ranks = int(config.trainer.nnodes * config.trainer.n_gpus_per_node)
    if wrote is None:
        return [f"{folder}/global_step_{step} has no state to resume from; restore it, or use another OUT"]
    if wrote != ranks:
        return [
            f"{folder} was trained on {wrote} GPU(s), whose shards only {wrote} can load, but NNODES * GPUS_PER_NODE "
            f"is {ranks}; resume on {wrote}, or use another OUT"
        ]
    return []


def claim_run(config: DictConfig) -> None:
    """Claim the run folder for this experiment and note the whole configuration of this start in config.yaml.

    Raises:
        ValueError: it holds a run of another experiment, or checkpoints that nothing is known about.
    """
    folder = Path(config.trainer.default_local_dir)
    if not (folder / "settings.json").exists() and step_folders(folder):
        raise ValueError(
            f"{folder} holds checkpoints but no settings.json, so nobody knows of which experiment; use another OUT"
        )
    noted = {key: OmegaConf.select(config, key) for key in EXPERIMENT}
    claim(folder, {key: json.dumps(value, default=OmegaConf.to_container) for key, value in noted.items()})
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(config))
    step = last_checkpoint(folder)
    if step:
        print(f"continuing {folder} after step {step}", file=sys.stderr)


def _tell_epoch(config: DictConfig, count: int) -> None:
    per_epoch = count // config.data.train_batch_size
    weights = config.trainer.get("keep_weights_every")
    if weights and weights > 1 and per_epoch != weights:
        print(
            f"note: an epoch of TRAIN_FILE is {per_epoch} steps ({count:,} rows), weights are kept every {weights}; "
            f"SAVE_FREQ and WEIGHTS_FREQ change that",
            file=sys.stderr,
        )


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; 0 if the run may start."""
    parser = command_parser("preflight", __doc__)
    parser.add_argument("--billions", type=float, help="parameters of the model, for the estimate")
    parser.add_argument("--samples", type=COUNT, default=EVALUATION_SAMPLES, help="per problem of the final evaluation")
    parser.add_argument("command", choices=("dry-run", "compose", "check", "start"))
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="arguments of verl.trainer.main_ppo")
    given = parser.parse_args(arguments)

    config = compose_config(given.overrides)
    problems = implausible(config) + (machine.cluster(config) if given.command == "compose" else [])
    if given.command != "compose":
        count, validation = rows(config.data.train_files), rows(config.data.val_files)
        billions = parameters(str(config.actor_rollout_ref.model.path)) or given.billions
        if billions is None:
            parser.error("--billions is missing, and the model is not here to be counted")
        plan = estimate(config, billions, count or PAPER_PROBLEMS, validation or VALIDATION_PROBLEMS, given.samples)
        if given.command == "dry-run" and not problems:
            print(OmegaConf.to_yaml(config))
            print(describe(plan, int(config.trainer.n_gpus_per_node * config.trainer.nnodes)), file=sys.stderr)
        elif given.command != "dry-run":
            problems += findings(config, plan, billions)
        if given.command == "start" and not problems:
            claim_run(config)
            _tell_epoch(config, count or PAPER_PROBLEMS)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if given.command == "check" and not problems:
        print("nothing was found that would stop the run", file=sys.stderr)
    return 1 if problems else 0
