"""Contradictions in verl's configuration that would train with another weight than was asked for, or with none.

`check` runs before workers start and before a run's first update; `verl-fgrpo explain` shows the same list.
"""

import difflib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_fgrpo.core.numbers import check_gamma
from verl_fgrpo.host.state import registration
from verl_fgrpo.host.trainer_modes import MODES
from verl_fgrpo.methods.estimators import HOST_ESTIMATORS, METHODS
from verl_fgrpo.methods.gapo import GAPO_LOSSES
from verl_fgrpo.methods.losses import BASE_LOSSES
from verl_fgrpo.methods.settings import ALGORITHM_KEYS, FOCAL_KEYS, GAMMA_KEYS, FocalConfig, MethodConfig

POLICY_LOSS = "actor_rollout_ref.actor.policy_loss"
LOSS_CONFIG = "verl_fgrpo.config.FocalPolicyLossConfig"
#: estimators of verl whose advantages the f_ losses can read
PLAIN_GRPO = ("grpo", "grpo_vectorized")
_MARKS = ("focal", "fgrpo", "f_grpo")
_KNOWN = (*(f"algorithm.{key}" for key in ALGORITHM_KEYS), f"{POLICY_LOSS}.focal_gamma")
#: what a key may be meant for by its name: every key of ours, and the focal ones without their prefix
_SHORT = {key.split("_", 2 if key.startswith("f_grpo") else 1)[-1]: key for key in reversed(FOCAL_KEYS)}
_NAMES = {**_SHORT, **{key: key for key in ALGORITHM_KEYS}}
#: flags of verl on which a weight depends; text such as 'False' counts as true there
_FLAGS = (
    *("algorithm.norm_adv_by_std_in_grpo", "algorithm.use_kl_in_reward", f"{POLICY_LOSS}.norm_adv_by_std_in_grpo"),
    *("algorithm.rollout_correction.bypass_mode", "trainer.use_v1"),
)
_WEIGHTED = frozenset(f"f_{base.name}" for base in (*HOST_ESTIMATORS, *METHODS))
_PLAIN = frozenset(method.name for method in METHODS)
_LOSSES = frozenset(f"f_{name}" for name in BASE_LOSSES)


class ContradictionError(CompactHydraException, ValueError):  # type: ignore[misc]
    """The configuration contradicts itself. verl's entry points, which are Hydra's, show it without a traceback."""


def check(config: Any, running: str = "") -> None:
    """Stop a run whose configuration contradicts itself; nothing happens for one that is not a trainer's.

    Raises:
        ContradictionError: a ValueError; every problem with its remedy.
    """
    if not isinstance(config, DictConfig) or missing_section(config):
        return
    problems = find_problems(config, running)
    if problems:
        raise ContradictionError(
            "verl_fgrpo: " + "\n".join(problems) + "\n(verl-fgrpo explain shows the same, before a run)"
        )


def missing_section(config: DictConfig) -> str:
    """The first part of a trainer's configuration that is not there or no mapping; "" if all are."""
    paths = ("algorithm", POLICY_LOSS, "trainer")
    return next((path for path in paths if not isinstance(OmegaConf.select(config, path), DictConfig)), "")


def find_problems(config: DictConfig, running: str = "") -> list[str]:
    """Everything in verl's whole configuration that would silently train otherwise than it says.

    One sentence per problem: value, rule, remedy. `running` is the estimator that is called, where that is known.
    """
    algorithm = config.algorithm
    estimator, loss = str(algorithm.get("adv_estimator")), str(OmegaConf.select(config, f"{POLICY_LOSS}.loss_mode"))
    in_use = estimator in _WEIGHTED | _PLAIN or loss in _LOSSES | GAPO_LOSSES.keys()
    problems = [*_unknown_keys(config, in_use), *_unknown_names(config)]
    problems += _left_open(config)
    hosts = _keys_of_the_host()
    ours = [
        key
        for key in FOCAL_KEYS
        if key not in hosts and algorithm.get(key) is not None and algorithm.get(key) is not False
    ]
    if estimator in registration.clashes:
        if ours:
            problems.append(_clash(estimator, ours))
        return problems
    settings: FocalConfig | None = None
    if ours or in_use:
        problems += _text_flags(config)
        try:
            settings = FocalConfig.from_algorithm(algorithm)
            MethodConfig.from_algorithm(algorithm)
        except (ValueError, OmegaConfBaseException) as error:
            problems.append(" ".join(str(error).split()))
    if loss in _LOSSES:
        problems += _loss_problems(config, estimator, loss, settings)
    else:
        problems += _estimator_problems(config, estimator, loss, ours)
        problems += _gapo_problems(config, estimator, loss, settings) if loss in GAPO_LOSSES else []
    problems += _fade_problems(config) if estimator in ("fade", "f_fade") else []
    problems += _passk_problems(config) if estimator in ("passk_training", "f_passk_training") else []
    problems += _unread_method_keys(config, running or estimator, hosts)
    problems += _distillation_problems(config) if in_use else []
    if not config.trainer.get("use_v1", True) and OmegaConf.select(config, "trainer.v1.trainer_mode") in MODES:
        problems.append(
            f"trainer.v1.trainer_mode is {config.trainer.v1.trainer_mode}, but trainer.use_v1 is False, where it is "
            "ignored; set trainer.use_v1=True"
        )
    own = [key for key in GAMMA_KEYS if key in hosts]
    if estimator in _WEIGHTED and own and "f_grpo" not in registration.clashes:
        problems.append(
            f"this verl has a focal weight of its own (algorithm.{own[0]}), which would be applied beside that of "
            f"adv_estimator={estimator}; use adv_estimator=grpo there, or a verl without it"
        )
    return problems


