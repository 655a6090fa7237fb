"""Evaluation problems in one schema, whatever benchmark they come from."""

import ast
import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.rows import Row, read_jsonl, shown, told_with
from verl_fgrpo.evaluation.math_reading import RULES

KINDS = ("math", "choice", "ifeval", "synlogic", "maze", "proofs", "mathlib")
ProblemKey = tuple[str, str]  # benchmark, problem id


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        benchmark: e.g. "aime24".
        problem_id: unique within the benchmark.
        prompt: the user message, without any instruction on the answer format (that is the prompt preset's).
        kind: how it is graded, one of `KINDS`.
        answers: gold answers, any one of which is right. LaTeX for math, a letter for choice, the actions for maze;
            empty for kinds whose checker needs none (ifeval).
        extra: what a grader needs besides (instruction ids of IFEval, the game of SynLogic, the grid of a maze), and
            gold answers as they were written, if they were mended.
    """

    benchmark: str
    problem_id: str
    prompt: str
    kind: str
    answers: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of problem {self.problem_id} must be one of {KINDS}")
        if self.kind not in ("ifeval", "synlogic") and not self.answers:
            raise ValueError(f"problem {self.benchmark}/{self.problem_id} of kind {self.kind} has no gold answer")
        for letter in self.answers if self.kind == "choice" else ():
            if len(letter) != 1 or letter not in "ABCDEFGHIJ":
                raise ValueError(f"the gold answer of a choice is {shown(letter)}, but it must be a letter from A to J")

    @property
    def key(self) -> ProblemKey:
        return (self.benchmark, self.problem_id)


def problem_id_of(prompt: str, answers: Sequence[str]) -> str:
    """An id derived from prompt and gold answer, for files that carry none (verl's dumps): 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([prompt, list(answers)]).encode()).hexdigest()[:16]


def gold_answers(gold: Any) -> tuple[str, ...]:
    r"""Gold answers as text, mended, without repetitions: the one reader, for problem files, dumps and the reward.

    Text is one answer, also "42, 43"; a list or array holds alternatives; a mapping has them under `target`; a list
    that was written as text, "['9.6']", is that list. Whole numbers may be int or float (142.0 is 142).

    Raises:
        ValueError: null, NaN, infinite, true, false, nested, or no answer at all.
    """
    return mended(written_answers(gold))


def written_answers(gold: Any) -> tuple[str, ...]:
    """`gold_answers` as they are written, before they are mended."""
    if isinstance(gold, Mapping):
        if "target" not in gold:
            raise ValueError(
                f"the gold answer is a mapping with {shown(sorted(map(str, gold)))}, but it needs `target`"
            )
        gold = gold["target"]
    if hasattr(gold, "tolist"):  # NumPy, from Parquet
        gold = gold.tolist()
    if isinstance(gold, str) and gold.startswith(("['", '["')):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            gold = ast.literal_eval(gold)
    several = gold if isinstance(gold, (list, tuple)) else [gold]
    answers = tuple(dict.fromkeys(filter(None, map(_answer_text, several))))
    if not answers:
        raise ValueError(f"the gold answer is {shown(gold)}, but a reward needs a gold answer; drop such rows")
    return answers


def _answer_text(gold: Any) -> str:
    if isinstance(gold, str):
        return gold.strip()
    if isinstance(gold, int) and not isinstance(gold, bool):
        return str(gold)
    if not isinstance(gold, float) or not math.isfinite(gold):
        raise ValueError(
            f"a gold answer is {shown(gold)}, but it must be text or a finite number (or a list of these); write it as "
            "text, or drop the row"
        )
    return str(int(gold)) if gold.is_integer() else str(gold)


def mended(answers: Sequence[str]) -> tuple[str, ...]:
    r"""Gold answers in which math-verify finds what is meant.

    A final period goes ("42." is parsed as text), unless an abbreviation ends in it. The e-notation 4.5e33 (read as 4.5
    times Euler's number times 33) becomes 4.5 \times 10^{33}; the spelling as it was stays an alternative.
    """
    found: list[str] = []
    for answer in answers:
        text = re.sub(r"(?<=[\w)}\]$])(?<!\.[A-Za-z])[.。](\$?)$", r"\1", answer).strip()
        scientific = RULES["scientific"](text)
        found += [scientific] if scientific == text else [scientific, text]
    return tuple(dict.fromkeys(found))


def graded_problem(benchmark: str, problem_id: str, prompt: str, kind: str, gold: Any) -> Problem:
    """A problem with the gold answer of a file, mended; as it was written it is kept in `extra["original_answers"]`.

    Raises:
        ValueError: see `gold_answers`; a choice whose gold answer is no letter from A to J.
    """
    written = written_answers(gold)
    answers = mended(written)
    if kind == "choice":
        answers = tuple(text.strip("()[]. ").upper() for text in written)
    original = {} if answers == written else {"original_answers": list(written)}
    return Problem(benchmark, problem_id, prompt, kind, answers, original)


def save_problems(problems: Iterable[Problem], path: Path | str) -> None:
    """Write JSON lines, one problem a line, atomically."""
    write_atomic(path, "".join(json.dumps(asdict(problem), ensure_ascii=True) + "\n" for problem in problems))


def load_problems(paths: Iterable[Path | str], benchmarks: Sequence[str] | None = None) -> list[Problem]:
    """Read files of `save_problems`; keep only `benchmarks` if given.

    Raises:
        ValueError: a line that is no problem, a problem twice, none at all, or a benchmark of which there is none.
    """
    paths = list(paths)
    problems: dict[ProblemKey, Problem] = {}
    for path in paths:
        for row in read_jsonl(Path(path)):
            problem = _problem(row)
            if problem.key in problems:
                raise ValueError(f"{row.where}: problem {shown(problem.key)} occurs twice; ids must be unique")
            problems[problem.key] = problem
    if not problems:
        names = ", ".join(map(str, paths))
        raise ValueError(
            f"{names} holds no problem; make problem files with `verl-fgrpo data benchmarks` or `problems`"
        )
    if benchmarks is not None:
        known = {benchmark for benchmark, _ in problems}
        if unknown := [name for name in benchmarks if name not in known]:
            raise ValueError(f"no problems of {unknown}; the files hold {sorted(known)}")
        problems = {key: problem for key, problem in problems.items() if key[0] in benchmarks}
    return list(problems.values())


_COLUMNS = ("benchmark", "problem_id", "prompt", "kind", "answers", "extra")


def stored_problem(row: Row, benchmark: str) -> Problem | None:
    """The problem of a row that `save_problems` wrote, under another benchmark's name; None for any other row."""
    return replace(_problem(row), benchmark=benchmark) if set(row) == set(_COLUMNS) else None


def _problem(row: Row) -> Problem:
    """A line of a problem file. Answers are taken as they stand: `save_problems` has written them mended."""
    if unknown := sorted(set(row) - set(_COLUMNS)):
        raise ValueError(
            f"{row.where}: unknown columns {shown(unknown)}; a problem has {', '.join(_COLUMNS)}. Other files become "
            "problem files with `verl-fgrpo data problems --data FILE`"
        )
    with told_with(row.where):
        answers = written_answers(row["answers"]) if row.get("answers") not in (None, []) else ()
        name, problem_id = row.name("benchmark"), row.name("problem_id")
        return Problem(name, problem_id, row.text("prompt"), row.text("kind"), answers, row.mapping("extra"))
