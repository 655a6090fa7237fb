"""The sibling methods as advantage estimators with verl's calling convention."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_fgrpo.core.focal import group_codes
from verl_fgrpo.methods.context import Handover, correct_rollouts, handed_over, per_session
from verl_fgrpo.methods.ds_grpo import differential_smoothing
from verl_fgrpo.methods.estimators import AdvantageEstimatorFn, check_batch
from verl_fgrpo.methods.maxrl import maxrl_advantages
from verl_fgrpo.methods.passk_training import passk_advantages
from verl_fgrpo.methods.settings import FocalConfig, SiblingConfig
from verl_fgrpo.methods.unlikeliness import unlikeliness_rewards
from verl_fgrpo.methods.w_reinforce import w_reinforce_advantages


@dataclass(frozen=True)
class Rollouts:
    """What a method sees of a batch.

    Args:
        scores: (B,) summed reward, as verl gives it.
        success: (B,) the numbers that tell success: `scores`, or what the trainer handed over.
        correct: (B,) bool.
        codes: (B,) int64 group numbers.
        log_probs: (B,) float64, log-probability of the response, nats; None for methods that do without.
        lengths: (B,) response tokens.
    """

    scores: torch.Tensor
    success: torch.Tensor
    correct: torch.Tensor
    codes: torch.Tensor
    log_probs: torch.Tensor | None
    lengths: torch.Tensor

    def response_log_probs(self, per_token: bool) -> torch.Tensor:
        """(B,) log-probability of each response, or its mean per token; 0 for an empty response."""
        assert self.log_probs is not None
        return self.log_probs / self.lengths.clamp(min=1) if per_token else self.log_probs


Grpo = Callable[[torch.Tensor], torch.Tensor]
Method = Callable[[Rollouts, SiblingConfig, Grpo], torch.Tensor]


def _unlikeliness(rollouts: Rollouts, settings: SiblingConfig, grpo: Grpo) -> torch.Tensor:
    mean_log_probs = rollouts.response_log_probs(per_token=True)
    beta = settings.unlikeliness_beta
    return grpo(unlikeliness_rewards(rollouts.scores, rollouts.correct, mean_log_probs, rollouts.codes, beta))


def _ds_grpo(rollouts: Rollouts, settings: SiblingConfig, grpo: Grpo) -> torch.Tensor:
    log_probs = rollouts.response_log_probs(per_token=settings.ds_length_normalized)
    return differential_smoothing(grpo(rollouts.scores), rollouts.correct, log_probs, settings.ds_gp, settings.ds_gn)


def _maxrl(rollouts: Rollouts, settings: SiblingConfig, grpo: Grpo) -> torch.Tensor:
    return maxrl_advantages(rollouts.scores, rollouts.codes)


def _w_reinforce(rollouts: Rollouts, settings: SiblingConfig, grpo: Grpo) -> torch.Tensor:
    return w_reinforce_advantages(rollouts.correct, settings.w_reinforce_lambda)


def _passk_training(rollouts: Rollouts, settings: SiblingConfig, grpo: Grpo) -> torch.Tensor:
    success = rollouts.success
    other = success[(success != 0) & (success != 1)]
    if len(other):
        raise ValueError(
            f"passk_training got a reward of {other[0].item()}, but its formula counts successes, so rewards must be 0 "
            "or 1; let the reward function return 0/1, or return `acc` and use trainer.v1.trainer_mode=focal_sync"
        )
    return passk_advantages(rollouts.correct, rollouts.codes, settings.passk_k)


SIBLINGS: dict[str, Method] = {
    "unlikeliness": _unlikeliness,
    "ds_grpo": _ds_grpo,
    "maxrl": _maxrl,
    "w_reinforce": _w_reinforce,
    "passk_training": _passk_training,
}
NEEDS_LOG_PROBS = frozenset({"unlikeliness", "ds_grpo"})
NEEDS_NO_GROUPS = frozenset({"w_reinforce"})


def sibling_estimator(name: str, grpo_host: AdvantageEstimatorFn) -> AdvantageEstimatorFn:
    """Give a sibling method verl's calling convention.

    Args:
        name: one of `SIBLINGS`; its formula and source stand in the module of that name.
        grpo_host: verl's `compute_grpo_outcome_advantage`, which two of the methods build on.

    Returns:
        An estimator with verl's calling convention; see `sibling_advantage` in its closure for arguments and errors.
    """
    method = SIBLINGS[name]

    def sibling_advantage(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any = None,
        config: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages of the method, the same for every token of a rollout, 0 where the mask is.

        Row order does not matter. A rollout with an empty response counts in its group. In a trainer mode of verl_fgrpo
        a session with several outputs counts once: its last output stands for it, as in verl's grpo (`per_session`).

        Args:
            token_level_rewards: (B, T) float; summed over tokens it is the reward.
            response_mask: (B, T), 1 for response tokens.
            index: (B,) group label (uid) of every rollout.
            config: verl's `algorithm` config with the keys of `SiblingConfig` and `FocalConfig`.

        Returns:
            advantages and returns, the same (B, T) tensor.

        Raises:
            ValueError: invalid settings, no uid, non-finite rewards or log-probabilities, only groups of one, rewards
                that the formula does not take, or log-probabilities that nobody handed over.
        """
        handover = handed_over()
        settings = SiblingConfig.from_algorithm(config)
        focal = FocalConfig.from_algorithm(config, raw_scores=handover is not None and handover.raw_scores is not None)
        if index is None:
            raise ValueError(
                f"{name} got no index (uid), but it needs the group of every rollout; "
                "run it through verl's trainer, which sets non_tensor_batch['uid'], or pass index="
            )
        with torch.no_grad():
            scores = token_level_rewards.sum(dim=-1)
            codes, labels = group_codes(index)
            check_batch(name, scores, codes, labels, response_mask, compares_rollouts=name not in NEEDS_NO_GROUPS)
            rollouts = Rollouts(
                scores=scores,
                success=_success(scores, handover),
                correct=correct_rollouts(scores, focal.success_threshold, handover),
                codes=codes.to(scores.device),
                log_probs=_log_probs(name, response_mask, handover) if name in NEEDS_LOG_PROBS else None,
                lengths=response_mask.sum(dim=-1),
            )

            def grpo(rewards: torch.Tensor) -> torch.Tensor:
                """verl's GRPO on one reward per rollout."""
                advantages, _ = grpo_host(
                    token_level_rewards=rewards.unsqueeze(-1),
                    response_mask=response_mask.new_ones(len(rewards), 1),
                    index=codes.tolist(),
                    norm_adv_by_std_in_grpo=focal.norm_adv_by_std_in_grpo,
                )
                return advantages.squeeze(-1)

            advantages = method(rollouts, settings, grpo).to(scores.dtype)
            spread = advantages.unsqueeze(-1) * response_mask
        return spread, spread

    sibling_advantage.__name__ = sibling_advantage.__qualname__ = name
    return per_session(sibling_advantage)


