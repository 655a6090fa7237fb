"""Policy losses: verl's own, on advantages that are focal-weighted inside the loss (f_), or with GAPO's clip bounds.

f_ is for those who ask for it: the f_ estimators know rewards, sessions and `acc`, a loss knows an advantage and
nothing else. For plain GRPO advantages on two-valued rewards the success rate of a rollout's group can be read off its
advantage (`core.focal.success_rate_from_advantage`); whatever is no such advantage ends the run.

To add a loss: a subclass of `Loss` with `change`, and a row in `policy_losses`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from verl_fgrpo.core.focal import focal_weight, row_advantage, success_rate_from_advantage
from verl_fgrpo.methods.gapo import GAPO_LOSSES, clip_high
from verl_fgrpo.methods.settings import PolicyLossSettings

PolicyLossFn = Callable[..., tuple[torch.Tensor, dict[str, Any]]]
Change = tuple[torch.Tensor, Any, dict[str, float]]

# Left out: dppo_tv and dppo_kl (masks built from the raw advantage), dro (a quadratic term that must not be scaled),
# bypass_mode (computes its own advantages' weights and dispatches to another loss by name).
BASE_LOSSES = ("vanilla", "cispo", "gspo", "sapo", "geo_mean", "gpg", "clip_cov", "kl_cov")


@dataclass(frozen=True)
class Loss:
    """verl's loss on other advantages or another configuration, in verl's calling convention.

    Args:
        name: as in `policy_loss.loss_mode`.
        host: verl's loss that it is built on.
    """

    __verl_fgrpo__: ClassVar[bool] = True

    name: str
    host: PolicyLossFn

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
        """The loss of a micro-batch, which may hold one row or no active row.

        Args:
            old_log_prob, log_prob: (B, T) float, log-probabilities before and under the current update.
            advantages: (B, T) float, GRPO advantages as `change` wants them: constant over a row's response.
            response_mask: (B, T), 1 for response tokens.
            loss_agg_mode: verl's aggregation mode.
            config: verl's actor config; `rollout_n` is the number of rollouts per prompt.
            rollout_is_weights: (B, T) importance weights, or None.

        Returns:
            loss (scalar) and the host's metrics plus those of `change`.

        Raises:
            ValueError: no config, or what `change` refuses.
        """
        if config is None:
            raise ValueError(
                f"{self.name} got config=None, but it needs verl's actor config; pass config=ActorConfig(...)"
            )
        with torch.no_grad():
            changed, ours, metrics = self.change(advantages, response_mask, config, log_prob.dtype)
        loss, hosts = self.host(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=changed,
            response_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            config=ours,
            rollout_is_weights=rollout_is_weights,
            **host_arguments,
        )
        return loss, {**hosts, **metrics}

    def change(self, advantages: torch.Tensor, response_mask: torch.Tensor, config: Any, dtype: torch.dtype) -> Change:
        """What verl's loss gets instead: advantages and actor config; and our metrics of the micro-batch."""
        raise NotImplementedError


class FocalLoss(Loss):
    """verl's loss on (1 - mu) ** gamma * A, with mu read off A.

    Source: arXiv 2602.06717, eq. 11-13 and App. B for the base objectives. gamma = 0 is the host's loss bit
    for bit, on any advantages.
    """

    def change(self, advantages: torch.Tensor, response_mask: torch.Tensor, config: Any, dtype: torch.dtype) -> Change:
        """Focal-weighted plain GRPO advantages.

        Metrics, as means over the rows of the micro-batch: `actor/focal/active_share` (advantage not 0),
        `actor/focal/weight_mean` (inactive rows count as 1) and `actor/focal/success_rate` (inactive rows count as 0:
        divide by active_share for the mean over active rows).

        Raises:
            ValueError: no `FocalPolicyLossConfig`, a group size below 2, an invalid gamma, or an advantage that plain
                GRPO cannot give.
        """
        settings = PolicyLossSettings.from_actor(self.name, config)
        row = row_advantage(advantages, response_mask)
        mu, off = success_rate_from_advantage(row, settings.group_size, settings.divided_by_std)
        if settings.gamma > 0 and bool(off.any()):
            raise ValueError(self._off_lattice(row[off], settings))
        mu = mu.nan_to_num(0.0)
        weight, active, rows = focal_weight(mu, settings.gamma), row != 0, max(len(row), 1)
        metrics = {
            "actor/focal/active_share": active.sum().item() / rows,
            "actor/focal/weight_mean": weight.sum().item() / rows,
            "actor/focal/success_rate": mu[active].sum().item() / rows,
        }
        return advantages * weight.to(advantages.dtype).unsqueeze(-1), config, metrics

    def _off_lattice(self, off: torch.Tensor, settings: PolicyLossSettings) -> str:
        divided = "divided by" if settings.divided_by_std else "without"
        return (
            f"{self.name} got an advantage of {off[0].item():.6g} ({len(off)} rows of this micro-batch), which plain "
            f"GRPO with {settings.group_size} rollouts (at most half of them lost) of two-valued rewards, {divided} "
            "their std, cannot give, so the success rate cannot be read off it; use algorithm.adv_estimator=f_grpo "
            f"with loss_mode={self.name.removeprefix('f_')} (never both), which sees the rewards, or "
            "adv_estimator=grpo with 0/1 rewards, no penalty for length or KL, and policy_loss.norm_adv_by_std_in_grpo "
            "equal to algorithm.norm_adv_by_std_in_grpo"
        )


class GapoLoss(Loss):
    """verl's clipped loss with GAPO's bound for correct rollouts and eps_lo for wrong ones (`methods.gapo.clip_high`).

    With eps_max = eps_lo it is verl's loss with that symmetric clip, bit for bit. `gapo_token` keeps verl's dual clip
    of wrong rollouts (`clip_ratio_c`).
    """

    def change(self, advantages: torch.Tensor, response_mask: torch.Tensor, config: Any, dtype: torch.dtype) -> Change:
        """A bound per row, from c of k correct rollouts read off A+ = 1 - c/k and A- = -c/k.

        These are std-free GRPO advantages of 0/1 rewards. eps_lo and eps_max are `clip_ratio_low` and
        `clip_ratio_high`, k is `rollout_n`. Metric: `actor/gapo/clip_high`, the mean bound over the rows.

        Raises:
            ValueError: no bounds, eps_max below eps_lo, fewer than two rollouts a prompt, or an advantage that GRPO
                without the std cannot give on 0/1 rewards.
        """
        low, high, group_size = self._bounds(config)
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
        ours = copy.copy(config)  # a frozen dataclass
        # verl clamps to 1 - low and 1 + high; these differences are exact, so the bounds are those of plain numbers
        object.__setattr__(ours, "clip_ratio_low", 1.0 - (1.0 - torch.full_like(upper, low)).to(dtype))
        object.__setattr__(ours, "clip_ratio_high", (1.0 + upper).to(dtype) - 1.0)
        return advantages, ours, {"actor/gapo/clip_high": upper.mean().item()}

    def _bounds(self, config: Any) -> tuple[float, float, int]:
        """eps_lo, eps_max and k."""
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


def policy_losses(verls: Callable[[str], PolicyLossFn]) -> dict[str, PolicyLossFn]:
    """Every policy loss of ours by name; `verls` gives verl's own function by its name."""
    table: list[Loss] = [FocalLoss(f"f_{base}", verls(base)) for base in BASE_LOSSES]
    table += [GapoLoss(name, verls(base)) for name, base in GAPO_LOSSES.items()]
    return {loss.name: loss for loss in table}
