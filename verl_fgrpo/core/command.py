"""How every command of ours begins and ends: its parser, exit codes, one-line errors, secrets masked."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

__all__ = ["INTERRUPTED", "command_parser", "finite", "redact", "run_command", "run_subcommand"]

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

#: environment variables whose values are never printed
SECRET_VARIABLES = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")

_SECRETS = (
    (re.compile(r"(?i)(bearer\s+)[^\s'\"\\]+"), r"\1***"),
    (re.compile(r"(?i)(://)[^/\s@'\"]+@"), r"\1***@"),
    (
        re.compile(r"(?i)\b((?:api[-_]?key|access[-_]?token|token|password)['\"]?\s*[=:]\s*['\"]?)[^\s&'\",}]+"),
        r"\1***",
    ),
    (re.compile(r"\b(?:sk|hf)[-_][A-Za-z0-9_-]{8,}"), "***"),
)


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that calls itself `verl-fgrpo NAME` and shows its description as it is written."""
    return argparse.ArgumentParser(
        prog=f"verl-fgrpo {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def finite(text: str) -> float:
    """The type of options that are numbers: nan and inf are none."""
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number")
    return number


def run_subcommand(name: str, package: str, commands: Mapping[str, str], arguments: Sequence[str]) -> int:
    """Run `main` of the module `package`.COMMAND_command that the first argument names; imported only then.

    Args:
        name: of the command, without "verl-fgrpo".
        package: where the modules are.
        commands: name -> line of help.
        arguments: the name of one of them, and what follows.
    """
    text = "\n".join(f"  {command:<8} {line}" for command, line in commands.items())
    parser = command_parser(name, text)
    parser.add_argument("command", choices=commands)
    chosen = parser.parse_args(list(arguments[:1])).command
    return int(importlib.import_module(f"{package}.{chosen}_command").main(arguments[1:]))


def redact(text: str) -> str:
    """`text` without keys, tokens and passwords: values of `SECRET_VARIABLES`, bearer tokens, user parts of URLs."""
    for name in SECRET_VARIABLES:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    for pattern, masked in _SECRETS:
        text = pattern.sub(masked, text)
    return text


def run_command(name: str, main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    """Run one command and say how it ended.

    A ValueError, RuntimeError, OSError or ImportError is the user's to mend: one line on stderr, exit code 1;
    VERL_FGRPO_TRACEBACK=1 prints the full traceback. Other exceptions are faults of ours and keep theirs.

    Args:
        name: as typed, e.g. "verl-fgrpo eval sample"; begins the line.
        main: takes the arguments after the name and returns the exit code, None for 0.
        arguments: what follows the name.

    Returns:
        main's exit code; 1 after an error, 130 after Ctrl-C, 0 if the reader of a pipe left.
    """
    try:
        code = main(arguments) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one is enough: a second must not end in a traceback
        # Interrupted in a text it evaluates (a dataclass does), Python ends with the signal whatever we return, unless
        # it has evaluated another text since.
        eval("None")
        print(f"{name}: interrupted; rerun to resume", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `verl-fgrpo ... | head`: not an error; and nothing more may be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if os.environ.get("VERL_FGRPO_TRACEBACK"):
            print(redact(traceback.format_exc()), file=sys.stderr)
        else:
            print(f"{name}: {redact(str(error) or type(error).__name__)}", file=sys.stderr)
        return 1
