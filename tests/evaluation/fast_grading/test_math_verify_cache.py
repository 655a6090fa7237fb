"""The faster math-verify gives the same matches, the same parse trees and the same numbers as the unchanged one."""

from __future__ import annotations

from typing import Any

import math_verify.parser as parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latex2sympy2_extended.gen.antlr4_9_3.PSLexer import PSLexer
from latex2sympy2_extended.gen.antlr4_9_3.PSParser import PSParser
from latex2sympy2_extended.latex2sympy2 import CommonTokenStream, InputStream, _Latex2Sympy

from verl_fgrpo.evaluation.fast_grading import math_verify_cache
from verl_fgrpo.evaluation.fast_grading.math_verify_cache import Search, first_anchor, first_boxed_environment
from verl_fgrpo.evaluation.preload import EXPRESSIONS

PIECES = [
    "$",
    "$$",
    "\\[",
    "\\]",
    "\\(",
    "\\)",
    "\\boxed{",
    "}",
    "[",
    "]",
    "\n",
    " ",
    "\\",
    "1",
    "x",
    "3/4",
    "=",
    "and",
]
PIECES += [
    "final answer is",
    "Final Answer",
    "answer",
    "Answer:",
    "an\u017fwer",
    "f\u0131nal answer",
    ",",
    "%",
    "I hope",
]

PATTERNS = [
    pattern
    for patterns in (
        parser.lazy_latex_regex(parser.LatexExtractionConfig()),
        parser.lazy_expr_regex(parser.ExprExtractionConfig()),
    )
    for pattern, _ in patterns
]


def searches() -> list[Any]:
    environment = parser.make_latex_env_pattern("first_", context="boxed")
    return [math_verify_cache._search(pattern, environment) for pattern in PATTERNS]


def test_the_installed_version_is_a_checked_one_and_most_patterns_skip_text() -> None:
    assert math_verify_cache.install()
    skipping = [search for search in searches() if isinstance(search, Search)]
    # Eight patterns begin with "final answer" or "answer", one is the math environment with \boxed in it.
    assert len(skipping) == 9
    assert sum(search.first is first_boxed_environment for search in skipping) == 1


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_the_matches_are_those_of_the_pattern_alone(text: str) -> None:
    for pattern, search in zip(PATTERNS, searches(), strict=True):
        expected = [(match.span(), match.groups()) for match in pattern.finditer(text)]
        assert [(match.span(), match.groups()) for match in search.finditer(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("\\boxed{1}", 0),
        ("a $b$ c\nso $\\boxed{1}$", 7),  # from the line break on
        ("a $$x$$ \n $$\\boxed{1}$$", 8),  # one before the last $$, but the line begins before
        ("a $$x\n\\boxed{1}$$", 1),
        ("a \\[x\\] b\n\n\\[y\n\\boxed{1}\\]", 11),  # the first \[ after the last \]
    ],
)
def test_first_boxed_environment_golden(text: str, expected: int | None) -> None:
    assert first_boxed_environment(text) == expected


def test_first_anchor_golden() -> None:
    assert first_anchor("answer", "The ANSWER is") == 4
    assert first_anchor("answer", "an\u017fwer") == 0  # Python's (?i:s) matches the long s
    assert first_anchor("answer", "none") is None


def create_parser(converter: Any, latex: str) -> Any:
    """As latex2sympy2_extended creates it, in ANTLR's default mode."""
    lexer = PSLexer(InputStream(latex))
    result = PSParser(CommonTokenStream(lexer))
    for recognizer in (lexer, result):
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(_Latex2Sympy.MathErrorListener(latex))
    return result


def tree_of(make: Any, latex: str) -> str:
    try:
        made = make(None, latex)
        return str(made.math().toStringTree(recog=made))
    except Exception as error:
        return f"error: {error}"


@pytest.mark.parametrize(
    "latex", [*EXPRESSIONS, "\\frac{1}{", "2 +", "(1, 2]", "1 < 2 < x", "f(x, y) = |x|y|z|", "", "{"]
)
def test_two_stages_give_the_parse_tree_of_the_default_mode(latex: str) -> None:
    expected = tree_of(create_parser, latex)
    assert tree_of(math_verify_cache._two_stage(create_parser), latex) == expected
    assert expected


def test_a_text_that_only_the_default_mode_can_parse_reaches_it() -> None:
    modes = []

    class Fails:
        class _interp:
            predictionMode = "default"

        def math(self) -> str:
            modes.append(self._interp.predictionMode)
            if len(modes) == 1:
                raise Exception("a syntax error")
            return "tree"

    def create(converter: Any, latex: str) -> Any:
        made = Fails()
        made._interp = Fails._interp()  # type: ignore[method-assign,assignment]
        return made

    assert math_verify_cache._two_stage(create)(None, "x").math() == "tree"
    assert modes[0] != "default" and modes[1] == "default"


def test_results_and_exceptions_are_remembered() -> None:
    calls = []

    def inverse(number: int) -> float:
        calls.append(number)
        return 1 / number

    remembered = math_verify_cache.remember(inverse)
    assert [remembered(2), remembered(2)] == [0.5, 0.5]
    depths = set()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as raised:
            remembered(0)
        depths.add(len(raised.traceback))
    assert calls == [2, 0] and len(depths) == 1  # the remembered exception does not grow


def test_other_versions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_verify_cache, "version", lambda package: "99.0")
    before = (parser.extract_match, parser.get_extraction_regexes, _Latex2Sympy.create_parser)
    assert math_verify_cache.install.__wrapped__() is False
    assert math_verify_cache.unchecked() == [f"{package} 99.0" for package in math_verify_cache.CHECKED]
    assert before == (parser.extract_match, parser.get_extraction_regexes, _Latex2Sympy.create_parser)
