"""The settings of all methods, typed and validated in one place, read from verl's `algorithm` config. No verl."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

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


@dataclass(frozen=True)
class SiblingConfig:
    """Settings of the sibling methods, all under verl's `algorithm`.

    Args:
        unlikeliness_beta: strength of the rank penalty, 0 to 1. 0.25: arXiv 2506.02355.
        ds_gp: weight of log pi_old for correct rollouts, at least 0. Ours: no published value is known to us; 0.001
            moves a response of 500 tokens at -0.3 nats each by 0.15.
        ds_gn: the same for wrong rollouts.
        ds_length_normalized: False takes log pi_old of the whole response (arXiv 2511.19942, eq. 6), True its mean per
            token, so that long responses are not moved more; then ds_gp and ds_gn want to be larger, e.g. 0.1.
        w_reinforce_lambda: advantage of a correct rollout, at least 0. 0.1: arXiv 2506.01347; 0 is NSR.
        passk_k: rollouts that share a reward, at least 1, at most the group size. Ours: 4, half of the usual 8.

    Raises:
        ValueError: a value out of range or of the wrong type.
    """

    unlikeliness_beta: float = 0.25
    ds_gp: float = 0.001
    ds_gn: float = 0.001
    ds_length_normalized: bool = False
    w_reinforce_lambda: float = 0.1
    passk_k: int = 4

    def __post_init__(self) -> None:
        for key, highest in (
            ("unlikeliness_beta", 1.0),
            ("ds_gp", float("inf")),
            ("ds_gn", float("inf")),
            ("w_reinforce_lambda", float("inf")),
        ):
            value = getattr(self, key)
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = float("nan")
            if not (isfinite(number) and 0 <= number <= highest):
                rule = "a finite number of at least 0" if highest > 1 else "a number from 0 to 1"
                default = type(self).__dataclass_fields__[key].default
                raise ValueError(
                    f"algorithm.{key} is {value!r}, but it must be {rule}; e.g. +algorithm.{key}={default}"
                )
            object.__setattr__(self, key, number)
        if not isinstance(self.ds_length_normalized, bool):
            raise ValueError(
                f"algorithm.ds_length_normalized is {self.ds_length_normalized!r}, but it must be True or False; "
                "e.g. +algorithm.ds_length_normalized=False"
            )
        if isinstance(self.passk_k, bool) or not isinstance(self.passk_k, int) or self.passk_k < 1:
            raise ValueError(
                f"algorithm.passk_k is {self.passk_k!r}, but it must be a whole number from 1 to "
                "actor_rollout_ref.rollout.n; e.g. +algorithm.passk_k=4"
            )

    @classmethod
    def from_algorithm(cls, algorithm: Mapping[str, Any] | None) -> "SiblingConfig":
        """Read the settings from verl's `algorithm` config (a DictConfig, a dataclass with `get`, a dict, or None).

        Raises:
            ValueError: an invalid value.
        """
        if algorithm is None:
            return cls()
        return cls(**{f.name: algorithm.get(f.name, f.default) for f in fields(cls)})
