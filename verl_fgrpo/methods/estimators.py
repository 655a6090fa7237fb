"""Advantage estimators: f_X = verl's own estimator X times the focal weight of the rollout's group."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from verl_fgrpo.core.focal import focal_weight, group_codes, success_rate
from verl_fgrpo.methods.context import correct_rollouts, handed_over, per_session
from verl_fgrpo.methods.metrics import weight_metrics
from verl_fgrpo.methods.settings import FocalConfig

AdvantageEstimatorFn = Callable[..., tuple[torch.Tensor, torch.Tensor]]

# Estimators of verl that compare the rollouts of one prompt. Left out: gdpo (several reward dimensions, so no one
# success rate), the optimal-token-baseline pair (needs data that a registered estimator is not given), gae,
# reinforce_plus_plus and remax (no group).
BASE_ESTIMATORS = (
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "rloo",
    "rloo_vectorized",
    "opo",
    "gpg",
    "reinforce_plus_plus_baseline",
)
# All but one compute a number per rollout and broadcast it over the tokens: they are called on summed rewards of shape
# (B, 1), which saves passes over (B, T). These must see the real matrices: the first whitens over tokens, the others
# (siblings) add up log-probabilities of response tokens.
NEEDS_TOKENS = frozenset({"reinforce_plus_plus_baseline", "unlikeliness", "ds_grpo"})
# This one weighs rollouts by their length: it gets a mask of two columns, 1 and length - 1, whose sum is the length.
NEEDS_LENGTH = frozenset({"opo"})
# These turn the uids into integers, which costs more than all the rest; ours are integers already.
FACTORIZES_INDEX = frozenset({"grpo_vectorized", "rloo_vectorized"})


def focal_estimator(name: str, host: AdvantageEstimatorFn) -> AdvantageEstimatorFn:
    """Wrap a group-relative estimator of verl with the focal weight.

        A_focal_i = (1 - mu_i) ** gamma * A_i                                               (arXiv 2602.06717, eq. 13)

    Args:
        name: verl's name of the estimator, one of `BASE_ESTIMATORS`, or of a sibling.
        host: verl's function for it.

    Returns:
        An estimator with verl's calling convention; see `focal_advantage` in its closure for arguments and errors.
    """
    takes_norm_flag = "norm_adv_by_std_in_grpo" in inspect.signature(host).parameters

    def focal_advantage(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any = None,
        config: Mapping[str, Any] | None = None,
        **host_arguments: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages of verl's estimator times the focal weight of each rollout's group.

        gamma = 0 is the host's result bit for bit. Masks, padding rows and row order do not change a weight. In a group
        of one a correct rollout gets weight 0, a wrong one weight 1. In a trainer mode of verl_fgrpo, which hands over
        more, the reward function's own `acc` or the reward before KL tells success, a session of an agent loop counts
        once (`per_session`), and `focal/weight_mean` and `focal/update_scale` are logged.

        Args:
            token_level_rewards: (B, T) float; summed over tokens it tells success, unless better is handed over.
            response_mask: (B, T), 1 for response tokens.
            index: (B,) group label (uid) of every rollout.
            config: verl's `algorithm` config with `focal_gamma`, `focal_success_threshold`, `norm_adv_by_std_in_grpo`.
            **host_arguments: handed on to the host.

        Returns:
            advantages and returns, (B, T) each, the same tensor where the host returns the same.

        Raises:
            ValueError: invalid settings, KL in the reward and no raw reward handed over, no uid, non-finite rewards, or
                only groups of one.
        """
        handover = handed_over()
        settings = FocalConfig.from_algorithm(
            config, raw_scores=handover is not None and handover.raw_scores is not None
        )
        if index is None:
            raise ValueError(
                f"f_{name} got no index (uid), but it needs the group of every rollout; "
                "run it through verl's trainer, which sets non_tensor_batch['uid'], or pass index="
            )
        if takes_norm_flag:
            host_arguments.setdefault("norm_adv_by_std_in_grpo", settings.norm_adv_by_std_in_grpo)
        with torch.no_grad():
            scores = token_level_rewards.sum(dim=-1)
            codes, labels = group_codes(index)
            check_batch(f"f_{name}", scores, codes, labels, response_mask)
            correct = correct_rollouts(scores, settings.success_threshold, handover)
            mu = success_rate(correct.to(torch.float64), codes)
            weight = focal_weight(mu, settings.gamma).to(scores.dtype).unsqueeze(-1)

            def log(magnitude: torch.Tensor) -> None:
                if handover is not None:
                    handover.metrics.update(weight_metrics(weight[:, 0], magnitude, codes, handover.padding))

            host_index = codes.numpy() if name in FACTORIZES_INDEX else index
            if name in NEEDS_TOKENS:
                advantages, returns = host(
                    token_level_rewards=token_level_rewards,
                    response_mask=response_mask,
                    index=host_index,
                    config=config,
                    **host_arguments,
                )
                log(advantages.abs().sum(dim=-1))
                weighted = advantages.mul_(weight)
                return weighted, weighted if returns is advantages else returns.mul_(weight)
            mask = response_mask.new_ones(len(scores), 1)
            if name in NEEDS_LENGTH:
                length = response_mask.sum(dim=-1, keepdim=True)
                mask = torch.cat([torch.ones_like(length), length - 1], dim=-1)
            advantages, _ = host(
                token_level_rewards=scores.unsqueeze(-1),
                response_mask=mask,
                index=host_index,
                config=config,
                **host_arguments,
            )
            log(advantages[:, 0].abs() * response_mask.sum(dim=-1))
            weighted = (advantages[:, :1] * weight) * response_mask
        return weighted, weighted

    focal_advantage.__name__ = focal_advantage.__qualname__ = f"f_{name}"
    return per_session(focal_advantage)


def check_batch(
    name: str,
    scores: torch.Tensor,
    codes: torch.Tensor,
    labels: list[Any],
    response_mask: torch.Tensor,
    compares_rollouts: bool = True,
) -> None:
    """Refuse a batch whose advantages or success rates would be meaningless.

    Raises:
        ValueError: a wrong number of labels, a non-finite reward, or only groups of one where `compares_rollouts`.
    """
    if len(codes) != len(scores):
        raise ValueError(
            f"{name} got {len(scores)} rollouts but {len(codes)} group labels; pass one uid per rollout in index"
        )
    finite = torch.isfinite(scores)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(
            f"the reward of rollout {row} of uid {labels[int(codes[row])]!r} sums to {scores[row].item()}, but "
            "rewards must be finite numbers; make the reward function return 0.0 instead of NaN or infinity"
        )
    if not compares_rollouts:
        return
    size = torch.bincount(codes)
    several = size > 1
    # Padding rows share one uid and have an empty mask: they are no group. Looked at only when it can matter.
    if int(several.sum()) <= 1:
        real = response_mask.any(dim=-1).cpu()
        if bool(real.any()) and int(torch.bincount(codes[real]).max()) < 2:
            raise ValueError(
                f"every one of the {int(real.sum())} groups in this batch has one rollout, but {name} compares the "
                "rollouts of a prompt; set actor_rollout_ref.rollout.n to 2 or more (the paper uses 8)"
            )
