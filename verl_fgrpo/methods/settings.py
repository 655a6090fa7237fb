"""The settings of all methods: the one place that reads our keys from verl's configuration, typed and checked. No verl.

A new method's keys go into `MethodConfig`; `ALGORITHM_KEYS` follows by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf, nextafter
from typing import Any

from verl_fgrpo.core.numbers import check_gamma, finite_number

DEFAULT_GAMMA = 0.5  # paper Table 5 (the value selected for most models)
DEFAULT_SUCCESS_THRESHOLD = 0.5  # for the paper's 1.0 / 0.0 rewards

#: three spellings of the focal exponent: ours, that of verl #5334 by an author of the paper, that of verl #6797
GAMMA_KEYS = ("focal_gamma", "f_grpo_gamma", "fgrpo_gamma")
#: rewards of a correct and of a wrong rollout (verl #5334), with its defaults
REWARD_KEYS = {"f_grpo_reward_correct": 1.0, "f_grpo_reward_wrong": 0.0}
#: every key of the focal weight under `algorithm`
FOCAL_KEYS = (
    *GAMMA_KEYS,
    *REWARD_KEYS,
    "focal_success_threshold",
    "focal_success_threshold_by_source",
    "focal_normalize",
)


def _threshold(value: Any, key: str) -> float:
    rule = "a finite number between the rewards of wrong and correct rollouts"
    return finite_number(value, key, rule, "use 0.5 for 0/1 rewards and 0.0 for -1/1 rewards")


def _flag(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, but it must be True or False; e.g. +{key}=True")
    return value


@dataclass(frozen=True)
class FocalConfig:
    """Settings of the focal weight in the advantage estimators.

    Args:
        gamma: focal exponent, at least 0.
        gamma_key: the configuration key that gave it, "" for the default.
        success_threshold: a rollout whose summed reward is above it is correct. 0.5 for 0/1 rewards, 0.0 for -1/1, -0.5
            for -1/1 with an overlong penalty. Ignored when the reward function reports `acc`.
        threshold_by_source: the same for single values of `data_source`.
        rewards: (Rw, Rc) where the official keys choose the success rate from the mean reward, else None.
        default_reward: the key of the one of the two that is not set, "" if both are.
        normalize: whether weights are divided by their mean over the active groups of a step (`normalized_weight`).
            Ours, an experiment; the paper's is False.
        norm_adv_by_std_in_grpo: verl's own flag, handed on to the estimators that take it.
        use_kl_in_reward: verl's own flag; then the reward alone does not tell success.
    """

    gamma: float = DEFAULT_GAMMA
    gamma_key: str = ""
    success_threshold: float = DEFAULT_SUCCESS_THRESHOLD
    threshold_by_source: Mapping[str, float] = field(default_factory=dict)
    rewards: tuple[float, float] | None = None
    default_reward: str = ""
    normalize: bool = False
    norm_adv_by_std_in_grpo: bool = True
    use_kl_in_reward: bool = False

    @classmethod
    def from_algorithm(cls, algorithm: Mapping[str, Any] | None) -> "FocalConfig":
        """Read the settings from verl's `algorithm` config: a DictConfig, a dataclass with `get`, or a dict.

        Raises:
            ValueError: no config, an invalid value, two gammas, or rewards without a gamma, beside a threshold or in
                the wrong order.
        """
        if algorithm is None:
            raise ValueError(
                "the estimator got config=None, but gamma and threshold stand in verl's algorithm config; call "
                "compute_advantage(..., config=config.algorithm)"
            )
        set_keys = [key for key in GAMMA_KEYS if algorithm.get(key) is not None]
        gammas = {key: check_gamma(algorithm.get(key), f"algorithm.{key}") for key in set_keys}
        if len(set(gammas.values())) > 1:
            told = " and ".join(f"algorithm.{key}={value}" for key, value in gammas.items())
            raise ValueError(f"{told} name the same exponent, so they must be equal; keep one of them")
        normalize = algorithm.get("focal_normalize")
        threshold = algorithm.get("focal_success_threshold")
        return cls(
            gamma=next(iter(gammas.values()), DEFAULT_GAMMA),
            gamma_key=f"algorithm.{next(iter(gammas))}" if gammas else "",
            success_threshold=(
                DEFAULT_SUCCESS_THRESHOLD
                if threshold is None
                else _threshold(threshold, "algorithm.focal_success_threshold")
            ),
            threshold_by_source=_thresholds_by_source(algorithm),
            rewards=_rewards(algorithm, has_gamma=bool(gammas)),
            default_reward=next((key for key in REWARD_KEYS if algorithm.get(key) is None), ""),
            normalize=normalize is not None and _flag(normalize, "algorithm.focal_normalize"),
            norm_adv_by_std_in_grpo=bool(algorithm.get("norm_adv_by_std_in_grpo", True)),
            use_kl_in_reward=bool(algorithm.get("use_kl_in_reward", False)),
        )

    def threshold_of(self, data_source: str | None) -> float:
        """A score above it is correct, where no `acc` decides: of its data source; the middle of `rewards` if set."""
        if self.rewards is not None:
            return sum(self.rewards) / 2
        return self.threshold_by_source.get(data_source or "", self.success_threshold)

    def success_text(self) -> str:
        """What tells success, in words, for logs."""
        if self.rewards is not None:
            wrong, correct = self.rewards
            return f"mu = (mean reward - {wrong:g}) / ({correct:g} - {wrong:g}), clamped to 0..1, whatever acc says"
        by_source = "".join(f", {value:g} for {source}" for source, value in self.threshold_by_source.items())
        threshold = f"summed reward > {self.success_threshold:g}{by_source}"
        return f"the reward function's acc where it returns one, else {threshold}"


def _thresholds_by_source(algorithm: Mapping[str, Any]) -> dict[str, float]:
    key = "algorithm.focal_success_threshold_by_source"
    given = algorithm.get("focal_success_threshold_by_source")
    if given is None:
        return {}
    if not hasattr(given, "items"):
        raise ValueError(
            f"{key} is {given!r}, but it must map data sources to thresholds; e.g. "
            f"'+{key}={{openai/gsm8k:0.5,code:0.99}}'"
        )
    return {str(source): _threshold(value, f"{key}[{source}]") for source, value in given.items()}


def _rewards(algorithm: Mapping[str, Any], has_gamma: bool) -> tuple[float, float] | None:
    """(Rw, Rc) if the official keys are there."""
    given = {key: algorithm.get(key) for key in REWARD_KEYS}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return None
    named = " and ".join(f"algorithm.{key}={value}" for key, value in given.items())
    values = {
        key: finite_number(
            given.get(key, default), f"algorithm.{key}", "a finite number", f"e.g. +algorithm.{key}={default}"
        )
        for key, default in REWARD_KEYS.items()
    }
    correct, wrong = values["f_grpo_reward_correct"], values["f_grpo_reward_wrong"]
    if correct <= wrong:
        raise ValueError(
            f"algorithm.f_grpo_reward_correct is {correct:g} and f_grpo_reward_wrong is {wrong:g}, but a correct "
            "rollout must earn more than a wrong one; e.g. +algorithm.f_grpo_reward_correct=1.0 "
            "+algorithm.f_grpo_reward_wrong=0.0"
        )
    for threshold in ("focal_success_threshold", "focal_success_threshold_by_source"):
        if algorithm.get(threshold) is not None:
            raise ValueError(
                f"{named} takes success from the mean reward and algorithm.{threshold} from single rewards, but "
                f"there is one success rate; remove one of them (a preset's threshold with ~algorithm.{threshold})"
            )
    if not has_gamma:
        raise ValueError(
            f"{named} needs a gamma beside it, because its authors' default is 1.0 and ours 0.5; add "
            "+algorithm.f_grpo_gamma=1.0"
        )
    return wrong, correct


@dataclass(frozen=True)
class PolicyLossSettings:
    """What an f_ loss reads from verl's actor config."""

    gamma: float  # focal exponent
    divided_by_std: bool  # whether the advantages that reach the loss were divided by the group's std
    group_size: int  # rollouts per prompt

    @classmethod
    def from_actor(cls, name: str, config: Any) -> "PolicyLossSettings":
        """Read them from verl's actor config.

        Raises:
            ValueError: no `FocalPolicyLossConfig`, an invalid gamma, or no group size.
        """
        policy_loss = config.policy_loss
        if policy_loss.get("focal_gamma") is None:
            raise ValueError(
                f"{name} found no focal_gamma in actor.policy_loss, so nobody knows its gamma; set "
                "actor_rollout_ref.actor.policy_loss._target_=verl_fgrpo.config.FocalPolicyLossConfig and "
                "+actor_rollout_ref.actor.policy_loss.focal_gamma=0.5, or use a preset such as +focal=grpo_loss"
            )
        rollout_n = config.get("rollout_n", None)
        try:
            group_size = int(rollout_n)
        except (TypeError, ValueError):
            raise ValueError(
                f"actor.rollout_n is {rollout_n!r}, but {name} needs the number of rollouts per prompt; "
                "set actor_rollout_ref.rollout.n (verl copies it to actor.rollout_n)"
            ) from None
        return cls(
            gamma=check_gamma(policy_loss.get("focal_gamma"), "actor_rollout_ref.actor.policy_loss.focal_gamma"),
            divided_by_std=bool(policy_loss.get("norm_adv_by_std_in_grpo", True)),
            group_size=group_size,
        )


