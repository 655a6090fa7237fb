"""What is right: one grader per kind of problem. They run in killable worker processes, see `workers`.

A grader maps (problem, response) to (verdict, extracted answer, detail) with verdict one of correct, wrong, unparsed,
error; it reads the response without its thinking. How answers are read: docs/grading.md. Time-outs, memory limits and
crashes are the workers' business, except math-verify's own time limit.
"""

import importlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from itertools import product
from typing import Any

from verl_fgrpo.evaluation import math_reading
from verl_fgrpo.evaluation.choice import read_choice
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.thinking import answer_text

Graded = tuple[str, str | None, str]
Grader = Callable[[Problem, str], Graded]

#: kind -> "module:function" of a grader that a task brings; by name, so that a grading process imports what it needs
TASK_GRADERS: dict[str, str] = {
    "maze": "verl_fgrpo.tasks.maze.rewards:grade_maze",
    "proofs": "verl_fgrpo.tasks.proofs.rewards:grade_proof",
    "mathlib": "verl_fgrpo.tasks.proofs.mathlib:grade_mathlib",
}

#: kinds whose responses are programs: SynLogic's verifiers pass some to Python's `eval`, a tactic proof may run what it
#: likes in Lean
PROGRAMS = ("synlogic", "mathlib")

#: how mathematical answers are read: name on the command line -> name with version, which is stored
READINGS = {"default": "default", "extended": math_reading.EXTENDED}
#: begins the detail of a verdict where the extended reading differs; the default's verdict follows
DEFAULT_READING = "default reading: "

# Longest answer text kept for majority votes; a longer one is cut (it is still graded whole).
ANSWER_CHARACTERS = 500

_FAR_OFF = 86_400  # seconds; math-verify warns in every process if its time limit is off


@dataclass(frozen=True)
class GraderOptions:
    """How responses are graded, beside their limits."""

    ifeval: str = "strict"  # "strict" or "loose", see `grade_ifeval`
    fast: bool = False  # math-verify made faster, see `fast_grading`; changes no verdict
    reading: str = "default"  # how mathematical answers are read: "default" is math-verify unchanged
    allow_code_execution: bool = False  # of `PROGRAMS`

    def __post_init__(self) -> None:
        if self.ifeval not in ("strict", "loose"):
            raise ValueError(f"ifeval mode {self.ifeval!r} must be 'strict' or 'loose'")
        if self.reading not in READINGS.values():
            raise ValueError(f"reading {self.reading!r} must be one of {', '.join(READINGS.values())}")


DEFAULTS = GraderOptions()


def grader_of(kind: str, options: GraderOptions = DEFAULTS) -> Grader:
    """The grader of a kind. Every grader reads `answer_text(response)`.

    Raises:
        PermissionError: responses are programs (`PROGRAMS`), and `allow_code_execution` is not set.
    """
    if kind in PROGRAMS and not options.allow_code_execution:
        raise PermissionError(
            f"grading {kind} runs responses as Python or Lean code, with no sandbox around it; in a machine or "
            "container that holds nothing of value, give --allow-code-execution"
        )
    if kind in TASK_GRADERS:
        module, function = TASK_GRADERS[kind].split(":")
        task_grader: Grader = getattr(importlib.import_module(module), function)
        return lambda problem, response: task_grader(problem, answer_text(response))
    if kind == "math":
        grade = grade_math if options.reading == "default" else grade_math_extended
        return lambda problem, response: grade(problem, response, options.fast)
    if kind == "ifeval":
        return lambda problem, response: grade_ifeval(problem, response, options.ifeval)
    return {"choice": grade_choice, "synlogic": grade_synlogic}[kind]


