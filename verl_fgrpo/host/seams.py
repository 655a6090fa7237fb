"""The seams: the functions of verl that are replaced right after the first import of their module, and how.

- `verl.utils.config.validate_config` and `verl.trainer.main_ppo.run_ppo`: `configuration.check` comes first, before
  workers start.
- `verl.trainer.ppo.ray_trainer.compute_advantage`: our estimators learn raw scores, acc, log-probabilities and data
  sources.
- `verl.trainer.ppo.v1.trainer_base.PPOTrainer._compute_advantage`: they, and the f_ losses, also learn sessions and
  padding, and have a place for metrics.

Estimators and losses that are not ours are handed through, with verl's own arguments and result.

Every trainer of verl binds these by name after the defining module, so all of them get the replacement. A replacement
that cannot be made leaves verl as it is and takes our estimators out of its registry: a run that asks for one then
stops.
"""

import functools
import inspect
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import OmegaConf

from verl_fgrpo.core.focal import focal_weight, group_codes
from verl_fgrpo.host.configuration import check
from verl_fgrpo.host.import_hooks import when_imported
from verl_fgrpo.host.registry import our_names, ours
from verl_fgrpo.host.state import registration, run_of
from verl_fgrpo.methods.context import EstimatorContext, current_context, sessions_of, using_context
from verl_fgrpo.methods.losses import FocalLoss
from verl_fgrpo.methods.settings import DEFAULT_GAMMA, FocalConfig
from verl_fgrpo.methods.success import judge, reported_success
from verl_fgrpo.methods.watch import Observed, observe_step

logger = logging.getLogger("verl_fgrpo")


def install_seams() -> None:
    """Ask for every replacement; each is made when its module is first imported."""
    for module, replace_in in (
        ("verl.utils.config", _in_validate_config),
        ("verl.trainer.main_ppo", _in_run_ppo),
        ("verl.trainer.ppo.ray_trainer", _in_compute_advantage),
        ("verl.trainer.ppo.v1.trainer_base", _in_v1_trainer),
    ):
        when_imported(module, functools.partial(_try, replace_in))