def _clash(estimator: str, ours: list[str]) -> str:
    return (
        f"algorithm.{ours[0]} is set, but adv_estimator={estimator} is {registration.clashes[estimator]} here, which "
        "does not read it; use the gamma key of that package (verl's own f_grpo: algorithm.f_grpo_gamma), remove "
        f"algorithm.{ours[0]}, or use f_grpo_vectorized, which is verl_fgrpo's"
    )


def _keys_of_the_host() -> frozenset[str]:
    """Keys of ours that this verl declares itself: they have a value whoever set them, and mean verl's own weight."""
    from verl.trainer.config import AlgoConfig

    return frozenset(f.name for f in fields(AlgoConfig)) & frozenset(ALGORITHM_KEYS)


def _keys(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and name of every key below `node`; environment variables and names of data sources are no keys."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    for key in node:
        here = path + str(key)
        yield here, str(key)
        if key != "env_vars" and here != "algorithm.focal_success_threshold_by_source":
            yield from _keys(node._get_node(key), f"{here}.")


def _left_open(config: DictConfig) -> list[str]:
    places = [(path, OmegaConf.select(config, path.rpartition(".")[0])) for path in _KNOWN]
    return [
        f"{path} is ???, which stands for a value still to be given; set {path}=..."
        for path, section in places
        if OmegaConf.is_missing(section, path.rpartition(".")[2])
    ]


def _unread_method_keys(config: DictConfig, estimator: str, hosts: frozenset[str]) -> list[str]:
    """Settings of a method that is not the run's, such as `unlikeliness_beta` with adv_estimator=grpo."""
    owners = {key: method.name for key in MethodConfig.__dataclass_fields__ for method in METHODS if method.reads(key)}
    return [
        f"algorithm.{key}={config.algorithm.get(key)} is set, but adv_estimator is {estimator}, which does not read "
        f"it; set algorithm.adv_estimator={owner}, or remove the key (~algorithm.{key})"
        for key, owner in owners.items()
        if config.algorithm.get(key) is not None and key not in hosts and estimator.removeprefix("f_") != owner
    ]


def _distillation_problems(config: DictConfig) -> list[str]:
    """Distillation alone has no loss on advantages."""
    task_rewards = "distillation.distillation_loss.use_task_rewards"
    if not OmegaConf.select(config, "distillation.enabled") or OmegaConf.select(config, task_rewards):
        return []
    return [
        f"{task_rewards} is False with distillation.enabled=True, so that no loss reads the advantages; set "
        f"{task_rewards}=True, or algorithm.adv_estimator=grpo without keys of verl_fgrpo"
    ]


def _text_flags(config: DictConfig) -> list[str]:
    values = {path: OmegaConf.select(config, path) for path in _FLAGS}
    return [
        f"{path} is the text {value!r}, which verl takes for true whatever it says; write {path}=True or False unquoted"
        for path, value in values.items()
        if isinstance(value, str)
    ]


def _unknown_keys(config: DictConfig, in_use: bool) -> list[str]:
    """Keys like ours that nothing reads; with `in_use`, also those without our prefix (`reward_wrong`)."""
    from verl.trainer.config import AlgoConfig
    from verl.workers.config import PolicyLossConfig

    hosts = {
        *(f"algorithm.{f.name}" for f in fields(AlgoConfig)),
        *(f"{POLICY_LOSS}.{f.name}" for f in fields(PolicyLossConfig)),
    }
    problems = []
    for path, key in _keys(config):
        if path in _KNOWN or path in hosts:
            continue
        plain = key.lower().replace("-", "_")
        near = difflib.get_close_matches(plain, _NAMES if in_use else ALGORITHM_KEYS, n=1, cutoff=0.8)
        section, words = path.rpartition(".")[0], set(plain.split("_"))
        in_place = section in ("algorithm", POLICY_LOSS, *([""] if in_use else []))
        part = "f" in words or any(words <= set(known.split("_")) for known in FOCAL_KEYS)  # `f_gama`, `threshold`
        likely = near and in_place or part and in_use and section == "algorithm"
        if not any(mark in plain for mark in _MARKS) and not likely:
            continue
        value, nearest = OmegaConf.select(config, path), _nearest(path, plain)
        example = "" if isinstance(value, (DictConfig, ListConfig)) else f", e.g. +{nearest}={value}"
        problems.append(
            f"{path}={value} is no key of verl_fgrpo or verl, so nothing would read it; the nearest one is "
            f"{nearest}{example}"
        )
    return problems


def _nearest(path: str, key: str) -> str:
    """The known key that is most like `key`, in the same place if there is one."""
    if path.startswith(f"{POLICY_LOSS}."):
        return f"{POLICY_LOSS}.focal_gamma"
    near = difflib.get_close_matches(key, _NAMES, n=1, cutoff=0.0)
    return f"algorithm.{_NAMES[near[0]]}"


def _unknown_names(config: DictConfig) -> list[str]:
    """Estimators and losses that look like ours and are none: verl would notice only at the first step."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    problems = []
    for path, registry, names in (
        ("algorithm.adv_estimator", ADV_ESTIMATOR_REGISTRY, _WEIGHTED | _PLAIN),
        (f"{POLICY_LOSS}.loss_mode", POLICY_LOSS_REGISTRY, _LOSSES | GAPO_LOSSES.keys()),
    ):
        value = str(OmegaConf.select(config, path))
        if value in registry:
            continue
        plain = value.lower().replace("-", "_")
        near = difflib.get_close_matches(plain, names, n=1, cutoff=0.8)
        if near or plain.startswith("f_") or any(mark in plain for mark in _MARKS):
            nearest = (near or difflib.get_close_matches(plain, names, n=1, cutoff=0.0))[0]
            problems.append(f"{path} is {value!r}, which verl does not know; did you mean {path}={nearest}?")
    return problems


def _loss_problems(config: DictConfig, estimator: str, loss: str, settings: FocalConfig | None) -> list[str]:
    """An f_ loss: it needs plain GRPO advantages and a configuration of its own."""
    problems = []
    policy_loss, algorithm = OmegaConf.select(config, POLICY_LOSS), config.algorithm
    base = loss.removeprefix("f_")
    if estimator not in PLAIN_GRPO:
        twice = (
            "the weight would be applied twice"
            if estimator in _WEIGHTED
            else "the loss reads success off GRPO advantages"
        )
        problems.append(
            f"algorithm.adv_estimator is {estimator} and {POLICY_LOSS}.loss_mode is {loss}, but {twice}; set "
            f"{POLICY_LOSS}.loss_mode={base} with adv_estimator=f_grpo, or adv_estimator=grpo with this loss"
        )
    if policy_loss.get("_target_") != LOSS_CONFIG:
        problems.append(
            f"{POLICY_LOSS}.loss_mode is {loss}, but {POLICY_LOSS}._target_ is {policy_loss.get('_target_')}, which "
            f"has no focal_gamma, so the loss would not know its gamma; set {POLICY_LOSS}._target_={LOSS_CONFIG} and "
            f"+{POLICY_LOSS}.focal_gamma=0.5, or use a preset such as +focal=grpo_loss"
        )
        return problems
    try:
        gamma = check_gamma(policy_loss.get("focal_gamma", 0.5), f"{POLICY_LOSS}.focal_gamma")
    except ValueError as error:
        return [*problems, str(error)]
    if settings is not None and settings.gamma_key and settings.gamma != gamma:
        problems.append(
            f"{settings.gamma_key} is {settings.gamma:g} and {POLICY_LOSS}.focal_gamma is {gamma:g}, but one run has "
            f"one gamma; set {POLICY_LOSS}.focal_gamma=${{{settings.gamma_key}}}"
        )
    divided = bool(policy_loss.get("norm_adv_by_std_in_grpo", True))
    if divided != bool(algorithm.get("norm_adv_by_std_in_grpo", True)):
        problems.append(
            f"{POLICY_LOSS}.norm_adv_by_std_in_grpo is {divided} and algorithm.norm_adv_by_std_in_grpo is "
            f"{not divided}, but the loss reads success off these advantages; set "
            f"+{POLICY_LOSS}.norm_adv_by_std_in_grpo={not divided}"
        )
    if algorithm.get("use_kl_in_reward", False):
        problems.append(
            f"algorithm.use_kl_in_reward is True with loss_mode={loss}, but then an advantage no longer tells "
            f"success; use adv_estimator=f_grpo with loss_mode={base}, which sees the reward before KL"
        )
    if settings is not None and settings.normalize:
        problems.append(
            f"algorithm.focal_normalize is True with loss_mode={loss}, which sees a micro-batch and not the step; use "
            f"adv_estimator=f_grpo with loss_mode={base}"
        )
    if settings is not None and settings.rewards is not None:
        problems.append(
            f"algorithm.f_grpo_reward_correct or f_grpo_reward_wrong is set with loss_mode={loss}, which does not "
            f"see rewards; use adv_estimator=f_grpo with loss_mode={base}"
        )
    return problems


def _gapo_problems(config: DictConfig, estimator: str, loss: str, settings: FocalConfig | None) -> list[str]:
    """GAPO reads the number of correct rollouts off the advantages of GRPO without the std and without a weight."""
    algorithm = config.algorithm
    unweighted = settings is None or settings.gamma == 0 or estimator in PLAIN_GRPO
    divided, kl = bool(algorithm.get("norm_adv_by_std_in_grpo", True)), bool(algorithm.get("use_kl_in_reward", False))
    if estimator.removeprefix("f_") in PLAIN_GRPO and unweighted and not divided and not kl:
        return []
    gamma = f", gamma {settings.gamma:g}" if settings is not None and not unweighted else ""
    return [
        f"{POLICY_LOSS}.loss_mode is {loss}, which reads the number of correct rollouts off GRPO advantages without "
        f"std and weight, but the run has adv_estimator={estimator}{gamma}, norm_adv_by_std_in_grpo={divided}, "
        f"use_kl_in_reward={kl}; use +focal=gapo, or algorithm.adv_estimator=grpo "
        "algorithm.norm_adv_by_std_in_grpo=False algorithm.use_kl_in_reward=False"
    ]


def _fade_problems(config: DictConfig) -> list[str]:
    """FADE needs advantages without the std, and entropies, which verl's v1 trainers compute outside of bypass mode."""
    problems = []
    for path, wanted, default in (
        ("algorithm.norm_adv_by_std_in_grpo", False, True),
        ("algorithm.rollout_correction.bypass_mode", False, False),
        ("trainer.use_v1", True, True),
    ):
        value = OmegaConf.select(config, path)
        if bool(default if value is None else value) != wanted:
            problems.append(f"{path} is {value}, but adv_estimator=fade needs {wanted}; set {path}={wanted}")
    return problems


def _passk_problems(config: DictConfig) -> list[str]:
    """k rollouts of a group share a reward, which verl would notice only at the first step."""
    k = config.algorithm.get("passk_k", MethodConfig.passk_k)
    n = OmegaConf.select(config, "actor_rollout_ref.rollout.n")
    if not (isinstance(k, int) and isinstance(n, int) and 1 < n < k):
        return []
    return [
        f"algorithm.passk_k is {k}, but a group has {n} rollouts (actor_rollout_ref.rollout.n), and k of them share a "
        f"reward; set +algorithm.passk_k to 1 ... {n}, or actor_rollout_ref.rollout.n={k} or more"
    ]


def _estimator_problems(config: DictConfig, estimator: str, loss: str, ours: list[str]) -> list[str]:
    """No f_ loss: then the weight is in the estimator, or nowhere."""
    problems = []
    policy_loss = OmegaConf.select(config, POLICY_LOSS)
    if policy_loss.get("_target_") == LOSS_CONFIG or policy_loss.get("focal_gamma") is not None:
        problems.append(
            f"{POLICY_LOSS} has a focal_gamma, but loss_mode is {loss}, which does not read it; set "
            f"+algorithm.focal_gamma=... with adv_estimator=f_grpo, or {POLICY_LOSS}.loss_mode=f_{loss} with "
            f"{POLICY_LOSS}._target_={LOSS_CONFIG} and adv_estimator=grpo"
        )
    if estimator in _WEIGHTED:
        discount = config.algorithm.get("gamma", 1.0)
        if discount != 1.0 and not set(ours) & set(GAMMA_KEYS):
            problems.append(
                f"algorithm.gamma is {discount}, which is verl's discount, not read by adv_estimator={estimator}; set "
                f"+algorithm.focal_gamma={discount} if that is meant, or algorithm.gamma=1.0"
            )
        return problems
    logs_success = estimator in _PLAIN or OmegaConf.select(config, "trainer.v1.trainer_mode") in MODES
    unread = [key for key in ours if key in (*GAMMA_KEYS, "focal_normalize") or not logs_success]
    if unread:
        weighted = f"f_{estimator}" if f"f_{estimator}" in _WEIGHTED else "f_grpo"
        set_keys = ", ".join(f"algorithm.{key}={config.algorithm.get(key)}" for key in unread)
        problems.append(
            f"{set_keys} is set, but adv_estimator is {estimator}, which applies no focal weight; set "
            f"algorithm.adv_estimator={weighted}, or remove the key (~algorithm.{unread[0]})"
        )
    return problems
