"""Every symbol of verl that the plugin calls, with the parameters it relies on. The doctor and a test check them."""

import importlib
import inspect
from functools import reduce
from types import ModuleType
from typing import Any

from verl_fgrpo.methods.estimators import HOST_ESTIMATORS
from verl_fgrpo.methods.losses import BASE_LOSSES

#: releases of verl with which estimators, losses and presets were tried (docs/compatibility.md says how)
TESTED_VERL = ("0.7.1", "0.8.0", "0.9.0", "0.9.1")
#: of them, those with which the recipes were tried
RECIPES_VERL = ("0.9.1",)

_ALGOS = "verl.trainer.ppo.core_algos"
_ESTIMATOR = ("token_level_rewards", "response_mask", "index", "config")
_NORM = ("norm_adv_by_std_in_grpo",)
_LOSS = ("old_log_prob", "log_prob", "advantages", "response_mask", "loss_agg_mode", "config", "rollout_is_weights")
_MANAGER = ("config", "tokenizer", "compute_score")

#: "module:attribute" -> parameters (of a callable) or fields (of a dataclass) that must be there
HOST_SYMBOLS: dict[str, tuple[str, ...]] = {
    f"{_ALGOS}:ADV_ESTIMATOR_REGISTRY": (),
    f"{_ALGOS}:POLICY_LOSS_REGISTRY": (),
    f"{_ALGOS}:get_adv_estimator_fn": ("name_or_enum",),
    f"{_ALGOS}:get_policy_loss_fn": ("name",),
    **{
        f"{_ALGOS}:compute_{base.name}_outcome_advantage": _ESTIMATOR + (_NORM if "grpo" in base.name else ())
        for base in HOST_ESTIMATORS
    },
    **{f"{_ALGOS}:compute_policy_loss_{name}": _LOSS for name in BASE_LOSSES},
    "verl.workers.config:PolicyLossConfig": ("loss_mode", "clip_cov_ratio", "kl_cov_ratio"),
    "verl.workers.config:ActorConfig": ("rollout_n", "policy_loss", "clip_ratio_low", "clip_ratio_high"),
    "verl.trainer.config:AlgoConfig": ("adv_estimator", "norm_adv_by_std_in_grpo", "use_kl_in_reward"),
    # the seams (host/seams.py)
    "verl.utils.config:validate_config": ("config",),
    "verl.trainer.main_ppo:run_ppo": ("config", "task_runner_class"),
    "verl.trainer.ppo.ray_trainer:compute_advantage": ("data", "adv_estimator", "config"),
    # the whole configuration from one of its nodes, unresolved (host/configuration.py, methods/estimators.py)
    "omegaconf:DictConfig._get_root": (),
    "omegaconf:DictConfig._get_node": ("key",),
    "omegaconf:DictConfig._is_none": (),
    "omegaconf:DictConfig._is_missing": (),
    # they call rewards.compute_score; by which argument names, tests/host/test_contract.py tries
    "verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager": _MANAGER,
    "verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager.run_single": ("data",),
    "verl.experimental.reward_loop.reward_manager.dapo:DAPORewardManager": _MANAGER,
    "verl.experimental.reward_loop.reward_manager.dapo:DAPORewardManager.run_single": ("data",),
}

#: the same for the recipes, which train with the trainer of verl 0.9 and read the files it writes
RECIPE_HOST_SYMBOLS: dict[str, tuple[str, ...]] = {
    "verl.trainer.main_ppo:main": (),
    "verl.model_merger.__main__:main": (),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._write_generations": (  # the dumps that validation.py reads
        *("inputs", "outputs", "gts", "scores", "reward_extra_infos_dict", "dump_path", "global_steps"),
    ),
    "verl.utils.tracking:Tracking": ("project_name", "experiment_name", "default_backend"),
}

