"""GAPO: the upper clip bound depends on how many rollouts of the group are correct (arXiv 2609.00444). No verl.

Its losses are verl's own `gspo` (loss_mode `gapo`, ratio of the sequence) and `vanilla` (`gapo_token`, ratio of the
token), called with a bound for each row instead of one for all.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from verl_fgrpo.core.focal import row_advantage, success_rate_from_advantage

__all__ = ["GAPO_LOSSES", "GapoLoss", "clip_high"]

#: ours -> verl's loss that it is built on
GAPO_LOSSES = {"gapo": "gspo", "gapo_token": "vanilla"}


def clip_high(mu: torch.Tensor, group_size: int, low: float, high: float) -> torch.Tensor:
    """Upper clip bound of a correct rollout.

        eps_hi(c) = eps_lo + (eps_max - eps_lo) * (k - c) / (k - 1),   c = k mu

    A lone correct rollout has eps_max; the fewer are wrong, the nearer is eps_lo. Source: arXiv 2609.00444, of which a
    section-by-section digest with this formula was read, not the text or the authors' code. It leaves open what a group
    that lost rollouts gets; here mu is that of the rollouts that are there.

    Args:
        mu: success rates, any shape, float64.
        group_size: k, rollouts per prompt, at least 2.
        low, high: eps_lo and eps_max.

    Returns:
        Bounds, shape and dtype of `mu`.
    """
    return low + (high - low) * (1.0 - mu) * group_size / (group_size - 1)


@dataclass(frozen=True)
class GapoLoss:
    """verl's clipped loss with GAPO's bound for correct rollouts and eps_lo for wrong ones.

    c is read off std-free GRPO advantages of 0/1 rewards, A+ = 1 - c/k and A- = -c/k.

    Args:
        name: as in `policy_loss.loss_mode`.
        host: verl's loss that it is built on.
    """

    __verl_fgrpo__: ClassVar[bool] = True

    name: str
    host: Callable[..., tuple[torch.Tensor, dict[str, Any]]]

    def __call__(
        self,
        old_log_prob: torch.Tensor,
        log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: torch.Tensor | None = None,
        **host_arguments: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """The loss of a micro-batch.

        With eps_max = eps_lo it is verl's loss with that symmetric clip, bit for bit. `gapo_token` keeps verl's dual
        clip of wrong rollouts (`clip_ratio_c`).

        Args:
            old_log_prob, log_prob: (B, T) float, log-probabilities before and under the current update.
            advantages: (B, T) float, GRPO advantages without the std: constant over a row's response.
            response_mask: (B, T), 1 for response tokens.
            loss_agg_mode: verl's aggregation mode.
            config: verl's actor config: `clip_ratio_low` is eps_lo, `clip_ratio_high` eps_max, `rollout_n` k.
            rollout_is_weights: (B, T) importance weights, or None.

        Returns:
            loss (scalar) and the host's metrics plus `actor/gapo/clip_high`, the mean bound over the rows.

        Raises:
            ValueError: no config or bounds, eps_max below eps_lo, fewer than two rollouts a prompt, or an advantage
                that GRPO without the std cannot give on 0/1 rewards.
        """
        low, high, group_size = self._bounds(config)
        with torch.no_grad():
            row = row_advantage(advantages, response_mask)
            mu, off = success_rate_from_advantage(row, group_size, divided_by_std=False)
            if bool(off.any()):
                raise ValueError(
                    f"{self.name} got an advantage of {row[off][0].item():.6g} ({int(off.sum())} rows of this "
                    f"micro-batch), but it reads the number of correct rollouts off 1 - c/{group_size} and "
                    f"-c/{group_size}; use algorithm.adv_estimator=grpo with algorithm.norm_adv_by_std_in_grpo=False "
                    "and rewards of 0 and 1, without a penalty for length or KL"
                )
            upper = torch.where(row > 0, clip_high(mu, group_size, low, high), low).unsqueeze(-1)
            # verl clamps to 1 - low and 1 + high; these differences are exact, so the bounds are those of plain numbers
            highest = (1.0 + upper).to(log_prob.dtype)
            lowest = (1.0 - torch.full_like(upper, low)).to(log_prob.dtype)
        ours = copy.copy(config)
        object.__setattr__(ours, "clip_ratio_low", 1.0 - lowest)
        object.__setattr__(ours, "clip_ratio_high", highest - 1.0)
        loss, metrics = self.host(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=advantages,
            response_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            config=ours,
            rollout_is_weights=rollout_is_weights,
            **host_arguments,
        )
        return loss, {**metrics, "actor/gapo/clip_high": upper.mean().item()}

    def _bounds(self, config: Any) -> tuple[float, float, int]:
        """eps_lo, eps_max and k."""
        if config is None:
            raise ValueError(
                f"{self.name} got config=None, but it needs verl's actor config; pass config=ActorConfig(...)"
            )
        low, high, group_size = config.clip_ratio_low, config.clip_ratio_high, config.get("rollout_n", None)
        if low is None or high is None or not 0 <= low <= high:
            raise ValueError(
                f"actor.clip_ratio_low is {low} and clip_ratio_high is {high}, but they are the narrowest and "
                f"the widest upper bound of {self.name}; set e.g. actor_rollout_ref.actor.clip_ratio_low=3e-3 and "
                "clip_ratio_high=5e-3, or use +focal=gapo"
            )
        if not isinstance(group_size, int) or group_size < 2:
            raise ValueError(
                f"actor.rollout_n is {group_size!r}, but {self.name} needs a prompt's number of rollouts, at least 2; "
                "set actor_rollout_ref.rollout.n"
            )
        return float(low), float(high), group_size
