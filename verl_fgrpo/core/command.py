"""How every command of ours begins and ends: its parser, exit codes, one-line errors, secrets masked."""

import argparse
import importlib
import io
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

#: options that name what is written, with the endings of existing files that each may replace
OUTPUTS = {
    "out": (".jsonl", ".json"),
    "output": (".csv",),
    "html": (".html", ".htm"),
    "csv": (".csv",),
    "figure": (".png", ".svg", ".pdf"),
}

#: environment variables whose values are never printed
SECRET_VARIABLES = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")

_SECRETS = (
    (re.compile(r"(?i)(bearer(?:\s|%20)+|authorization['\"]?\s*[:=]\s*['\"]?basic\s+)[^\s'\"\\]+"), r"\1***"),
    (re.compile(r"(?i)(://)[^/\s@'\"]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)\b((?:api[-_]?key|access[-_]?token|token|passw(?:or)?d|secret[-_]?key|client[-_]?secret)"
            r"['\"]?\s*[=:]\s*['\"]?)[^\s&'\",}]+"
        ),
        r"\1***",
    ),
    (re.compile(r"\b(?:(?:sk|hf|gh[opsu])[-_][A-Za-z0-9_-]{8,}|AIza[\w-]{30,})"), "***"),
)


class _Parser(argparse.ArgumentParser):
    """Its numbers are finite, its paths not empty, its errors one line, and its outputs replace nothing but outputs.

    An output may replace a file that ends as what it writes; never an input, nor land inside the samples or verdicts of
    a run that is read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", float, finite)
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(redact(message).split())}\n")  # one line, without the usage

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        found, rest = super().parse_known_args(*args, **kwargs)
        named = {name: value if isinstance(value, list) else [value] for name, value in vars(found).items()}
        outputs = [(name, path) for name in OUTPUTS for path in named.get(name, []) if isinstance(path, Path)]
        others = [value for name, values in named.items() if name not in OUTPUTS for value in values]
        inputs = [named_path(str(value))[1] for value in others if isinstance(value, (str, Path))] if outputs else []
        for name, output in outputs:
            if any(_is_read(path, output) for path in inputs if os.path.exists(path)):
                self.error(f"--{name} {output} would replace what is read; name another")
            if os.path.isfile(output) and not output.name.lower().endswith(OUTPUTS[name]):
                ends = " or ".join(OUTPUTS[name])
                self.error(f"--{name} {output} is a file but no earlier output (those end in {ends}); name another")
        return found, rest


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that calls itself `verl-fgrpo NAME`, a script by its file's name; its description stays as written."""
    raw = argparse.RawDescriptionHelpFormatter
    prog = name if name.endswith(".py") else f"verl-fgrpo {name}"
    return _Parser(prog=prog, description=description, formatter_class=raw)


def finite(text: str) -> float:
    """The type of options that are numbers: nan and inf are none."""
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"{text} must be a finite number")
    return number


def _whole(minimum: int, below: int = 2**63) -> Callable[[str], int]:
    """The type of options that are whole numbers from `minimum`."""

    def whole(text: str) -> int:
        if not minimum <= (number := int(text)) < below:
            most = "2**63" if below == 2**63 else below
            raise argparse.ArgumentTypeError(f"{text} must be a whole number from {minimum}, below {most}")
        return number

    whole.__name__ = "int"
    return whole


COUNT, SEED = _whole(1), _whole(0)  # types of most options that are whole numbers
DRAWS = _whole(1, 10**8)  # of a bootstrap, each a number in memory
PROCESSES = _whole(1, 1025)  # more than a machine has cores are a typing error that could stop it


def shown_text(text: str) -> str:
    """The type of options that end up in tables and figures: text that can be written as UTF-8."""
    if re.search("[\ud800-\udfff]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no text in the encoding of this terminal; name it otherwise")
    return text


def torch_device(text: str) -> str:
    """The type of options that name a torch device: one that this machine has."""
    if text != "cpu":
        import torch

        try:
            torch.zeros(1, device=text).item()
        except (RuntimeError, AssertionError) as error:
            told = str(error).splitlines()[0]
            raise argparse.ArgumentTypeError(f"{text!r} is no device of this machine ({told}); use cpu") from None
    return text


def named_path(entry: str) -> tuple[str, Path]:
    """NAME=PATH, split at the first "=" after which there is something, else at the first; a path alone: ("", path)."""
    splits = [("", entry), *((entry[: at.start()], entry[at.end() :]) for at in re.finditer("=", entry))]
    name, path = next((one for one in splits if os.path.exists(one[1])), splits[min(1, len(splits) - 1)])
    return name, Path(path)


def _is_read(source: Path, output: Path) -> bool:
    """Whether `output` is the file `source`, or in the stores or the problem file of the run `source`."""
    target = os.path.realpath(output)
    stores = [os.path.realpath(source / name) for name in ("samples", "verdicts", "problems.jsonl")]
    own = stores if os.path.isfile(source / "samples" / "manifest.json") else []
    own += [os.path.realpath(source)] if os.path.isfile(source) else []
    return any(target == path or target.startswith(path + os.sep) for path in own)


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path; is a variable unset?")
    return Path(text)


def run_subcommand(name: str, package: str, commands: Mapping[str, str], arguments: Sequence[str]) -> int:
    """Run `main` of the module `package`.COMMAND_command that the first argument names; imported only then.

    `name` is that of the command they belong to, without "verl-fgrpo"; `commands` has a line of help for each.
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

    A ValueError, RuntimeError, OSError, ImportError or MemoryError is the user's to mend: one line on stderr, which
    begins with `name`, and exit code 1; VERL_FGRPO_TRACEBACK=1 prints the full traceback. Other exceptions are faults
    of ours and keep theirs.

    Returns:
        main's exit code; 1 after an error, 130 after Ctrl-C, 0 if the reader of a pipe left.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
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
    except (ValueError, RuntimeError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("VERL_FGRPO_TRACEBACK"):
            print(redact(traceback.format_exc()), file=sys.stderr)
        else:
            print(f"{name}: {' '.join(redact(str(error)).split()) or type(error).__name__}", file=sys.stderr)
        return 1