#: the same for the v1 trainers (seams, val_metrics, trainer_modes); verl imports them, and TransferQueue, for a run
TRAINER_HOST_SYMBOLS: dict[str, tuple[str, ...]] = {
    "verl.trainer.ppo.v1.trainer_base:register_trainer": ("name",),
    "verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY": (),
    "verl.trainer.ppo.v1.trainer_base:get_trainer_cls": ("name",),
    "verl.trainer.ppo.v1.trainer_base:tq": (),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer": ("config",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage": ("batch", "metrics"),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._val_metrics_update": (  # expected_acc_counts only where verl has it
        *("data_sources", "sample_uids", "reward_extra_infos_dict"),
    ),
    "verl.trainer.ppo.ray_trainer:RayPPOTrainer._val_metrics_update": ("data_sources", "sample_uids"),
    "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync": ("config",),
    "verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync": ("config",),
    "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync": ("config",),
    "transfer_queue:kv_batch_get": ("keys", "partition_id", "select_fields"),
    "transfer_queue:KVBatchMeta": ("keys", "tags", "partition_id"),
}

#: the same for verl_fgrpo/cpu, which reaches deeper into verl; needed only with VERL_PLATFORM=cpu
CPU_HOST_SYMBOLS: dict[str, tuple[str, ...]] = {
    "verl.plugin.platform.platform_manager:PlatformRegistry": (),
    "verl.plugin.platform.platform_base:PlatformBase": (),
    "verl.utils.distributed:initialize_global_process_group_ray": ("timeout_second", "backend"),
    "verl.utils.torch_functional:logprobs_from_logits_naive": ("logits", "labels"),
    "verl.utils.tensordict_utils:list_of_dict_to_tensordict": (),
    "verl.workers.engine.base:EngineRegistry": (),
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead": (),
    "verl.workers.engine.fsdp.transformer_impl:logprobs_from_logits": (),
    "verl.workers.rollout.base:BaseRollout": ("config", "model_config", "device_mesh"),
    "verl.workers.rollout.base:_ROLLOUT_REGISTRY": (),
    "verl.workers.rollout.replica:RolloutReplica": (),
    "verl.workers.rollout.replica:RolloutReplicaRegistry": (),
    "verl.workers.rollout.replica:TokenOutput": ("token_ids", "log_probs"),
    "verl.workers.rollout.llm_server:LLMServerClient": (),
    "verl.protocol:DataProto": (),
    "verl.utils.config:omega_conf_to_dataclass": ("config", "dataclass_type"),
    "verl.utils.torch_dtypes:PrecisionType": (),
    "verl.workers.config:HFModelConfig": (),
    "verl.workers.config:RolloutConfig": (),
    "verl.workers.engine.fsdp:transformer_impl": (),
    "verl.experimental.agent_loop:agent_loop": (),
    "verl.trainer.ppo.v1:agent_loop_tq": (),
    "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ": (),
    "transfer_queue:async_kv_batch_put": ("keys", "partition_id"),
    "verl.experimental.agent_loop.agent_loop:_agent_loop_registry": (),
    "verl.experimental.agent_loop.agent_loop:DictConfigWrap": ("config",),
    "verl.experimental.agent_loop.agent_loop:ToolListWrap": (),
    "verl.experimental.reward_loop.reward_loop:RewardLoopWorker": (),
    "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopManagerTQ": (),
    "verl.trainer.ppo.v1.agent_loop_tq:tq": (),
    "verl.trainer.ppo.v1.agent_loop_tq:list_of_dict_to_tensordict": (),
    "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer": ("trainer_mode", "sampler_kwargs", "poll_interval"),
}


def import_host(module: str = "verl") -> ModuleType:
    """A module of verl, which loads the plugin.

    Raises:
        ImportError: it cannot be imported, whatever it raised: something in it does not fit this machine.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ImportError(
            f"{module} cannot be imported ({told}); install the release of verl that you train with again"
        ) from error


def broken_symbols(symbols: dict[str, tuple[str, ...]] = HOST_SYMBOLS) -> list[str]:
    """What of `symbols` the installed verl lacks: one sentence per missing symbol or parameter."""
    broken = []
    for symbol, parameters in symbols.items():
        module, attribute = symbol.split(":")
        try:
            host: Any = reduce(getattr, attribute.split("."), importlib.import_module(module))
        except Exception as error:  # whatever it is that does not fit
            broken.append(f"{symbol} is missing: {error}")
            continue
        if not parameters:
            continue
        absent = [name for name in parameters if name not in inspect.signature(host).parameters]
        if absent:
            broken.append(f"{symbol} no longer takes {', '.join(absent)}")
    return broken
