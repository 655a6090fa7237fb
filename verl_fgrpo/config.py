"""The focal settings, typed and validated in one place, read from verl's config."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from verl.workers.config import PolicyLossConfig

DEFAULT_GAMMA = 0.5  # paper Table 5 (the value selected for most models)
DEFAULT_SUCCESS_THRESHOLD = 0.5  # for the paper's 1.0 / 0.0 rewards


def check_gamma(value: Any, key: str) -> float:
    """Return `value` as a float if it is a valid focal exponent.

    Raises:
        ValueError: not a number, negative, infinite or NaN.
    """
    try:
        gamma = float(value)
    except (TypeError, ValueError):
        gamma = float("nan")
    if not (isfinite(gamma) and gamma >= 0):
        raise ValueError(
            f"{key} is {value!r}, but it must be a finite number of at least 0 (0 is the base method); "
            f"the paper uses 0.5 or 1.0, e.g. +{key}=0.5"
        )
    return gamma


@dataclass(frozen=True)
class FocalConfig:
    """Settings of the f_ advantage estimators.

    Args:
        gamma: focal exponent, `algorithm.focal_gamma`.
        success_threshold: a rollout whose summed reward is above it is correct, `algorithm.focal_success_threshold`.
            0.5 for 0/1 rewards, 0.0 for -1/1, -0.5 for -1/1 with an overlong penalty. Plays no part where a trainer
            mode of verl_fgrpo hands over the reward function's own `acc`.
        norm_adv_by_std_in_grpo: verl's own flag, handed on to the estimators that take it.

    Raises:
        ValueError: gamma negative or not finite, threshold not finite.
    """

    gamma: float = DEFAULT_GAMMA
    success_threshold: float = DEFAULT_SUCCESS_THRESHOLD
    norm_adv_by_std_in_grpo: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", check_gamma(self.gamma, "algorithm.focal_gamma"))
        try:
            threshold = float(self.success_threshold)
        except (TypeError, ValueError):
            threshold = float("nan")
        if not isfinite(threshold):
            raise ValueError(
                f"algorithm.focal_success_threshold is {self.success_threshold!r}, but it must be a finite number "
                "between the rewards of wrong and correct rollouts; use 0.5 for 0/1 rewards and 0.0 for -1/1 rewards"
            )
        object.__setattr__(self, "success_threshold", threshold)

    @classmethod
    def from_algorithm(cls, algorithm: Mapping[str, Any] | None, raw_scores: bool = False) -> "FocalConfig":
        """Read the settings from verl's `algorithm` config.

        Args:
            algorithm: a DictConfig, a dataclass with `get`, a dict, or None.
            raw_scores: whether the reward before a KL penalty is at hand, which tells success with KL in the reward.

        Raises:
            ValueError: an invalid value, or `use_kl_in_reward=True` without raw scores.
        """
        if algorithm is None:
            return cls()
        if algorithm.get("use_kl_in_reward", False) and not raw_scores:
            raise ValueError(
                "algorithm.use_kl_in_reward is True, but then the reward no longer tells whether a rollout succeeded, "
                "and the focal weight needs that; set algorithm.use_kl_in_reward=False and put the KL term into the "
                "loss with actor_rollout_ref.actor.use_kl_loss=True, or set trainer.v1.trainer_mode=focal_sync, which "
                "hands over the reward before KL"
            )
        return cls(
            gamma=algorithm.get("focal_gamma", DEFAULT_GAMMA),
            success_threshold=algorithm.get("focal_success_threshold", DEFAULT_SUCCESS_THRESHOLD),
            norm_adv_by_std_in_grpo=bool(algorithm.get("norm_adv_by_std_in_grpo", True)),
        )


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
