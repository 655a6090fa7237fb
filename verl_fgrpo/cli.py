"""The command `verl-fgrpo` (also `python -m verl_fgrpo.cli`): a table of commands, each imported when it is called."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import verl_fgrpo
from verl_fgrpo.core.command import run_command


class Command(NamedTuple):
    """`main` is "module:function"; the function takes the arguments and returns the exit code (None: 0)."""

    main: str
    help: str
    example: str


COMMANDS: dict[str, Command] = {
    "doctor": Command("verl_fgrpo.host.doctor:main", "does the plugin work with the installed verl?", ""),
    "explain": Command("verl_fgrpo.host.explain:main", "what would this command line of verl train?", "+focal=grpo"),
    "data": Command(
        "verl_fgrpo.runs.data:main", "benchmarks and training files", "benchmarks --out data --only aime24"
    ),
    "eval": Command("verl_fgrpo.evaluation.cli:main", "sample, grade, report, compare", "grade --run runs/grpo"),
    "tail-miss": Command(
        "verl_fgrpo.theory.tail_miss_command:main",
        "is your group size in the danger zone?",
        "--success-rate 0.3 --group-size 8",
    ),
    "audit": Command(
        "verl_fgrpo.runs.audit:main",
        "a run's focal weights from its rollout dumps, against its log",
        "outputs/RUN --focal-gamma 0.5 --figure audit.png",
    ),
    "val-passk": Command("verl_fgrpo.host.validation:main", "unbiased pass@k of a run's validations", "outputs/RUN"),
    "simulate": Command("verl_fgrpo.theory.sweep:main", "the paper's categorical simulation", "--quick"),
    "figures": Command("verl_fgrpo.theory.figures:main", "the paper's theory figures", "--quick"),
    "maze": Command("verl_fgrpo.tasks.maze.commands:main", "what the maze recipes call", "prepare --out outputs/maze"),
    "proofs": Command("verl_fgrpo.tasks.proofs.commands:main", "the theorem-proving task and its Lean kernel", "check"),
    "countdown": Command(
        "verl_fgrpo.tasks.countdown.commands:main",
        "what the SmolLM2 recipe calls",
        "prepare --out outputs/countdown",
    ),
    "preflight": Command("verl_fgrpo.runs.preflight:main", "what GPU recipes check before verl starts", "dry-run ..."),
    "run-folder": Command("verl_fgrpo.runs.run_folder:main", "what recipes call around a run", "last-step RUN"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names.

    Returns:
        The exit code: 0 done, 1 an error told in one line, 2 wrong usage, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ("-V", "--version"):
        print(f"verl_fgrpo {verl_fgrpo.__version__}")
        return 0
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if given else 2
    name, *rest = given
    if name not in COMMANDS:
        print(f"verl-fgrpo: there is no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module, function = COMMANDS[name].main.split(":")
    return run_command(
        f"verl-fgrpo {name}", lambda words: getattr(importlib.import_module(module), function)(words), rest
    )


def usage() -> str:
    """All commands, one a line, each with an example."""
    width = max(map(len, COMMANDS))
    lines = ["usage: verl-fgrpo COMMAND ...      verl-fgrpo COMMAND --help tells its options", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<{width}}  {command.help}")
        lines.append(f"  {'':<{width}}      verl-fgrpo {name} {command.example}".rstrip())
    return "\n".join([*lines, "", "VERL_FGRPO_TRACEBACK=1 prints full tracebacks."])


if __name__ == "__main__":
    sys.exit(main())