def _try(replace_in: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        replace_in(module)
    except Exception:
        from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

        registration.failures.append(traceback.format_exc())
        logger.exception("verl_fgrpo does not fit %s of this verl; its estimators are taken out", module.__name__)
        for name in our_names(ADV_ESTIMATOR_REGISTRY):
            del ADV_ESTIMATOR_REGISTRY[name]


def _in_validate_config(module: ModuleType) -> None:
    """The check of the configuration, in the driver (`main_ppo`) or before workers start (older trainers)."""
    import verl.utils

    host = module.validate_config
    checked = _after_check(host)
    for place in (module, verl.utils):
        if vars(place).get("validate_config") is host:
            vars(place)["validate_config"] = checked


def _in_run_ppo(module: ModuleType) -> None:
    """The same for entry points that import `run_ppo` from `main_ppo`: one-step-off, fully async, recipes."""
    vars(module)["run_ppo"] = _after_check(module.run_ppo)


def _after_check(host: Callable[..., Any]) -> Callable[..., Any]:
    """A function of verl that takes the configuration, called once that is checked."""

    @functools.wraps(host)
    def checked(config: Any, *args: Any, **kwargs: Any) -> Any:
        check(config)
        return host(config, *args, **kwargs)

    return checked


def _in_compute_advantage(module: ModuleType) -> None:
    """Hand our estimators what the batch holds beyond verl's arguments, in every trainer."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    host = module.compute_advantage
    signature = inspect.signature(host)

    @functools.wraps(host)
    def compute_advantage(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        config: Any = given.get("config")
        root = config._get_root() if hasattr(config, "_get_root") else config
        run = run_of(root)
        if not run.checked:
            check(root, str(getattr(given["adv_estimator"], "value", given["adv_estimator"])))
            run.checked = True
        if ours(ADV_ESTIMATOR_REGISTRY, given["adv_estimator"]) is None:
            return host(*args, **kwargs)
        known = current_context()
        context = known or EstimatorContext(run=run, metrics={})
        data = given["data"]
        with using_context(context.completed(data.batch, data.non_tensor_batch)):
            result = host(*args, **kwargs)
        if known is None and context.metrics:  # this trainer keeps its metrics to itself
            logger.info(", ".join(f"{name} {value:.4g}" for name, value in sorted(context.metrics.items())))
        return result

    vars(module)["compute_advantage"] = compute_advantage


def _in_v1_trainer(module: ModuleType) -> None:
    """Hand our estimators what TransferQueue knows, and put the metrics of the step where verl's own go."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    trainer = module.PPOTrainer
    host = trainer._compute_advantage

    @functools.wraps(host)
    def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        estimator = ours(ADV_ESTIMATOR_REGISTRY, self.config.algorithm.adv_estimator)
        loss = ours(POLICY_LOSS_REGISTRY, self.config.actor_rollout_ref.actor.policy_loss.loss_mode)
        if estimator is None and loss is None and not getattr(self, "logs_focal_groups", False):
            return host(self, batch, metrics)
        context = _read_context(self, batch, module.tq, estimator.base.needs if estimator is not None else frozenset())
        with using_context(context):
            batch = host(self, batch, metrics)
        if estimator is None:
            _observe_verls_estimator(self, batch, module.tq, context, weighted=isinstance(loss, FocalLoss))
        metrics.update(context.metrics or {})
        return batch

    trainer._compute_advantage = _compute_advantage


def _values(column: Any) -> list[Any]:
    """The Python values of a TransferQueue column, whose type differs with the storage backend."""
    return [getattr(value, "data", value) for value in column]


def _read_context(trainer: Any, batch: Any, queue: Any, needs: frozenset[str]) -> EstimatorContext:
    """Read from verl's TransferQueue what the batch of an estimator does not hold."""
    algorithm = trainer.config.algorithm
    colocated = trainer.reward_loop_manager.reward_loop_worker_handles is None
    # a reward model in the trainer's own step stores its extra info as fields
    fields = ["rm_scores", "acc", "score"] if colocated else ["extra_fields"]
    if algorithm.get("focal_success_threshold_by_source") is not None:
        fields.append("data_source")
    if "entropy" in needs:
        fields += ["entropy", "response_mask"]
    data = queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    if colocated:
        columns = {name: _values(data[name]) for name in ("acc", "score") if name in data}
        infos = [{name: column[row] for name, column in columns.items()} for row in range(len(batch.keys))]
    else:
        infos = [(extra or {}).get("reward_extra_info") or {} for extra in _values(data["extra_fields"])]
    sessions, final = sessions_of(batch.keys)
    return EstimatorContext(
        reported=reported_success(infos),
        data_sources=[str(source) for source in _values(data["data_source"])] if "data_source" in fields else None,
        sessions=sessions,
        final=final,
        padding=torch.tensor([bool(tag.get("is_padding", False)) for tag in batch.tags]),
        entropy=_mean_entropy(data) if "entropy" in needs else None,
        step=trainer.global_steps,
        folder=Path(trainer.config.trainer.default_local_dir),
        run=run_of(trainer.config),
        metrics={},
    )


def _mean_entropy(data: Any) -> float:
    """Mean over all response tokens; padding rows have none."""
    if "entropy" not in data:
        raise ValueError(
            "the estimator needs the policy's entropy, which verl computes with old_log_probs; set "
            "algorithm.rollout_correction.bypass_mode=False"
        )
    mask = data["response_mask"].to_padded_tensor(0).bool()
    return float(data["entropy"].to_padded_tensor(0.0)[mask].double().mean())


def _observe_verls_estimator(trainer: Any, batch: Any, queue: Any, context: EstimatorContext, weighted: bool) -> None:
    """Metrics of a step whose advantages are verl's own: of its groups, and of the weight inside an f_ loss."""
    assert context.final is not None and context.padding is not None
    rows = (context.final & ~context.padding).nonzero().squeeze(1)
    context = context.select(rows)
    keys = [batch.keys[row] for row in rows.tolist()]
    data = queue.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["rm_scores", "advantages"])
    raw_scores = data["rm_scores"].to_padded_tensor(0.0).sum(dim=-1)
    codes, _ = group_codes([key.rsplit("_", 2)[0] for key in keys])
    settings = FocalConfig.from_algorithm(trainer.config.algorithm)
    success = judge(raw_scores, codes, settings, context.reported, context.data_sources)
    name, weight = str(trainer.config.algorithm.adv_estimator), None
    if weighted:
        policy_loss = trainer.config.actor_rollout_ref.actor.policy_loss
        key = "actor_rollout_ref.actor.policy_loss.focal_gamma"
        gamma = float(OmegaConf.select(trainer.config, key, default=DEFAULT_GAMMA))
        settings = replace(settings, gamma=gamma, gamma_key=key)
        name, weight = str(policy_loss.loss_mode), focal_weight(success.rate, settings.gamma)
    magnitude = data["advantages"].to_padded_tensor(0.0).abs().sum(dim=-1)
    has_tokens = torch.ones_like(codes, dtype=torch.bool)
    observe_step(name, Observed(codes, raw_scores, success, has_tokens), settings, context, weight, magnitude)
