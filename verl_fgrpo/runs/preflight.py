"""What a recipe does before it starts verl: compose the configuration, estimate the cost, look for what is missing.

    python -m verl_fgrpo.runs.preflight --billions 7.62 dry-run +focal=grpo ...   YAML on stdout, the estimate on stderr
    python -m verl_fgrpo.runs.preflight --billions 7.62 start +focal=grpo ...     checks, then claims the run folder

Nothing here imports verl, which takes longer than all the checks together.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.host.contract import RECIPES_VERL
from verl_fgrpo.runs.run_folder import claim, last_checkpoint

__all__ = ["EXPERIMENT", "Estimate", "claim_run", "compose_config", "estimate", "main", "missing"]

PAPER_PROBLEMS = 39_202  # arXiv 2602.06717, L.1

#: What makes two runs different experiments. Resuming a run folder with another value of these is refused.
EXPERIMENT = (
    "algorithm.adv_estimator",
    "algorithm.focal_gamma",
    "algorithm.focal_success_threshold",
    "algorithm.norm_adv_by_std_in_grpo",
    "algorithm.filter_groups.enable",
    "actor_rollout_ref.actor.policy_loss.loss_mode",
    "actor_rollout_ref.actor.policy_loss.focal_gamma",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "trainer.v1.trainer_mode",
    "data.train_files",
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.seed",
    "reward.custom_reward_function.path",
    "reward.reward_manager.name",
)


def compose_config(arguments: Sequence[str]) -> DictConfig:
    """The configuration `python -m verl.trainer.main_ppo ARGUMENTS` would compose, from the installed verl's own files.

    Raises:
        ModuleNotFoundError: no verl.
        ValueError: Hydra refuses an argument (unknown key, bad value).
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("verl is not installed in this environment: pip install 'verl>=0.9.1,<0.10'")
    folder = Path(next(iter(spec.submodule_search_locations))) / "trainer" / "config"
    try:
        with initialize_config_dir(str(folder), version_base=None):
            search_path = "hydra.searchpath=[pkg://verl_fgrpo.presets]"  # what our plugin does while verl is imported
            config: DictConfig = compose("ppo_trainer", overrides=[*arguments, search_path])
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"verl's configuration refuses the arguments: {error}") from error
    return config


@dataclass(frozen=True)
class Estimate:
    """What a run costs, computed from stated assumptions; nothing in it was measured.

    Attributes:
        steps: optimisation steps of `rollouts` rollouts each.
        checkpoints: kept at the same time at most.
        checkpoint_gb: size of one: fp32 parameters and both Adam moments (12 bytes a parameter), bf16 copy (2).
        generation_hours, training_hours, validation_hours: GPU hours.
        assumptions: one line for people.
    """

    steps: int
    rollouts: int
    checkpoints: int
    checkpoint_gb: float
    generation_hours: float
    training_hours: float
    validation_hours: float
    assumptions: str

    @property
    def gpu_hours(self) -> float:
        return self.generation_hours + self.training_hours + self.validation_hours

    @property
    def disk_gb(self) -> float:
        return self.checkpoints * self.checkpoint_gb


RESPONSE_SHARE = 0.25  # mean response length as a share of the limit
PROMPT_TOKENS = 200  # mean
GENERATION_RATE = 20_000.0  # tokens per second and GPU for a model of 1 billion parameters; inverse in the size
TRAINING_FLOPS = 0.35 * 989e12  # 35 % of an H100's dense bf16 peak
VALIDATION_PROBLEMS = 1_546  # the six math benchmarks


