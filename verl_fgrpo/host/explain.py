"""What a command line of verl would train, before it trains: weight, gamma, success, trainer, contradictions.

    verl-fgrpo explain +focal=grpo algorithm.focal_gamma=1.0 actor_rollout_ref.rollout.n=8

Takes the overrides of `python -m verl.trainer.main_ppo` and composes verl's configuration as it does. Exit code 1 if
settings contradict each other, with a remedy for each; the same check stops the run itself.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

from verl_fgrpo.core.command import command_parser, redact
from verl_fgrpo.host.contract import import_host
from verl_fgrpo.host.registry import our_names

#: trainers of verl: (how it is chosen, does it know sessions, where focal metrics go)
TRAINERS = {
    "v1": ("the raw reward, acc, log-probabilities, sessions and padding", "focal/* among verl's own metrics"),
    "legacy": ("the raw reward, acc and log-probabilities, no sessions", "one log line a step"),
}


def compose(overrides: Sequence[str], name: str = "ppo_trainer") -> Any:
    """verl's configuration as its entry point composes it.

    Raises:
        ValueError: verl has no such configuration, key or preset.
    """
    import_host()  # loads the plugin, and with it the presets
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            return hydra_compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        cause = f"; {error.__cause__}" if error.__cause__ is not None else ""
        told = " ".join(f"{error}{cause}".split())
        raise ValueError(f"verl would not compose this command line: {told}") from error


def explain(config: Any, overrides: Sequence[str]) -> Iterator[str]:
    """The lines about one configuration, without its problems."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    from verl_fgrpo.host.configuration import POLICY_LOSS
    from verl_fgrpo.methods.settings import DEFAULT_GAMMA, GAMMA_KEYS, FocalConfig

    algorithm, estimator = config.algorithm, str(config.algorithm.adv_estimator)
    loss = str(OmegaConf.select(config, f"{POLICY_LOSS}.loss_mode"))
    in_loss = loss in our_names(POLICY_LOSS_REGISTRY) and loss.startswith("f_")
    in_estimator = estimator in our_names(ADV_ESTIMATOR_REGISTRY)
    try:
        settings = FocalConfig.from_algorithm(algorithm)
    except ValueError:
        settings = FocalConfig()
    gamma, key = settings.gamma, settings.gamma_key
    if in_loss:
        key = f"{POLICY_LOSS}.focal_gamma"
        gamma = OmegaConf.select(config, key, default=DEFAULT_GAMMA)
    if not (in_loss or (in_estimator and estimator.startswith("f_"))):
        yield f"weight      none: adv_estimator={estimator} and loss_mode={loss} apply no focal weight"
    else:
        where = (
            f"the advantages of {estimator.removeprefix('f_')}" if in_estimator else f"those of {estimator} in {loss}"
        )
        yield f"weight      (1 - success rate of the prompt's group) ** {gamma} times {where}"
        if settings.normalize and not in_loss:
            yield "            divided by the mean weight of the step's active groups (algorithm.focal_normalize)"
        origin = f"{key}{_set_by(key, overrides)}" if key else f"the default, as none of {', '.join(GAMMA_KEYS)} is set"
        yield f"gamma       {gamma} from {origin}" + ("; 0 is the plain method" if gamma == 0 else "")
    if in_loss:
        yield "success     read off plain GRPO advantages of two-valued rewards; anything else ends the run"
    elif in_estimator:
        yield f"success     {settings.success_text()}"
    n = config.actor_rollout_ref.rollout.n
    lone = ": a group of one has no advantage, set 8 or the like" if n == 1 else ""
    yield f"group       {n} rollouts a prompt (actor_rollout_ref.rollout.n){lone}"
    yield f"loss        {loss}, aggregation {config.actor_rollout_ref.actor.loss_agg_mode}, {_kl(config)}"
    kind = "v1" if config.trainer.get("use_v1", True) else "legacy"
    mode = (
        f"v1 {OmegaConf.select(config, 'trainer.v1.trainer_mode')}" if kind == "v1" else "legacy (trainer.use_v1=False)"
    )
    known, metrics = TRAINERS[kind]
    yield f"trainer     {mode}: an estimator of ours knows {known}; metrics: {metrics}"
    for name, changed in _presets(overrides):
        yield f"preset      {name} sets {', '.join(changed)}"


def _set_by(key: str, overrides: Sequence[str]) -> str:
    """Which words of the command line gave a key its value."""
    given = [word for word in overrides if word.lstrip("+").partition("=")[0] == key]
    presets = [word for word in overrides if word.lstrip("+").startswith("focal=")]
    words = given[-1:] or presets[-1:]
    return f" ({redact(words[0])})" if words else ""


def _kl(config: Any) -> str:
    terms = ["in the reward"] * bool(config.algorithm.use_kl_in_reward)
    terms += ["in the loss"] * bool(config.actor_rollout_ref.actor.use_kl_loss)
    return "KL " + " and ".join(terms) if terms else "no KL term"


def _presets(overrides: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Our presets on the command line, with the keys that each gives another value than verl."""
    presets = [word for word in overrides if word.lstrip("+").startswith("focal=")]
    if not presets:
        return
    plain = dict(_leaves(OmegaConf.to_container(compose([]))))
    for word in presets:
        leaves = _leaves(OmegaConf.to_container(compose([word])))
        yield word, [f"{key}={value}" for key, value in leaves if plain.get(key, ()) != value]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def main(arguments: Sequence[str]) -> int:
    """Print what a command line of verl would train; 1 if it contradicts itself."""
    parser = command_parser("explain", __doc__)
    parser.add_argument("overrides", nargs="*", help="of python -m verl.trainer.main_ppo")
    parser.add_argument("--config-name", default="ppo_trainer", help="as for main_ppo (default %(default)s)")
    given, more = parser.parse_known_args(arguments)
    overrides = [*given.overrides, *more]
    if any(word.startswith("-") for word in overrides):
        parser.error(f"{next(word for word in overrides if word.startswith('-'))!r} is no override of verl")
    start = time.perf_counter()
    verl = import_host()
    import_host("verl.trainer.ppo.core_algos")
    from omegaconf.errors import OmegaConfBaseException

    from verl_fgrpo import __version__
    from verl_fgrpo.host.configuration import find_problems, missing_section

    imported = time.perf_counter() - start
    config = compose(overrides, given.config_name)
    print(f"verl {verl.__version__}, verl_fgrpo {__version__}: {' '.join(map(redact, overrides)) or '(no overrides)'}")
    try:
        if path := missing_section(config):
            raise ValueError(
                f"{path} is no section of this configuration, but verl's trainers need it; leave it as it is"
            )
        for line in explain(config, overrides):
            print(line)
        problems = find_problems(config)
    except OmegaConfBaseException as error:
        told = " ".join(str(error).split())
        raise ValueError(f"the configuration does not resolve: {told}; correct that key or its override") from error
    for problem in problems:
        print(f"PROBLEM     {problem}")
    whole = time.perf_counter() - start
    print(f"{len(problems) or 'no'} problem(s); {whole:.1f} s, of them {imported:.1f} s to import verl")
    return 1 if problems else 0