def grade_math(problem: Problem, response: str, fast: bool = False) -> Graded:
    r"""math-verify with its default settings: correct iff `verify(parse(gold), parse(response))` for some gold answer.

    The gold is parsed as `\boxed{gold}`, as it stands in a response, and once. The response is read without its
    thinking (`answer_text`). `fast` replaces functions of math-verify in this process, see `fast_grading`; without it
    math-verify runs as it is installed.

    Unlike math-verify's defaults, which return False, a comparison that fails is reported: timeout for its time limit
    (5 s a comparison, here of CPU time), error for an exception, both only if no other comparison succeeds.
    """
    from math_verify.errors import TimeoutException

    if fast:
        from verl_fgrpo.evaluation.fast_grading import math_verify_cache

        math_verify_cache.install()
    try:
        target = parse_math(answer_text(response), raise_on_error=True)
    except TimeoutException:
        return "timeout", None, "math-verify: parsing took over 5 s of CPU time"
    except Exception as error:
        return "error", None, f"math-verify, parsing: {type(error).__name__}: {str(error)[:200]}"
    if not target:
        return "unparsed", None, ""
    answer = next((part for part in reversed(target) if isinstance(part, str)), None)
    verdict, detail = (_remembered_compare if fast else _compare)(problem.answers, _Parsed(target))
    if answer is None:
        answer = str(target[0])
    return verdict, answer[:ANSWER_CHARACTERS], detail


def grade_math_extended(problem: Problem, response: str, fast: bool = False) -> Graded:
    """`grade_math` and, where that does not settle it, the rules of `math_reading`; the detail tells where they differ.

    - The final answer, rewritten, equals a gold answer, rewritten: correct.
    - The default reading says correct, but the two are numbers of other bases or tiny ones that differ, or the box it
      took was corrected by a later one: wrong.
    - Else the verdict of the default reading; wrong where that is unparsed, or fails, and the rewritten answer parses.
    """
    default, answer, detail = grade_math(problem, response, fast)
    verdict, read = _extended_verdict(problem, answer_text(response), default)
    if verdict != default:
        detail = f"{DEFAULT_READING}{default}" + (f"; {detail}" if detail else "")
    return verdict, (read if read is not None else answer or "")[:ANSWER_CHARACTERS] or None, detail


def default_verdict(verdict: str, detail: str) -> str:
    """The verdict of the default reading, from verdict and detail of either reading."""
    return detail[len(DEFAULT_READING) :].split(";")[0] if detail.startswith(DEFAULT_READING) else verdict


def reading_note(options: Mapping[str, Any], verdicts: Iterable[tuple[str, str]]) -> str:
    """One line on how answers were read, for every report of verdicts.

    Args:
        options: of the graders, as `VerdictStore.settings` has them.
        verdicts: (verdict, detail) of every sample; read for another than the default reading only.
    """
    reading = options.get("reading", "default")
    if reading == "default":
        return "reading default (math-verify unchanged)"
    pairs = Counter((verdict, default_verdict(verdict, detail)) for verdict, detail in verdicts)
    changed = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    different = sum(changed.values())
    gained = sum(count for (verdict, _), count in changed.items() if verdict == "correct")
    lost = sum(count for (_, default), count in changed.items() if default == "correct")
    return (
        f"reading {reading}: {different} of {pairs.total()} verdicts differ from the default reading's "
        f"({gained} correct here only, {lost} correct there only)"
    )


_LETTER_GOLD = re.compile(r"(?:\\(?:text\w*|math\w+)\{)?\(?([A-J])\)?\}?")


def _extended_verdict(problem: Problem, text: str, default: str) -> tuple[str, str | None]:
    found = math_reading.final_answer(text)
    if found is None or not found.text:
        return default, None
    answers = math_reading.alternatives(found.text)
    excluded = found.corrected or math_reading.is_mixed(found.text)
    for gold in problem.answers:
        based = math_reading.same_based(gold, found.text)
        if based:
            return "correct", answers[0]
        if based is False or math_reading.is_bound(gold) != math_reading.is_bound(found.text):
            excluded = True
            continue
        letter = _LETTER_GOLD.fullmatch(gold.strip())
        if letter and read_choice(f"\\boxed{{{found.text}}}") == letter[1]:
            return "correct", letter[1]
        for one, other in product(math_reading.alternatives(gold), answers):
            equal, tiny = _equal_rewritten(one, other)
            if equal:
                return "correct", answers[0]
            excluded = excluded or tiny
    if default == "correct":
        return ("wrong" if excluded else default), answers[0]
    if default == "wrong" or not _parsed_gold(answers[0]):
        return default, None if default == "wrong" else answers[0]
    return "wrong", answers[0]