def estimate(
    config: DictConfig, billions: float, problems: int = PAPER_PROBLEMS, validation: int | None = None
) -> Estimate:
    """GPU hours and disk of a run.

    Generation: tokens / rate. Training: 8 FLOPs per parameter and token (forward, backward, recomputed forward) and 2
    for the old log-probs, 2 more for a reference model; attention is left out.

    Args:
        config: composed configuration.
        billions: parameters of the model.
        problems: rows of the training file.
        validation: rows of the validation file; default the six math benchmarks.
    """
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    per_epoch = max(problems // config.data.train_batch_size, 1)
    steps = int(trainer.total_training_steps or per_epoch * trainer.total_epochs)
    rollouts = int(config.data.train_batch_size * rollout.n)
    response = RESPONSE_SHARE * config.data.max_response_length
    tokens = steps * rollouts * (PROMPT_TOKENS + response)
    rate = GENERATION_RATE / billions
    flops = 10 + 2 * bool(config.actor_rollout_ref.actor.use_kl_loss)
    validations = bool(trainer.val_before_train) + (steps // trainer.test_freq if trainer.test_freq > 0 else 0)
    samples = validations * (VALIDATION_PROBLEMS if validation is None else validation) * rollout.val_kwargs.n
    checkpoints = -(-steps // trainer.save_freq) if trainer.save_freq > 0 else 0
    if trainer.max_actor_ckpt_to_keep:
        checkpoints = min(checkpoints, int(trainer.max_actor_ckpt_to_keep))
    return Estimate(
        steps=steps,
        rollouts=rollouts,
        checkpoints=checkpoints,
        checkpoint_gb=14 * billions,
        generation_hours=steps * rollouts * response / rate / 3600,
        training_hours=flops * billions * 1e9 * tokens / TRAINING_FLOPS / 3600,
        validation_hours=samples * response / rate / 3600,
        assumptions=(
            f"{problems:,} problems, {billions:g} billion parameters, mean response {response:,.0f} tokens "
            f"({RESPONSE_SHARE:.0%} of the limit), {rate:,.0f} tokens generated per second and GPU, training at "
            f"{TRAINING_FLOPS / 1e12:.0f} TFLOP/s and GPU (35% of an H100's bf16 peak)"
        ),
    )


def describe(plan: Estimate, gpus: int) -> str:
    """The estimate as text."""
    return (
        "estimate, from assumptions and not from a measurement:\n"
        f"  {plan.steps:,} steps of {plan.rollouts:,} rollouts\n"
        f"  {plan.gpu_hours:,.0f} GPU hours: generation {plan.generation_hours:,.0f}, training "
        f"{plan.training_hours:,.0f}, validation {plan.validation_hours:,.0f}; "
        f"{plan.gpu_hours / gpus:,.0f} h on {gpus} GPU(s)\n"
        f"  {plan.disk_gb:,.0f} GB of disk: {plan.checkpoints} checkpoints of {plan.checkpoint_gb:,.0f} GB "
        "(parameters, optimiser, bf16 copy)\n"
        f"  assumed: {plan.assumptions}"
    )


def missing(config: DictConfig, disk_gb: float) -> list[str]:
    """What would stop the run, one sentence each with a remedy; empty if nothing was found. Takes seconds."""
    checks: list[Callable[[], list[str]]] = [
        lambda: _versions(),
        lambda: _packages(config),
        lambda: _data(config),
        lambda: _model(str(config.actor_rollout_ref.model.path)),
        lambda: _disk(Path(config.trainer.default_local_dir), disk_gb),
        lambda: _gpus(config),
        lambda: _running(Path(config.trainer.default_local_dir)),
    ]
    return [problem for check in checks for problem in check()]


def _versions() -> list[str]:
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
    wanted = {"math_verify": "pip install math-verify"}
    rollout = str(config.actor_rollout_ref.rollout.name)
    if rollout in ("vllm", "sglang"):
        wanted[rollout] = f"pip install 'verl[{rollout}]', or ROLLOUT={'sglang' if rollout == 'vllm' else 'vllm'}"
    if config.trainer.device == "cuda" and not config.actor_rollout_ref.model.override_config:
        wanted["flash_attn"] = (
            "pip install flash-attn, or add "
            "+actor_rollout_ref.model.override_config.attn_implementation=sdpa "
            "actor_rollout_ref.model.use_remove_padding=False"
        )
    for logger, package in (("tensorboard", "tensorboard"), ("wandb", "wandb"), ("swanlab", "swanlab")):
        if logger in config.trainer.logger:
            wanted[package] = f"pip install {package}, or take it out of LOGGER"
    return [
        f"the package {name} is missing: {remedy}"
        for name, remedy in wanted.items()
        if importlib.util.find_spec(name) is None
    ]


def _files(value: Any) -> list[Path]:
    return [Path(str(file)).expanduser() for file in ([value] if isinstance(value, str) else value)]


def rows(value: Any) -> int | None:
    """Rows of the parquet files, from their headers; None if one is not there."""
    import pyarrow.parquet as pq

    files = _files(value)
    return None if not all(file.is_file() for file in files) else sum(pq.read_metadata(file).num_rows for file in files)


def _data(config: DictConfig) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    problems = []
    for name, value in (("TRAIN_FILE", config.data.train_files), ("VAL_FILE", config.data.val_files)):
        for file in _files(value):
            if "://" in str(value):
                continue
            if not file.is_file():
                problems.append(f"{name} {file} is missing: make it with verl-fgrpo data train (see --help)")
                continue
            try:
                columns = set(pq.read_schema(file).names)
            except (OSError, pa.ArrowInvalid) as error:
                problems.append(f"{name} {file} is not a readable parquet file ({error}); make it again")
                continue
            if absent := sorted({"prompt", "data_source", "reward_model"} - columns):
                problems.append(f"{name} {file} lacks the columns {absent}; make it with verl-fgrpo data train")
    if not problems and (count := rows(config.data.train_files)) is not None and count < config.data.train_batch_size:
        problems.append(
            f"TRAIN_FILE has {count} rows, fewer than TRAIN_BATCH_SIZE={config.data.train_batch_size}, so there would "
            "be no step; lower TRAIN_BATCH_SIZE or give more data"
        )
    return problems


def _model(path: str) -> list[str]:
    if "://" in path:
        return []
    local = Path(path).expanduser()
    if local.exists() or path.startswith(("/", ".", "~")) or path.count("/") != 1:
        if not (local / "config.json").is_file():
            return [f"MODEL_PATH {path} has no config.json; give the folder of a Hugging Face model or a hub id"]
        if not any(local.glob("*.safetensors")) and not any(local.glob("*.bin")):
            return [f"MODEL_PATH {path} has no weights (*.safetensors); download the model completely"]
        return []
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(path, "config.json"), str):
        return []
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return [
            f"MODEL_PATH {path} is not in the local cache and HF_HUB_OFFLINE=1; download it first: hf download {path}"
        ]
    try:
        HfApi().model_info(path, timeout=5)
    except Exception as error:
        return [
            f"MODEL_PATH {path} is not in the local cache and the hub does not give it ({type(error).__name__}); check "
            f"the name, log in for a gated model (hf auth login), or download it elsewhere (hf download {path})"
        ]
    return []


def _disk(folder: Path, needed_gb: float) -> list[str]:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free >= needed_gb:
        return []
    return [
        f"{folder} has {free:,.0f} GB free, but the checkpoints need about {needed_gb:,.0f} GB; set OUT to a larger "
        "disk, KEEP_CHECKPOINTS=2, or a larger SAVE_FREQ"
    ]


def _gpus(config: DictConfig) -> list[str]:
    wanted = int(config.trainer.n_gpus_per_node)
    if config.trainer.device != "cuda" or os.environ.get("RAY_ADDRESS") or int(config.trainer.nnodes) > 1:
        return []  # a cluster's head node may have none; Ray knows, and verl asks it
    import torch

    found = torch.cuda.device_count()
    if found >= wanted:
        return []
    return [
        f"this machine has {found} GPU(s) that torch can use, but GPUS_PER_NODE is {wanted}; lower it (for one GPU "
        "also OFFLOAD=True), or start Ray on a cluster and set RAY_ADDRESS. To see the configuration alone: DRY_RUN=1"
    ]


def _running(folder: Path) -> list[str]:
    import psutil

    marker = f"trainer.default_local_dir={folder}"
    pids = [process.pid for process in psutil.process_iter(["cmdline"]) if marker in (process.info["cmdline"] or [])]
    pids = [pid for pid in pids if pid not in {os.getpid(), os.getppid()}]
    if not pids:
        return []
    return [f"process {pids[0]} already trains in {folder}; wait for it, end it, or use another OUT"]


def claim_run(config: DictConfig) -> None:
    """Claim the run folder for this experiment and note the whole configuration of this start in config.yaml.

    Raises:
        ValueError: it holds a run of another experiment, or checkpoints that nothing is known about.
    """
    folder = Path(config.trainer.default_local_dir)
    if not (folder / "settings.json").exists() and any(folder.glob("global_step_*")):
        raise ValueError(
            f"{folder} holds checkpoints but no settings.json, so nobody knows of which experiment; use another OUT"
        )
    claim(folder, {key: json.dumps(OmegaConf.select(config, key), default=list) for key in EXPERIMENT})
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(config))
    step = last_checkpoint(folder)
    if step:
        print(f"continuing {folder} after step {step}", file=sys.stderr)


def _tell_epoch(config: DictConfig, count: int) -> None:
    per_epoch, save = count // config.data.train_batch_size, config.trainer.save_freq
    if save > 1 and per_epoch != save:
        print(
            f"note: an epoch of TRAIN_FILE is {per_epoch} steps ({count:,} rows), checkpoints come every {save}; "
            f"SAVE_FREQ={per_epoch} TEST_FREQ={per_epoch} makes it one per epoch",
            file=sys.stderr,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two commands; 0 if the run may start."""
    parser = command_parser("preflight", __doc__)
    parser.add_argument("command", choices=("dry-run", "start"))
    parser.add_argument("--billions", type=float, required=True, help="parameters of the model, for the estimate")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="arguments of verl.trainer.main_ppo")
    given = parser.parse_args(arguments)
    try:
        config = compose_config(given.overrides)
        billions = _local_billions(str(config.actor_rollout_ref.model.path)) or given.billions
        count, validation = rows(config.data.train_files), rows(config.data.val_files)
        plan = estimate(config, billions, count or PAPER_PROBLEMS, validation)
        if given.command == "dry-run":
            print(OmegaConf.to_yaml(config))
            print(describe(plan, int(config.trainer.n_gpus_per_node * config.trainer.nnodes)), file=sys.stderr)
            return 0
        problems = missing(config, plan.disk_gb)
        if not problems:
            claim_run(config)
            _tell_epoch(config, count or PAPER_PROBLEMS)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        problems = [str(error)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _local_billions(path: str) -> float | None:
    """Parameters of a local model, counted in its safetensors headers."""
    files = sorted(Path(path).expanduser().glob("*.safetensors"))
    if not files:
        return None
    from math import prod

    total = 0
    for file in files:
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total / 1e9


if __name__ == "__main__":
    sys.exit(main())
