"""Policy losses: f_Y = verl's own loss Y on advantages that are focal-weighted inside the loss.

For those who ask for them: the f_ estimators know rewards, sessions and `acc`, a loss knows an advantage and nothing
else. For plain GRPO advantages on two-valued rewards the success rate of a rollout's group can be read off its
advantage (`core.focal.success_rate_from_advantage`); whatever is no such advantage ends the run.

To add a loss: a frozen dataclass with verl's calling convention and `__verl_fgrpo__ = True`, and a row in
`policy_losses`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from verl_fgrpo.core.focal import focal_weight, row_advantage, success_rate_from_advantage
from verl_fgrpo.methods.gapo import GAPO_LOSSES, GapoLoss
from verl_fgrpo.methods.settings import PolicyLossSettings

__all__ = ["BASE_LOSSES", "FocalLoss", "policy_losses"]

PolicyLossFn = Callable[..., tuple[torch.Tensor, dict[str, Any]]]

# Left out: dppo_tv and dppo_kl (masks built from the raw advantage), dro (a quadratic term that must not be scaled),
# bypass_mode (computes its own advantages' weights and dispatches to another loss by name).
BASE_LOSSES = ("vanilla", "cispo", "gspo", "sapo", "geo_mean", "gpg", "clip_cov", "kl_cov")


@dataclass(frozen=True)
class FocalLoss:
    """verl's loss on (1 - mu) ** gamma * A, with mu read off A.

    Source: arXiv 2602.06717, eq. 11-13 and Table 3 of App. B for the base objectives.

    Args:
        base: verl's name of the loss, one of `BASE_LOSSES`.
        host: verl's function for it.
    """

    __verl_fgrpo__: ClassVar[bool] = True

    base: str
    host: PolicyLossFn

    @property
    def name(self) -> str:
        """As in `policy_loss.loss_mode`."""
        return f"f_{self.base}"

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
        """verl's loss on focal-weighted advantages, with metrics of what the weight did.

        A call sees one micro-batch, which may hold one row or no active row. gamma = 0 is the host's loss bit for bit,
        on any advantages.

        Args:
            old_log_prob, log_prob: (B, T) float, log-probabilities before and under the current update.
            advantages: (B, T) float, plain GRPO advantages: constant over a row's response.
            response_mask: (B, T), 1 for response tokens.
            loss_agg_mode: verl's aggregation mode.
            config: verl's actor config; `rollout_n` is the group size, `policy_loss` a `FocalPolicyLossConfig`.
            rollout_is_weights: (B, T) importance weights, or None.

        Returns:
            loss (scalar) and the host's metrics plus, as means over the rows of the micro-batch,
            `actor/focal/active_share` (advantage not 0), `actor/focal/weight_mean` (inactive rows count as 1) and
            `actor/focal/success_rate` (inactive rows count as 0: divide by active_share for the mean over active rows).

        Raises:
            ValueError: no actor config, none with a focal gamma, a group size below 2, an invalid gamma, or an
                advantage that plain GRPO cannot give.
        """
        settings = PolicyLossSettings.from_actor(self.name, config)
        with torch.no_grad():
            row = row_advantage(advantages, response_mask)
            mu, off = success_rate_from_advantage(row, settings.group_size, settings.divided_by_std)
            if settings.gamma > 0 and bool(off.any()):
                raise ValueError(self._off_lattice(row[off], settings))
            mu = mu.nan_to_num(0.0)
            weight = focal_weight(mu, settings.gamma)
            active = row != 0
            weighted = advantages * weight.to(advantages.dtype).unsqueeze(-1)
        loss, metrics = self.host(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=weighted,
            response_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            config=config,
            rollout_is_weights=rollout_is_weights,
            **host_arguments,
        )
        rows = max(len(row), 1)
        return loss, {
            **metrics,
            "actor/focal/active_share": active.sum().item() / rows,
            "actor/focal/weight_mean": weight.sum().item() / rows,
            "actor/focal/success_rate": mu[active].sum().item() / rows,
        }

    def _off_lattice(self, off: torch.Tensor, settings: PolicyLossSettings) -> str:
        divided = "divided by" if settings.divided_by_std else "without"
        return (
            f"{self.name} got an advantage of {off[0].item():.6g} ({len(off)} rows of this micro-batch), which plain "
            "GRPO "
            f"with {settings.group_size} rollouts (at most half of them lost) of two-valued rewards, {divided} their "
            "std, cannot give, so the success rate cannot be read off it; use algorithm.adv_estimator=f_grpo with "
            f"loss_mode={self.base} (never both), which sees the rewards, or adv_estimator=grpo with 0/1 rewards, no "
            "penalty for length or KL, and policy_loss.norm_adv_by_std_in_grpo equal to "
            "algorithm.norm_adv_by_std_in_grpo"
        )


def policy_losses(verls: Callable[[str], PolicyLossFn]) -> dict[str, PolicyLossFn]:
    """Every policy loss of ours by name; `verls` gives verl's own function by its name."""
    table: list[FocalLoss | GapoLoss] = [FocalLoss(base, verls(base)) for base in BASE_LOSSES]
    table += [GapoLoss(name, verls(base)) for name, base in GAPO_LOSSES.items()]
    return {loss.name: loss for loss in table}
