"""A pool of Lean REPL processes, for Lean with Mathlib that the user has (github.com/leanprover-community/repl).

Each process imports the header once, then checks every proof in the environment after it. A process that dies, runs out
of time, memory or output, or has answered `RENEW_AFTER` proofs is replaced. What the checks rest on, and what they do
not cover, stands in docs/proofs.md: with tactics the text is a program, so this is weaker than `lean.check_proofs`.
"""

import contextlib
import json
import os
import re
import secrets
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

RENEW_AFTER = 200  # proofs; a process keeps every environment it made
ANSWER_BYTES = 1 << 20
#: axioms of classical mathematics in Lean; a proof may rest on these alone
AXIOMS = frozenset({"propext", "Classical.choice", "Quot.sound"})
#: words that a tactic proof does not need, and by which a text could change what is proved, or run code (`by_elab`)
FORBIDDEN = re.compile(
    r"\b(?:sorry|admit|sorryAx|axiom|infix[lr]?|prefix|postfix|instance|attribute|unsafe\w*|implemented_by|extern|"
    r"native_decide|ofReduceBool|import|theorem|lemma|def|abbrev|opaque|inductive|structure|class|namespace|section|end|"
    r"variable|universe|eval|skipKernelTC|set_option|include_str|run_\w+)\b|"
    r"(?:\b|_)(?:elab|macro|syntax|notation3?|d?simproc|initialize)(?:\b|_)|#|@\["
)


@dataclass(frozen=True)
class ReplSettings:
    """How to start the REPL and what a proof may use.

    Attributes:
        command: e.g. "lake env /path/to/repl/.lake/build/bin/repl".
        project: folder of the Lake project with Mathlib, in which the command runs.
        header: imports and `open` lines before every statement.
        workers: processes.
        seconds: wall-clock limit of one proof.
        start_seconds: of starting a process and importing the header.
        memory_gb: address space of a process.
    """

    command: str
    project: Path
    header: str
    workers: int = 8
    seconds: float = 60.0
    start_seconds: float = 300.0
    memory_gb: float = 16.0

    def __post_init__(self) -> None:
        for name in ("workers", "seconds", "start_seconds", "memory_gb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be positive")
        if not self.project.is_dir():
            raise ValueError(f"{self.project} is no folder: name the Lake project with Mathlib by LEAN_PROJECT")


class ReplError(RuntimeError):
    """A process gave no answer in time, or none that can be understood."""


