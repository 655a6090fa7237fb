"""verl's configuration before verl runs: composed from its own files, and looked at for what cannot be meant."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_fgrpo.host.configuration import find_problems
from verl_fgrpo.host.explain import compose


def compose_config(arguments: Sequence[str]) -> DictConfig:
    """The configuration that `python -m verl.trainer.main_ppo ARGUMENTS` composes, with all references resolved.

    Raises:
        ImportError: no verl.
        ValueError: Hydra refuses an argument (unknown key, bad value).
    """
    config: DictConfig = compose(arguments)
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ValueError(f"verl would not compose this command line: {error}") from error
    return config


def implausible(config: DictConfig) -> list[str]:
    """Values that would fail or mislead later, one sentence each: value, rule, remedy. Imports verl for its names."""
    problems = find_problems(config)
    return [*problems, *_numbers(config), *_names(config, "\n".join(problems)), *_batches(config)]


def _numbers(config: DictConfig) -> list[str]:
    rules: list[tuple[str, str, Callable[[Any], bool]]] = [
        ("actor_rollout_ref.actor.optim.lr", "above 0 and below 1, e.g. 1e-6", lambda x: 0 < x < 1),
        ("actor_rollout_ref.rollout.temperature", "above 0, e.g. 1.0", lambda x: x > 0),
        ("actor_rollout_ref.rollout.n", "at least 2, for a group compares its rollouts", lambda x: x >= 2),
        ("data.train_batch_size", "at least 1", lambda x: x >= 1),
        ("data.max_prompt_length", "at least 1", lambda x: x >= 1),
        ("data.max_response_length", "at least 1", lambda x: x >= 1),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", "at least 1", lambda x: x >= 1),
    ]
    problems = []
    for key, rule, holds in rules:
        value = OmegaConf.select(config, key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (number and holds(value)):
            problems.append(f"{key} is {value!r}, but must be a number {rule}")
    return problems


def _names(config: DictConfig, told: str) -> list[str]:
    """Estimator, loss and loggers that verl does not know, but for those that are `told` already."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
    from verl.utils.tracking import Tracking

    loggers = config.trainer.logger
    actor = config.actor_rollout_ref.actor
    problems = [
        _unknown(key, value, known)
        for key, value, known in (
            ("algorithm.adv_estimator", config.algorithm.adv_estimator, ADV_ESTIMATOR_REGISTRY),
            ("actor_rollout_ref.actor.policy_loss.loss_mode", actor.policy_loss.loss_mode, POLICY_LOSS_REGISTRY),
        )
        if f"{key} is " not in told
    ]
    for name in [loggers] if isinstance(loggers, str) else loggers:
        problems.append(_unknown("trainer.logger (LOGGER)", name, Tracking.supported_backend))
    return [problem for problem in problems if problem]


def _unknown(key: str, value: Any, known: Iterable[Any]) -> str | None:
    names = sorted({str(getattr(name, "value", name)) for name in known})
    if str(value) in names:
        return None
    near = difflib.get_close_matches(str(value), names, n=1)
    return f"{key} is {value!r}, but verl knows {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


def _batches(config: DictConfig) -> list[str]:
    ranks = int(config.trainer.nnodes * config.trainer.n_gpus_per_node)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    mini = actor.ppo_mini_batch_size * rollout.n
    if config.trainer.device == "cpu" or mini % ranks == 0:
        return []
    return [
        f"a mini-batch of {actor.ppo_mini_batch_size} prompts x {rollout.n} rollouts = {mini} cannot be shared by "
        f"{ranks} GPUs; make MINI_BATCH_SIZE * GROUP_SIZE a multiple of NNODES * GPUS_PER_NODE"
    ]
