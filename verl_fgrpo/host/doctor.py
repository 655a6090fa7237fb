"""The doctor, `verl-fgrpo doctor`: does the plugin work with the installed verl, and if not, why?"""

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence

import verl_fgrpo
from verl_fgrpo.host.contract import (
    CPU_HOST_SYMBOLS,
    HOST_SYMBOLS,
    RECIPE_HOST_SYMBOLS,
    TESTED_VERL,
    TRAINER_HOST_SYMBOLS,
    broken_symbols,
    import_host,
)
from verl_fgrpo.host.registry import our_names
from verl_fgrpo.host.state import registration
from verl_fgrpo.host.trainer_modes import MODES

#: what a task needs beyond verl: name -> "module:function" that returns (works, a line that says so), by name because
#: tasks stand above this room
TASK_REPORTS = {"Lean kernel": "verl_fgrpo.tasks.proofs.lean:kernel_report"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check() -> list[str]:
    """Print what is installed and registered; returns the problems found, each with its remedy."""
    print(f"verl_fgrpo {verl_fgrpo.__version__}, Python {platform.python_version()}")
    for package in ("verl", "torch", "ray", "transformers", "hydra-core", "TransferQueue", "vllm", "sglang"):
        print(f"  {package:<14} {_version(package) or 'not installed'}")
    verl_version = _version("verl")
    if verl_version is None:
        return ["verl is not installed; install the release you train with, e.g. pip install verl==0.9.1"]
    if verl_version not in TESTED_VERL:
        print(f"note: verl {verl_version} is not among the releases we tested ({', '.join(TESTED_VERL)})")
    problems = _loading()

    try:
        import_host()
    except ImportError as error:
        return [*problems, str(error)]

    if not registration.loaded:
        problems.append(
            "verl was imported but did not load verl_fgrpo.register; see the points above. Releases before 0.9 load "
            "no entry points: set VERL_USE_EXTERNAL_MODULES=verl_fgrpo.register for the driver and for every Ray worker"
        )
        return problems
    problems += _fit()
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    print("estimators       " + " ".join(our_names(ADV_ESTIMATOR_REGISTRY)))
    print("policy losses    " + " ".join(our_names(POLICY_LOSS_REGISTRY)))
    for name, place in TASK_REPORTS.items():
        module, function = place.split(":")
        works, line = getattr(importlib.import_module(module), function)()
        print(f"{name:<16} {line}" if works else f"note: {name}: {line}")
    problems += [f"registration failed:\n{failure}" for failure in registration.failures]
    problems += [
        f"the name {name!r} is taken by {holder}, so ours is not registered; the others are: use another name, or "
        "uninstall one of the two"
        for name, holder in registration.clashes.items()
    ]
    return problems


def _loading() -> list[str]:
    """Print how verl finds the plugin; what keeps it from doing so."""
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip()
    entry_points = list(importlib.metadata.entry_points(group="verl.plugins", name="verl_fgrpo"))
    print(f"entry point      {entry_points[0].value if entry_points else 'missing'}")
    print(f"VERL_PLATFORM    {os.environ.get('VERL_PLATFORM', '(not set)')}")
    modules = os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")
    if "verl_fgrpo.register" in (module.strip() for module in modules):
        print("VERL_USE_EXTERNAL_MODULES names verl_fgrpo.register; it must be set for every Ray worker, too")
    elif not entry_points:
        return [
            "the entry point verl.plugins:verl_fgrpo is missing, so verl does not load the plugin; install the package "
            "from its checkout, wheel or git address"
        ]
    elif policy != "auto" and "verl_fgrpo" not in policy.split(","):
        return [
            f"VERL_USE_EXTERNAL_PLUGINS is {policy!r}, which leaves verl_fgrpo out; unset it or add verl_fgrpo to it"
        ]
    return []


def _fit() -> list[str]:
    """What of verl is missing or has changed: of the plugin itself; of trainers and recipes only a note."""
    symbols = HOST_SYMBOLS
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        symbols = symbols | CPU_HOST_SYMBOLS
    if _version("TransferQueue") is None:
        print("note: TransferQueue is not installed, so verl's v1 trainers cannot run")
    elif broken_symbols({"verl.trainer.ppo.v1.trainer_base:register_trainer": ()}):
        print("note: this verl has no v1 trainers (they came with 0.9), so sessions and metrics are not known to us")
    else:
        symbols = symbols | TRAINER_HOST_SYMBOLS
        print("trainers         v1 " + " ".join(MODES.values()) + ", also as " + " ".join(MODES))
    problems = [
        f"{text}; this verl_fgrpo does not fit this verl: use one of {', '.join(TESTED_VERL)}"
        for text in broken_symbols(symbols)
    ]
    keys = ("focal_gamma", "f_grpo_gamma")
    own = [key for key in keys if not broken_symbols({"verl.trainer.config:AlgoConfig": (key,)})]
    if own and "f_grpo" not in registration.clashes:
        problems.append(
            f"this verl has a focal weight of its own (algorithm.{own[0]}), which f_ estimators and f_ losses would "
            f"meet as a second one; use adv_estimator=grpo algorithm.{own[0]}=0.5 there, or a verl without it"
        )
    for text in broken_symbols(RECIPE_HOST_SYMBOLS):
        print(f"note: the recipes do not run with this verl: {text}")
    return problems


def main(arguments: Sequence[str] = ()) -> int:
    """Run the checks; 0 if the plugin works, 1 if not."""
    if arguments:
        print("usage: verl-fgrpo doctor      checks the installed verl and what the plugin registered with it")
        return 0 if arguments[0] in ("-h", "--help") else 2
    problems = check()
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("all is well" if not problems else f"{len(problems)} problem(s)")
    return 1 if problems else 0
