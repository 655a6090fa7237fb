"""The focal settings of verl's policy losses: the one dataclass that must subclass verl's own.

`import verl` comes first: it loads the plugin, so that this module can be the first of ours that a program imports.
"""

from dataclasses import dataclass

import verl  # noqa: F401
from verl.workers.config import PolicyLossConfig

from verl_fgrpo.core.numbers import check_gamma
from verl_fgrpo.methods.settings import DEFAULT_GAMMA

__all__ = ["FocalPolicyLossConfig"]


@dataclass
class FocalPolicyLossConfig(PolicyLossConfig):  # type: ignore[misc]
    """verl's policy-loss settings plus the focal ones, for the f_ policy losses.

    Switched on by `actor_rollout_ref.actor.policy_loss._target_=verl_fgrpo.config.FocalPolicyLossConfig`.

    Args:
        focal_gamma: focal exponent, at least 0.
        norm_adv_by_std_in_grpo: whether the advantages that reach the loss were divided by the group's std; must agree
            with `algorithm.norm_adv_by_std_in_grpo`.

    Raises:
        ValueError: focal_gamma negative or not finite.
    """

    focal_gamma: float = DEFAULT_GAMMA
    norm_adv_by_std_in_grpo: bool = True

    def __post_init__(self) -> None:
        check_gamma(self.focal_gamma, "actor_rollout_ref.actor.policy_loss.focal_gamma")
