r"""math-verify with the same results in less time: it searches less text, and does nothing twice.

Grading n samples of a problem repeats itself: few answers are distinct, and most of a response is reasoning in which
most of math-verify's regular expressions cannot match. `install` replaces these functions:

- math-verify's `get_extraction_regexes`: each regular expression starts at a position before which no match of it can
  begin. The matches are the same ones: `finditer(text, start)` differs from `finditer(text)` only in matches that begin
  before `start`, and there are none.
- math-verify's `extract_match`: remembered by what the regular expression captured. It is a pure function of that.
- latex2sympy2_extended's `create_parser`: the parser first runs in ANTLR's prediction mode SLL, and in the default mode
  if that finds a syntax error. ANTLR's documentation of `PredictionMode.SLL`: "the parser will either return a correct
  parse tree (i.e. the same parse tree that would be returned with the LL prediction mode), or it will report a syntax
  error".
- latex2sympy2_extended's `parse_number`: remembered by its text.
- math-verify's `sympy_symbolic_eq`: false for expressions that differ at a point, see `sympy_values`.
- `solve` where math-verify compares equations: remembered, because it solves the gold answer's for every response.

Checked with the versions in `CHECKED`; with any others nothing is replaced. `scripts/bench_evaluation.py grading`
compares every verdict with unchanged math-verify.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any

from verl_fgrpo.evaluation.fast_grading.sympy_values import differ_at_a_point

CHECKED = {
    "math-verify": ("0.8.0", "0.9.0"),
    "latex2sympy2_extended": ("1.10.2", "1.11.0"),
    "antlr4-python3-runtime": ("4.9.3",),
}
REMEMBERED = 20_000  # results; then all are forgotten


@dataclass(frozen=True)
class Search:
    """A regular expression and a lower bound of where in a text a match can begin (None: nowhere)."""

    pattern: re.Pattern[str]
    first: Callable[[str], int | None]

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        start = self.first(text)
        return iter(()) if start is None else self.pattern.finditer(text, start)


@lru_cache(maxsize=8)
def first_anchor(words: str, text: str) -> int | None:
    """Where `words` first occur in upper or lower case: a pattern `(?i:words ...` begins nowhere before."""
    if text.isascii():
        start = text.lower().find(words)
        return None if start < 0 else start
    found = re.search(f"(?i:{words})", text)
    return found.start() if found else None


def first_boxed_environment(text: str) -> int | None:
    r"""A position before which no math environment that contains \boxed{ begins; None without \boxed{.

    An environment that begins before the first \boxed{ reaches it without what ends it: $...$, \(...\) and [...]
    without a line break, $$...$$ without another $$ and \[...\] without a \].
    """
    boxed = text.find("\\boxed{")
    if boxed < 0:
        return None
    starts = [boxed, text.rfind("\n", 0, boxed)]  # " [" may begin with the line break itself
    double = text.rfind("$$", 0, boxed)
    if double >= 0 and text.find("$$", boxed) >= 0:
        starts.append(double - 1)  # of "$$$", the first two may be the opening ones
    bracket = text.find("\\[", text.rfind("\\]", 0, boxed) + 1, boxed)
    if bracket >= 0 and text.find("\\]", boxed) >= 0:
        starts.append(bracket)
    return max(0, min(starts))


def _search(pattern: re.Pattern[str], boxed_environment: str) -> re.Pattern[str] | Search:
    for words in ("final answer", "answer"):
        if pattern.pattern.startswith(f"(?i:{words}"):
            return Search(pattern, lambda text, words=words: first_anchor(words, text))  # type: ignore[misc]
    if pattern.pattern.startswith(boxed_environment):
        return Search(pattern, first_boxed_environment)
    return pattern


def remember(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, computed once for equal arguments; an exception it raises is raised again."""

    @lru_cache(maxsize=REMEMBERED)
    def outcome(*args: Any) -> tuple[Any, Exception | None]:
        try:
            return function(*args), None
        except Exception as error:
            return None, error.with_traceback(None)  # which would keep the frames alive

    def remembered(*args: Any) -> Any:
        result, error = outcome(*args)
        if error is not None:
            raise error.with_traceback(None)  # or it would grow with every raise
        return result

    return remembered


def unchecked() -> list[str]:
    """The installed packages, with their versions, for which nothing is replaced because nobody compared verdicts."""
    installed = {package: version(package) for package in CHECKED}
    return [f"{package} {found}" for package, found in installed.items() if found not in CHECKED[package]]


@lru_cache(maxsize=1)
def install() -> bool:
    """Replace these functions in this process; False, and nothing replaced, for versions that were not checked."""
    if unchecked():
        return False
    import math_verify.grader as grader
    import math_verify.parser as parser
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy  # type: ignore[import-untyped, unused-ignore]

    boxed_environment = parser.make_latex_env_pattern("first_", context="boxed")
    original_regexes, original_match = parser.get_extraction_regexes, parser.extract_match
    original_equal, original_solve = grader.sympy_symbolic_eq, grader.solve
    results: dict[Any, Any] = {}

    @lru_cache(maxsize=8)
    def searches(targets: tuple[Any, ...]) -> list[Any]:
        return [
            ([(_search(pattern, boxed_environment), priority) for pattern, priority in patterns], target)
            for patterns, target in original_regexes(targets)
        ]

    def get_extraction_regexes(targets: Sequence[Any]) -> list[Any]:
        return searches(tuple(targets))

    def extract_match(match: re.Match[str], target: Any) -> Any:
        key = (target, tuple(match.groupdict().items()))
        if key not in results:
            if len(results) >= REMEMBERED:
                results.clear()
            results[key] = original_match(match, target)
        return results[key]

    def sympy_symbolic_eq(a: Any, b: Any) -> bool:
        return not differ_at_a_point(a, b) and bool(original_equal(a, b))

    solutions = remember(lambda relation, symbols: original_solve(relation, set(symbols)))

    def solve(relation: Any, symbols: set[Any]) -> list[Any]:
        return list(solutions(relation, frozenset(symbols)))

    grader.sympy_symbolic_eq, grader.solve = sympy_symbolic_eq, solve
    parser.get_extraction_regexes = get_extraction_regexes
    parser.extract_match = extract_match
    _Latex2Sympy.create_parser = _two_stage(_Latex2Sympy.create_parser)
    numbers = remember(partial(_Latex2Sympy.parse_number, None))
    _Latex2Sympy.parse_number = lambda _converter, text: numbers(text)
    return True


def _two_stage(create_parser: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    from antlr4.atn.PredictionMode import PredictionMode  # type: ignore[import-untyped, unused-ignore]

    def two_stage(converter: Any, latex: str) -> Any:
        parser = create_parser(converter, latex)
        parser._interp.predictionMode = PredictionMode.SLL
        first_stage = parser.math

        def math() -> Any:
            try:
                return first_stage()
            except Exception:  # a syntax error, be it of the text or of the mode: the default mode decides
                return create_parser(converter, latex).math()

        parser.math = math
        return parser

    return two_stage