@dataclass(frozen=True)
class MethodConfig:
    """Settings of the methods that F-GRPO is compared with, all under verl's `algorithm`.

    Args:
        unlikeliness_beta: strength of the rank penalty, 0 to 1. 0.25: arXiv 2506.02355.
        ds_gp: weight of log pi_old for correct rollouts, at least 0. Ours: no published value is known to us; 0.001
            moves a response of 500 tokens at -0.3 nats each by 0.15.
        ds_gn: the same for wrong rollouts.
        ds_length_normalized: False takes log pi_old of the whole response (arXiv 2511.19942, eq. 6), True its mean per
            token, so that long responses are not moved more; then ds_gp and ds_gn should be larger, e.g. 0.1.
        w_reinforce_lambda: advantage of a correct rollout, at least 0. 0.1: arXiv 2506.01347; 0 is NSR.
        passk_k: rollouts that share a reward, at least 1, at most the group size. Ours: 4, half of the usual 8.
        fade_alpha_max: largest exponent, at least 1. 3: arXiv 2607.01490, as the next two.
        fade_delta_min: least delta, above 0 and at most 1. 0.3.
        fade_ema: weight of the new step in the moving averages, above 0 and at most 1. 0.02.
        fade_entropy_target: H* in nats, at least 0; None for half of the start policy's entropy.

    Raises:
        ValueError: a value out of range or of the wrong type.
    """

    unlikeliness_beta: float = 0.25
    ds_gp: float = 0.001
    ds_gn: float = 0.001
    ds_length_normalized: bool = False
    w_reinforce_lambda: float = 0.1
    passk_k: int = 4
    fade_alpha_max: float = 3.0
    fade_delta_min: float = 0.3
    fade_ema: float = 0.02
    fade_entropy_target: float | None = None

    def __post_init__(self) -> None:
        least = nextafter(0.0, 1.0)
        for key, low, high, rule in (
            ("unlikeliness_beta", 0.0, 1.0, "a number from 0 to 1"),
            ("ds_gp", 0.0, inf, "a finite number of at least 0"),
            ("ds_gn", 0.0, inf, "a finite number of at least 0"),
            ("w_reinforce_lambda", 0.0, inf, "a finite number of at least 0"),
            ("fade_alpha_max", 1.0, inf, "a finite number of at least 1"),
            ("fade_delta_min", least, 1.0, "a number above 0 and at most 1"),
            ("fade_ema", least, 1.0, "a number above 0 and at most 1"),
            ("fade_entropy_target", 0.0, inf, "a number of nats of at least 0, or null"),
        ):
            value, default = getattr(self, key), type(self).__dataclass_fields__[key].default
            if value is not None or default is not None:
                remedy = f"e.g. +algorithm.{key}={1.0 if default is None else default}"
                object.__setattr__(self, key, finite_number(value, f"algorithm.{key}", rule, remedy, low, high))
        _flag(self.ds_length_normalized, "algorithm.ds_length_normalized")
        if isinstance(self.passk_k, bool) or not isinstance(self.passk_k, int) or self.passk_k < 1:
            raise ValueError(
                f"algorithm.passk_k is {self.passk_k!r}, but it must be a whole number from 1 to "
                "actor_rollout_ref.rollout.n; e.g. +algorithm.passk_k=4"
            )

    @classmethod
    def from_algorithm(cls, algorithm: Mapping[str, Any]) -> "MethodConfig":
        """Read the settings from verl's `algorithm` config (a DictConfig, a dataclass with `get`, or a dict).

        Raises:
            ValueError: an invalid value.
        """
        return cls(**{f.name: algorithm.get(f.name, f.default) for f in fields(cls)})


#: every key of ours under `algorithm`
ALGORITHM_KEYS = (*FOCAL_KEYS, *(f.name for f in fields(MethodConfig)))
