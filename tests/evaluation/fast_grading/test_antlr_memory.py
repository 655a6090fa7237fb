"""Parse trees with the memory of full-context predictions are those without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from antlr4.atn.ParserATNSimulator import ParserATNSimulator as Simulator
from hypothesis import given, settings
from hypothesis import strategies as st
from latex2sympy2_extended.gen.antlr4_9_3.PSLexer import PSLexer
from latex2sympy2_extended.gen.antlr4_9_3.PSParser import PSParser
from latex2sympy2_extended.latex2sympy2 import CommonTokenStream, InputStream, _Latex2Sympy

from verl_fgrpo.evaluation.fast_grading import antlr_memory
from verl_fgrpo.evaluation.preload import EXPRESSIONS

# Those that the prediction without context gets wrong: the memory is for them.
FULL_CONTEXT = [
    "(a_{1}, a_{2}, a_{3})=(1,3,5)",
    "[A_{1} B_{1} C_{1}]",
    "(x_{0}, y_{0})",
    "f(x)=x+1",
    "\\{x_{1}, x_{2}\\}=B",
    "(1, 2",
]
ORIGINAL = tuple(
    getattr(function, "__wrapped__", function) for function in (Simulator.computeStartState, Simulator.computeReachSet)
)


def tree_of(latex: str) -> str:
    """In ANTLR's default mode, which predicts with full context where it must."""
    lexer = PSLexer(InputStream(latex))
    parser = PSParser(CommonTokenStream(lexer))
    for recognizer in (lexer, parser):
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(_Latex2Sympy.MathErrorListener(latex))
    try:
        return str(parser.math().toStringTree(recog=parser))
    except Exception as error:
        return f"error: {error}"


def trees(texts: list[str], functions: tuple[Callable[..., Any], ...]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Simulator, "computeStartState", functions[0])
        patch.setattr(Simulator, "computeReachSet", functions[1])
        return [tree_of(text) for text in texts]


@pytest.mark.parametrize("limit", [antlr_memory.REMEMBERED, 3])
def test_trees_are_the_same_the_first_and_the_second_time(limit: int) -> None:
    texts = [*FULL_CONTEXT, *EXPRESSIONS]
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            counts[name] += args[-1]  # full_context
            return function(*args)

        return call

    expected = trees(texts, ORIGINAL)
    failing = [text for text, tree in zip(texts, expected, strict=True) if tree.startswith("error")]
    assert "(1, 2" in failing and len(failing) < 10  # some expressions are LaTeX that math-verify rewrites first
    memory = antlr_memory.remembering(counted("start", ORIGINAL[0]), counted("reach", ORIGINAL[1]), limit)
    assert trees(texts, memory) == expected
    first = counts.copy()
    assert first["start"] > 0 and first["reach"] > first["start"]
    assert trees(texts, memory) == expected
    if limit > 3:
        assert counts == first  # nothing was computed twice


PIECES = [*"1x(),=+-[]|<", "_{1}", "^2", "\\frac{1}{2}", "\\{", "\\}", "f(x)"]
MEMORY = antlr_memory.remembering(*ORIGINAL)  # of all examples together


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_trees_of_random_texts_are_the_same(text: str) -> None:
    assert trees([text, text], MEMORY) == trees([text, text], ORIGINAL)