def _equal_rewritten(gold: str, answer: str) -> tuple[bool, bool]:
    """(whether the two are equal, whether math-verify takes them for equal because both are tiny)."""
    if _closed_up(gold) == _closed_up(answer):
        return True, False
    tiny = False
    for one, other in product(_parsed_gold(gold), _parsed_gold(answer)):
        if verify_math([one], [other], allow_set_relation_comp=True):
            if not math_reading.tiny_differ(one, other):
                return True, False
            tiny = True
        elif math_reading.equal_complex(one, other):
            return True, False
    return False, tiny


def _closed_up(text: str) -> str:
    """Without white space, but for that between two words or numbers."""
    return re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", " ".join(text.split()))


class _Parsed:
    """A parsed response as a dictionary key: equal if math-verify remembered the very same objects."""

    def __init__(self, target: list[Any]) -> None:
        self.target = target
        self._identity = tuple(part if isinstance(part, str) else id(part) for part in target)

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parsed) and self._identity == other._identity


def _compare(answers: tuple[str, ...], parsed: _Parsed) -> tuple[str, str]:
    from math_verify.errors import TimeoutException

    failure = ("wrong", "")
    for gold in answers:
        expected = _parsed_gold(gold)
        if not expected:
            failure = ("error", f"math-verify cannot parse the gold answer {gold[:100]!r}")
        # One pair at a time, as verify does inside, but so that a failing pair is told from a different answer.
        for one, other in product(expected, parsed.target):
            try:
                if verify_math([one], [other], raise_on_error=True):
                    return "correct", ""
            except TimeoutException:
                failure = ("timeout", "math-verify: a comparison took over 5 s of CPU time")
            except Exception as error:
                if failure[0] != "timeout":
                    failure = ("error", f"math-verify, comparing: {type(error).__name__}: {str(error)[:200]}")
    return failure


# With `fast`, equal answers are the very same objects.
_remembered_compare = lru_cache(maxsize=4096)(_compare)


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> list[Any]:
    return parse_math(f"\\boxed{{{gold.strip()}}}")


def parse_math(text: str, **options: Any) -> list[Any]:
    """math-verify's `parse`, its time limit as in `_cpu_time`."""
    from math_verify import parse

    with _cpu_time():
        return list(parse(text, parsing_timeout=_FAR_OFF, **options))


def verify_math(gold: list[Any], target: list[Any], **options: Any) -> bool:
    """math-verify's `verify`, its time limit (for all pairs together) as in `_cpu_time`."""
    from math_verify import verify

    with _cpu_time():
        return bool(verify(gold, target, timeout_seconds=_FAR_OFF, **options))


@contextmanager
def _cpu_time() -> Iterator[None]:
    """Raise math-verify's TimeoutException after its default 5 s, in CPU time, and each second from then on.

    Its own limit counts wall-clock time: on a busy machine it ends what needs milliseconds. Python ignores an exception
    that happens to be raised in a finalizer or a callback of the garbage collector, so one is not enough.
    """
    from math_verify.errors import TimeoutException

    inside = True

    def expired(*_: object) -> None:
        if inside:
            raise TimeoutException("over 5 s of CPU time")

    before = signal.signal(signal.SIGPROF, expired)
    signal.setitimer(signal.ITIMER_PROF, 5, 1)
    try:
        try:
            yield
        finally:
            inside = False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def grade_choice(problem: Problem, response: str) -> Graded:
    """Multiple choice: the letter that `choice.read_choice` finds in the response without its thinking.

    No letter, or more than one, is unparsed: a guess would be right one time in four.
    """
    letter = read_choice(answer_text(response))
    if letter is None:
        return "unparsed", None, ""
    return ("correct" if letter in problem.answers else "wrong"), letter, ""