class _Repl:
    """One process."""

    def __init__(self, settings: ReplSettings) -> None:
        self.answered = 0
        launcher = str(Path(__file__).with_name("run_lean.py"))
        words = shlex.split(settings.command)
        program = _which(words[0])
        limits = f"{int(settings.memory_gb * 2**30)},{24 * 3600},{ANSWER_BYTES}"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", launcher, "-", limits, program, *words[1:]],
            cwd=settings.project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            answer = self.ask({"cmd": settings.header}, settings.start_seconds)
            if _errors(answer):
                raise ReplError(f"the header is refused: {_errors(answer)[0][:300]}")
            self.environment = int(answer["env"])
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            ReplError: none in time, too long, or not JSON; the process must be closed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        deadline = time.monotonic() + seconds
        told = b""
        try:
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self._process.stdout, selectors.EVENT_READ)
                while not told.rstrip(b" ").endswith(b"\n\n"):
                    left = deadline - time.monotonic()
                    if left <= 0 or not selector.select(left):
                        raise ReplError(f"no answer in {seconds:g} s")
                    part = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not part or len(told) > ANSWER_BYTES:
                        raise ReplError("the process ended" if not part else "the answer is too long")
                    told += part
            answer = json.loads(told)
        except (OSError, ValueError) as error:
            raise ReplError(f"no answer that can be understood: {error}") from error
        if not isinstance(answer, dict):
            raise ReplError("no answer that can be understood")
        return answer

    def close(self) -> None:
        """Ends the process and whatever it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written yet, to a process that is gone
                    pipe.close()


class ReplPool:
    """`workers` processes that check proofs side by side; use as a context manager, or call `close`."""

    def __init__(self, settings: ReplSettings) -> None:
        self.settings = settings
        self._idle: SimpleQueue[_Repl | None] = SimpleQueue()
        for _ in range(settings.workers):
            self._idle.put(None)  # started when it is first needed
        self._threads = ThreadPoolExecutor(settings.workers)

    def check(self, items: Sequence[tuple[str, str]]) -> list[str]:
        """Verdicts of (statement, proof) pairs: `proved`, `wrong`, `error` (a forbidden word) or `timeout`.

        Args:
            items: the statement begins with `theorem NAME` and ends with `:= by`; the proof is what follows.

        Raises:
            RuntimeError: no process can be started.
        """
        return list(self._threads.map(self._check_one, items))

    def _check_one(self, item: tuple[str, str]) -> str:
        statement, proof = item
        named = re.match(r"\s*(?:theorem|lemma)\s+\S+", statement)
        if named is None or FORBIDDEN.search(proof):
            return "error"
        name = f"t{secrets.token_hex(12)}"
        text = f"theorem {name}{statement[named.end() :].rstrip()}\n{proof}"
        repl = self._idle.get()
        try:
            if repl is None:
                repl = _Repl(self.settings)
            verdict = self._decide(repl, name, text)
            repl.answered += 1
        except ReplError:
            if repl is None:
                raise
            repl.close()
            repl, verdict = None, "timeout"
        finally:
            if repl is not None and repl.answered >= RENEW_AFTER:
                repl.close()
                repl = None
            self._idle.put(repl)
        return verdict

    def _decide(self, repl: _Repl, name: str, text: str) -> str:
        seconds = self.settings.seconds
        answer = repl.ask({"cmd": text, "env": repl.environment}, seconds)
        if _errors(answer) or answer.get("sorries") or "env" not in answer:
            return "wrong"
        # A request of its own, about a name that the text could not know.
        said = repl.ask({"cmd": f"#print axioms {name}", "env": answer["env"]}, seconds).get("messages", [])
        if len(said) != 1 or said[0].get("severity") != "info":
            return "wrong"
        data = str(said[0].get("data", ""))
        if data == f"'{name}' does not depend on any axioms":
            return "proved"
        found = re.fullmatch(rf"'{name}' depends on axioms: \[([^\]]*)\]", data, re.DOTALL)
        return "proved" if found and set(re.split(r",\s*", found[1].strip())) <= AXIOMS else "wrong"

    def close(self) -> None:
        """End all processes."""
        self._threads.shutdown()
        while not self._idle.empty():
            if (repl := self._idle.get()) is not None:
                repl.close()

    def __enter__(self) -> "ReplPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def toolchain_report(settings: ReplSettings, right: tuple[str, str], wrong: tuple[str, str]) -> tuple[bool, str]:
    """Whether the REPL accepts a right proof and refuses a wrong one and one by `sorry`, and a line that says so."""
    began = time.monotonic()
    try:
        with ReplPool(settings) as pool:
            verdicts = pool.check([right, wrong, (right[0], "  sorry")])
    except (ReplError, ValueError) as error:
        return False, f"the Lean REPL {settings.command!r} in {settings.project} does not work: {error}"
    line = f"Lean REPL in {settings.project}: {', '.join(verdicts)} for a right proof, a wrong one and sorry"
    return verdicts == ["proved", "wrong", "error"], f"{line} ({time.monotonic() - began:.0f} s)"


def _errors(answer: dict[str, Any]) -> list[str]:
    """Texts of errors, and of warnings about `sorry`; a bare "message" is the REPL's own refusal."""
    if "message" in answer:
        return [str(answer["message"])]
    messages = [(str(m.get("severity")), str(m.get("data"))) for m in answer.get("messages", [])]
    return [text for severity, text in messages if severity == "error" or "sorry" in text]


def _which(program: str) -> str:
    if found := shutil.which(program):
        return os.path.abspath(found)
    raise ReplError(f"{program} is no program; set LEAN_REPL, e.g. 'lake env /path/to/repl/.lake/build/bin/repl'")
