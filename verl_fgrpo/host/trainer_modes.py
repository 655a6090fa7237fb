"""verl's own trainers, handing an estimator what verl does not: `trainer.v1.trainer_mode=focal_sync` and its siblings.

Each mode is verl's trainer of that name with one step extended: while advantages are computed, the log-probabilities,
the reward function's `acc`, the reward before KL and the sessions are there for the estimator (`handover.py`), and the
metrics of `monitoring.py` are logged. Imported by `register.py` when verl imports its trainers, never before.
"""

from typing import Any, ClassVar

import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_fgrpo.core.focal import focal_weight, group_codes, success_rate
from verl_fgrpo.methods.context import Handover, correct_rollouts, handing_over, reported_accuracy, sessions_of
from verl_fgrpo.methods.metrics import count_groups, group_metrics, weight_metrics
from verl_fgrpo.methods.settings import DEFAULT_GAMMA, FocalConfig


def _values(column: Any) -> list[Any]:
    """The Python values of a TransferQueue column, whose type differs with the storage backend."""
    return [getattr(value, "data", value) for value in column]


class HandsOver:
    """Mixin over a trainer of verl that opens a `Handover` around its `_compute_advantage`."""

    host_mode: ClassVar[str]

    def __init__(self, config: DictConfig) -> None:
        self._focal = FocalConfig.from_algorithm(config.algorithm, raw_scores=True)  # complains before workers start
        modes = config.trainer.v1
        with open_dict(modes):  # verl's rollout cache looks for the settings of a mode under the mode's own name
            modes[modes.trainer_mode] = modes[self.host_mode]
        super().__init__(config)  # type: ignore[call-arg]

    @property
    def trainer_mode(self) -> str:
        """The host's name: verl compares it with "sync" to choose the replay buffer and what checkpoints hold."""
        return self.host_mode

    @trainer_mode.setter
    def trainer_mode(self, value: str) -> None:
        """verl's constructor writes the configured name, which stands in the config anyway."""

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        handover = self._handover(batch)
        with handing_over(handover):
            batch = super()._compute_advantage(batch, metrics)  # type: ignore[misc]
        metrics.update(self._metrics(batch, handover) | handover.metrics)
        return batch

    def _handover(self, batch: Any) -> Handover:
        """Read from verl's TransferQueue what the estimator is not given."""
        fields = ["old_log_probs", "rm_scores", "extra_fields"]
        colocated = self.reward_loop_manager.reward_loop_worker_handles is None  # type: ignore[attr-defined]
        if colocated:  # a reward model in the trainer's own step stores its extra info as fields
            fields += ["acc", "score"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        if colocated:
            columns = {name: _values(data[name]) for name in ("acc", "score") if name in data}
            infos = [{name: column[row] for name, column in columns.items()} for row in range(len(batch.keys))]
        else:
            infos = [(extra or {}).get("reward_extra_info") or {} for extra in _values(data["extra_fields"])]
        sessions, final = sessions_of(batch.keys)
        return Handover(
            log_probs=data["old_log_probs"].to_padded_tensor(0.0),
            raw_scores=data["rm_scores"].to_padded_tensor(0.0).sum(dim=-1),
            accuracy=reported_accuracy(infos),
            sessions=sessions,
            final=final,
            padding=torch.tensor([bool(tag.get("is_padding", False)) for tag in batch.tags]),
        )

    def _metrics(self, batch: Any, handover: Handover) -> dict[str, float]:
        """Metrics that need no help of the estimator: those of the groups, and of the weight inside an f_ loss."""
        assert handover.final is not None and handover.padding is not None
        rows = (handover.final & ~handover.padding).nonzero().squeeze(1)
        handover = handover.select(rows)
        assert handover.raw_scores is not None
        keys = [batch.keys[row] for row in rows.tolist()]
        codes, _ = group_codes([key.rsplit("_", 2)[0] for key in keys])
        correct = correct_rollouts(handover.raw_scores, self._focal.success_threshold, handover)
        metrics = group_metrics(*count_groups(correct, codes))
        policy_loss = self.config.actor_rollout_ref.actor.policy_loss  # type: ignore[attr-defined]
        if policy_loss.loss_mode.startswith("f_"):
            data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["advantages"])
            magnitude = data["advantages"].to_padded_tensor(0.0).abs().sum(dim=-1)
            mu = success_rate(correct.to(torch.float64), codes)
            weight = focal_weight(mu, policy_loss.get("focal_gamma", DEFAULT_GAMMA))
            metrics |= weight_metrics(weight, magnitude, codes)
        return metrics


class FocalSync(HandsOver, PPOTrainerSync):  # type: ignore[misc]
    """verl's synchronous trainer with a handover."""

    host_mode = "sync"


class FocalColocateAsync(HandsOver, PPOTrainerColocateAsync):  # type: ignore[misc]
    """verl's asynchronous trainer with colocated rollout, with a handover."""

    host_mode = "colocate_async"


class FocalSeparateAsync(HandsOver, PPOTrainerSeparateAsync):  # type: ignore[misc]
    """verl's asynchronous trainer with separate rollout, with a handover."""

    host_mode = "separate_async"


MODES = {
    "focal_sync": FocalSync,
    "focal_colocate_async": FocalColocateAsync,
    "focal_separate_async": FocalSeparateAsync,
}


def register_modes() -> None:
    """Register the modes with verl; calling it again changes nothing.

    Raises:
        ValueError: another package holds one of the names.
    """
    for name, trainer in MODES.items():
        register_trainer(name)(trainer)