def grade_ifeval(problem: Problem, response: str, mode: str = "strict") -> Graded:
    """IFEval at prompt level: correct iff every instruction is followed, by the checkers in lm-eval.

    Source: arXiv 2311.07911, section 2.2. `mode` "loose" also accepts the response without its first line, last line or
    asterisks. An empty response follows nothing: wrong. The answer is a bit per instruction ("101").
    """
    response = answer_text(response)
    checkers = optional_module(
        "lm_eval.tasks.ifeval.utils", "IFEval is graded by lm-eval's checkers: pip install 'lm-eval[ifeval]'"
    )
    example = checkers.InputExample(
        key=0,
        instruction_id_list=list(problem.extra["instruction_id_list"]),
        prompt=problem.prompt,
        kwargs=list(problem.extra["kwargs"]),
    )
    try:
        followed = getattr(checkers, f"test_instruction_following_{mode}")(example, response).follow_instruction_list
    except LookupError as error:
        if "nltk" not in str(error):
            raise
        raise LookupError(
            "an instruction that counts sentences or words needs NLTK's data: python -m nltk.downloader punkt_tab"
        ) from error
    bits = "".join("1" if one else "0" for one in followed)
    return ("correct" if all(followed) else "wrong"), bits, ""


def grade_synlogic(problem: Problem, response: str) -> Graded:
    """SynLogic (arXiv 2505.19641): the verifier of the problem's game, from a checkout named by SYNLOGIC_ROOT.

    Some of the verifiers pass the response to Python's `eval`, so that a response can do whatever this process may.

    The verifiers catch their own exceptions and say only right or wrong. Unparsed: their `extract_answer`, if it takes
    the response alone, finds nothing. That of game_of_24 (commit 6794f97) compares the value of the expression with
    itself, so it calls every expression of the given numbers right.
    """
    response = answer_text(response)
    verifiers, data = _synlogic()
    task = problem.extra["task"].rsplit("/", 1)[-1]
    task = {"game_of_24": "mathador"}.get(task, task)  # the name under which their table has that verifier
    if task not in verifiers:
        raise ValueError(f"SynLogic has no verifier for {task!r}")
    verifier = verifiers[task]()
    item = data.from_json_str(problem.extra["game_data_str"])
    correct = bool(verifier.verify(item, response))
    try:
        answer = verifier.extract_answer(response)
    except Exception:  # this game's takes more than the response: what it found is not known
        return ("correct" if correct else "wrong"), None, ""
    if not correct and not answer:
        return "unparsed", None, ""
    return ("correct" if correct else "wrong"), str(answer)[:ANSWER_CHARACTERS], ""


@lru_cache(maxsize=1)
def _synlogic() -> tuple[Any, Any]:
    root = os.environ.get("SYNLOGIC_ROOT")
    remedy = (
        "SynLogic is graded by the verifiers of its repository: clone MiniMax-AI/SynLogic from GitHub, install its "
        "requirements and set SYNLOGIC_ROOT to the folder"
    )
    if not root or not os.path.isfile(os.path.join(root, "task2verifier.py")):
        raise ModuleNotFoundError(f"{remedy} (now {root!r}, which has no task2verifier.py)")
    sys.meta_path.append(_Checkout(root))
    classes = optional_module("task2verifier", remedy).verifier_classes
    return classes, optional_module("base.data", remedy).Data


class _Checkout:
    """Finds the modules of a checkout that is not installed, after all others: it can replace none of them."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self.root]) if path is None else None


def optional_module(name: str, remedy: str) -> Any:
    """Import a module that only some graders need; ModuleNotFoundError with a remedy otherwise."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not installed ({error}). {remedy}") from error
