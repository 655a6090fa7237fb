"""The sibling methods as advantage estimators with verl's calling convention."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_fgrpo.advantages import AdvantageEstimatorFn, check_batch, success_scores
from verl_fgrpo.config import FocalConfig, SiblingConfig
from verl_fgrpo.focal import group_codes
from verl_fgrpo.handover import handed_over
from verl_fgrpo.siblings.ds_grpo import differential_smoothing
from verl_fgrpo.siblings.maxrl import maxrl_advantages
from verl_fgrpo.siblings.passk_training import passk_advantages
from verl_fgrpo.siblings.unlikeliness import unlikeliness_rewards
from verl_fgrpo.siblings.w_reinforce import w_reinforce_advantages


@dataclass(frozen=True)
class Rollouts:
    """One entry per rollout; a session with several outputs is one rollout.

    Args:
        scores: (R,) summed reward, as verl gives it.
        success: (R,) what tells success: `scores`, or what the trainer handed over.
        correct: (R,) bool.
        codes: (R,) int64 group numbers.
        log_probs: (R,) float64, log-probability of the response, nats; None for methods that do without.
        lengths: (R,) float64, response tokens.
    """

    scores: torch.Tensor
    success: torch.Tensor
    correct: torch.Tensor
    codes: torch.Tensor
    log_probs: torch.Tensor | None
    lengths: torch.Tensor

    def response_log_probs(self, per_token: bool) -> torch.Tensor:
        """(R,) log-probability of each response, or its mean per token; 0 for an empty response."""
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

        Row order does not matter. A rollout with an empty response counts in its group. A session with several outputs
        counts once, with the reward of its last output, the log-probability of all its tokens, and one advantage.

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
        settings, focal = SiblingConfig.from_algorithm(config), FocalConfig.from_algorithm(config)
        if index is None:
            raise ValueError(
                f"{name} got no index (uid), but it needs the group of every rollout; "
                "run it through verl's trainer, which sets non_tensor_batch['uid'], or pass index="
            )
        with torch.no_grad():
            scores = token_level_rewards.sum(dim=-1)
            codes, labels = group_codes(index)
            check_batch(name, scores, codes, labels, response_mask, compares_rollouts=name not in NEEDS_NO_GROUPS)
            success, threshold = success_scores(scores, focal.success_threshold)
            codes = codes.to(scores.device)
            rows, rollout_of_row = _rows_of_rollouts(codes)
            lengths = _sum_per_rollout(response_mask.sum(dim=-1), rollout_of_row)
            log_probs = None
            if name in NEEDS_LOG_PROBS:
                log_probs = _sum_per_rollout(_row_log_probs(name, response_mask), rollout_of_row)
            rollouts = Rollouts(scores[rows], success[rows], success[rows] > threshold, codes[rows], log_probs, lengths)

            def grpo(rewards: torch.Tensor) -> torch.Tensor:
                """verl's GRPO on one reward per rollout."""
                advantages, _ = grpo_host(
                    token_level_rewards=rewards.unsqueeze(-1),
                    response_mask=response_mask.new_ones(len(rewards), 1),
                    index=rollouts.codes.tolist(),
                    norm_adv_by_std_in_grpo=focal.norm_adv_by_std_in_grpo,
                )
                return advantages.squeeze(-1)

            advantages = method(rollouts, settings, grpo).to(scores.dtype)
            spread = advantages[rollout_of_row].unsqueeze(-1) * response_mask
        return spread, spread

    sibling_advantage.__name__ = sibling_advantage.__qualname__ = name
    return sibling_advantage


def _rows_of_rollouts(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row that stands for each rollout (the last output of a session), (R,), and rollout of each row, (B,)."""
    every_row = torch.arange(len(codes), device=codes.device)
    handover = handed_over()
    if handover is None or handover.sessions is None or handover.final is None:
        return every_row, every_row
    if not len(handover.sessions) == len(handover.final) == len(codes):
        raise ValueError(
            f"{len(handover.sessions)} sessions and {len(handover.final)} final flags were handed over for a batch of "
            f"{len(codes)} rows; hand over one of each per row, in the order of the batch"
        )
    session_of_row = group_codes(handover.sessions)[0].to(codes.device)
    final = handover.final.to(codes.device)
    finals = torch.bincount(session_of_row[final], minlength=int(session_of_row.max()) + 1)
    if bool((finals != 1).any()):
        raise ValueError(
            f"a session was handed over with {int(finals[finals != 1][0])} final outputs, but its reward is that of its "
            "last output; mark exactly one row per session as final"
        )
    rows = torch.empty(len(finals), dtype=torch.int64, device=codes.device)
    rows[session_of_row[final]] = every_row[final]
    return rows, session_of_row


def _sum_per_rollout(values: torch.Tensor, rollout_of_row: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(int(rollout_of_row.max()) + 1, dtype=torch.float64, device=values.device)
    return total.index_add_(0, rollout_of_row, values.to(torch.float64))


def _row_log_probs(name: str, response_mask: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's response tokens, (B,) float64, from what the trainer handed over."""
    handover = handed_over()
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