def _success(scores: torch.Tensor, handover: Handover | None) -> torch.Tensor:
    """(B,) the numbers that `correct_rollouts` reads."""
    if handover is not None and handover.accuracy is not None:
        return handover.accuracy.to(scores.device)
    if handover is not None and handover.raw_scores is not None:
        return handover.raw_scores.to(scores.device)
    return scores


def _log_probs(name: str, response_mask: torch.Tensor, handover: Handover | None) -> torch.Tensor:
    """(B,) float64, log-probability of each row's response tokens, from what the trainer handed over."""
    if handover is None or handover.log_probs is None:
        raise ValueError(
            f"{name} needs the log-probabilities of the rollouts, but verl hands an estimator none; set "
            "trainer.v1.trainer_mode=focal_sync (or focal_colocate_async / focal_separate_async)"
        )
    log_probs = handover.log_probs
    if log_probs.shape != response_mask.shape:
        raise ValueError(
            f"{name} was handed log-probabilities of shape {tuple(log_probs.shape)} for a response mask of shape "
            f"{tuple(response_mask.shape)}; hand over old_log_probs of the same rows and tokens"
        )
    log_probs = torch.where(response_mask.bool(), log_probs.to(response_mask.device), 0.0)
    total = log_probs.sum(dim=-1, dtype=torch.float64)
    finite = torch.isfinite(total)
    if not bool(finite.all()):
        raise ValueError(
            f"the log-probabilities of rollout {int((~finite).nonzero()[0])} are not all finite, but {name} ranks or "
            "adds them; look for NaN or -inf in the actor's old_log_probs"
        )
    return total
