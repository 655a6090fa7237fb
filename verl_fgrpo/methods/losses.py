"""Policy losses: f_Y = verl's own loss Y on advantages that are focal-weighted inside the loss.

For plain GRPO advantages on two-valued rewards the success rate of a rollout's group can be read off its advantage
(`focal.success_rate_from_advantage`). So the weight also reaches `adv_estimator=grpo`, the one estimator for which verl
de-duplicates agent loops with several outputs per session.
"""

from collections.abc import Callable
from typing import Any

import torch

from verl_fgrpo.core.focal import focal_weight, success_rate_from_advantage
from verl_fgrpo.methods.settings import DEFAULT_GAMMA, check_gamma

PolicyLossFn = Callable[..., tuple[torch.Tensor, dict[str, Any]]]

# Left out: dppo_tv and dppo_kl (masks built from the raw advantage), dro (a quadratic term that must not be scaled),
# bypass_mode (computes its own advantages' weights and dispatches to another loss by name).
BASE_LOSSES = ("vanilla", "cispo", "gspo", "sapo", "geo_mean", "gpg", "clip_cov", "kl_cov")

LATTICE_TOLERANCE = 0.02
LATTICE_MIN_ROWS = 256


def snap_to_lattice(mu: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round success rates to X / N where they lie that close, so that the weight is exactly the estimator's.

    verl divides by std + 1e-6, which moves the rate read off an advantage by about 1e-6.

    Args:
        mu: success rates, any shape, float64.
        group_size: N, rollouts per group.

    Returns:
        mu with the values within `LATTICE_TOLERANCE / N` of a multiple of 1 / N rounded to it, and a bool tensor that
        tells which ones lay off the lattice and were left.
    """
    count = mu * group_size
    off = (count - count.round()).abs() > LATTICE_TOLERANCE
    return torch.where(off, mu, count.round() / group_size), off


class LatticeCheck:
    """Counts how many active rollouts have a success rate that no group of N two-valued rewards can have.

    With two-valued rewards mu * N is an integer. Advantages that were weighted already, come from another estimator or
    from shaped rewards leave that lattice, and reading success rates off them would be wrong. Decided once, after the
    first `LATTICE_MIN_ROWS` active rows; groups that lost a rollout are off the lattice too, so a minority is normal.
    """

    def __init__(self) -> None:
        self.active = 0
        self.off = 0
        self.decided = False

    def update(self, off_lattice: torch.Tensor, group_size: int) -> float:
        """Count active rows, told by a bool (A,) whether each is off the lattice; return the share off so far.

        Raises:
            ValueError: over half of the first rows are off the lattice.
        """
        self.active += off_lattice.numel()
        self.off += int(off_lattice.sum())
        share = self.off / self.active if self.active else 0.0
        if not self.decided and self.active >= LATTICE_MIN_ROWS:
            if share > 0.5:
                raise ValueError(
                    f"{self.off} of {self.active} active rollouts have an advantage that plain GRPO with "
                    f"{group_size} rollouts and two-valued rewards cannot give, but the f_ losses read the success "
                    "rate off that advantage; use algorithm.adv_estimator=grpo with 0/1 rewards and a matching "
                    "policy_loss.norm_adv_by_std_in_grpo, or an f_ estimator with the plain loss (never both)"
                )
            self.decided = True
        return share


def _row_advantage(advantages: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The advantage of each row, read at its first response token; shape (B,). Rows without a response get 0."""
    mask = response_mask > 0
    first = mask.to(torch.uint8).argmax(dim=1, keepdim=True)
    return (advantages.gather(1, first) * mask.gather(1, first)).squeeze(1)


def focal_policy_loss(name: str, host: PolicyLossFn) -> PolicyLossFn:
    """Wrap a policy loss of verl: the host's loss on (1 - mu) ** gamma * A, with mu read off A.

    Source: arXiv 2602.06717, eq. 11-13 and Table 3 of App. B for the base objectives.

    Args:
        name: verl's name of the loss, one of `BASE_LOSSES`.
        host: verl's function for it.

    Returns:
        A policy loss with verl's calling convention; see `focal_loss` in its closure for arguments and errors.
    """

    def focal_loss(
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

        A call sees one micro-batch, which may hold one row or no active row. gamma = 0 is the host's loss bit for bit.

        Args:
            old_log_prob, log_prob: (B, T) float, log-probabilities before and under the current update.
            advantages: (B, T) float, plain GRPO advantages: constant over a row's response.
            response_mask: (B, T), 1 for response tokens.
            loss_agg_mode: verl's aggregation mode.
            config: verl's actor config; `rollout_n` is the group size, `policy_loss` a `FocalPolicyLossConfig`
                (a plain one means gamma 0.5 and std-normalised advantages).
            rollout_is_weights: (B, T) importance weights, or None.

        Returns:
            loss (scalar) and the host's metrics plus, as means over the rows of the micro-batch,
            `actor/focal/active_share` (advantage not 0), `actor/focal/weight_mean` (inactive rows count as 1),
            `actor/focal/success_rate` (inactive rows count as 0: divide by active_share for the mean over active rows)
            and `actor/focal/off_lattice` (share so far, see `LatticeCheck`).

        Raises:
            ValueError: no actor config, a group size below 2, an invalid gamma, or advantages that are not plain GRPO.
        """
        gamma, divided_by_std, group_size, lattice = _settings(name, config)
        with torch.no_grad():
            row_advantage = _row_advantage(advantages, response_mask)
            mu, off = snap_to_lattice(
                success_rate_from_advantage(row_advantage, group_size, divided_by_std), group_size
            )
            weight = focal_weight(mu, gamma)
            active = row_advantage != 0
            off_lattice = lattice.update(off[active], group_size)
            weighted = advantages * weight.to(advantages.dtype).unsqueeze(-1)
        loss, metrics = host(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=weighted,
            response_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            config=config,
            rollout_is_weights=rollout_is_weights,
            **host_arguments,
        )
        rows = max(len(row_advantage), 1)
        return loss, {
            **metrics,
            "actor/focal/active_share": active.sum().item() / rows,
            "actor/focal/weight_mean": weight.sum().item() / rows,
            "actor/focal/success_rate": mu[active].sum().item() / rows,
            "actor/focal/off_lattice": off_lattice,
        }

    focal_loss.__name__ = focal_loss.__qualname__ = f"f_{name}"
    return focal_loss


def _settings(name: str, config: Any) -> tuple[float, bool, int, LatticeCheck]:
    """gamma, whether advantages were divided by the std, group size, and the run's lattice check."""
    if config is None:
        raise ValueError(f"f_{name} got config=None, but it needs verl's actor config; pass config=ActorConfig(...)")
    policy_loss = config.policy_loss
    gamma = check_gamma(
        policy_loss.get("focal_gamma", DEFAULT_GAMMA), "actor_rollout_ref.actor.policy_loss.focal_gamma"
    )
    rollout_n = config.get("rollout_n", None)
    try:
        group_size = int(rollout_n)
    except (TypeError, ValueError):
        raise ValueError(
            f"actor.rollout_n is {rollout_n!r}, but f_{name} needs the number of rollouts per prompt; "
            "set actor_rollout_ref.rollout.n (verl copies it to actor.rollout_n)"
        ) from None
    # The config object lives as long as the run's actor, so it carries the count; BaseConfig allows new attributes.
    lattice = vars(policy_loss).setdefault("_focal_lattice_check", LatticeCheck())
    return gamma, bool(policy_loss.get("norm_adv_by_std_in_grpo", True)), group_size, lattice
