"""Evaluating at a point proves inequality, and nothing else: equal expressions in other forms never differ."""

from __future__ import annotations

import inspect
from itertools import combinations
from typing import Any

import math_verify.grader
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import parse
from sympy import Float, Integer, Rational, Symbol, pi, sqrt

from verl_fgrpo.evaluation.fast_grading.sympy_values import differ_at_a_point, value_at_a_point
from verl_fgrpo.evaluation.preload import EXPRESSIONS

X, Y = Symbol("x", real=True), Symbol("y", real=True)
T = Symbol("t", real=True)
U = sympy.Function("u")


def simplifies_to_zero(a: Any, b: Any) -> bool:
    """math-verify's own test, also where this process has replaced it."""
    original = math_verify.grader.sympy_symbolic_eq
    if original.__closure__:
        original = inspect.getclosurevars(original).nonlocals["original_equal"]
    return bool(original(a, b))


def test_values_golden() -> None:
    assert value_at_a_point(Rational(5, 4)) == 1.25
    assert value_at_a_point(sympy.log(250, 10, evaluate=False)) == pytest.approx(2.3979400086720376)  # log10 250
    # (-8)**(1/3) is the principal root 2 (cos 60 deg + i sin 60 deg) = 1 + i sqrt(3).
    assert value_at_a_point(Integer(-8) ** Rational(1, 3)) == pytest.approx(1 + 3**0.5 * 1j)
    value = value_at_a_point(X)
    assert value is not None and 1 < value.real < 2 and value.imag == 0
    assert value_at_a_point(X**2 + 1) == pytest.approx(value**2 + 1)  # every expression at the same point
    assert value_at_a_point(Symbol("x", real=True)) == value != value_at_a_point(Y)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (sympy.sin(X) ** 2 + sympy.cos(X) ** 2, Integer(1)),
        (sqrt(X**2), X),
        (sympy.log(X**2), 2 * sympy.log(X)),
        ((X + Y) ** 3, sympy.expand((X + Y) ** 3)),
        (sympy.exp(sympy.I * pi, evaluate=False), Integer(-1)),
        (sympy.log(250, 10, evaluate=False), sympy.log(250) / sympy.log(10)),
        (sqrt(5 + 2 * sqrt(6)), sqrt(2) + sqrt(3)),
        (sympy.atan(1), pi / 4),
        (Rational(1, 3), Float("0.3333333")),  # rounded: proves nothing, math-verify decides
        (U(T) * 2, U(T) + U(T)),
        (U(2 * X / 2), U(X)),
        (Symbol("i", real=False) ** 2 * 3, 3 * Symbol("i", real=False) ** 2),
        (sqrt(Symbol("z", real=False) ** 2), Symbol("z", real=False)),
        (sympy.factorial(5, evaluate=False), Integer(120)),
        (sympy.floor(Rational(7, 2), evaluate=False), Integer(3)),
    ],
)
def test_equal_expressions_never_differ(a: Any, b: Any) -> None:
    assert not differ_at_a_point(a, b)
    assert value_at_a_point(a) is not None and value_at_a_point(b) is not None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Integer(3), Rational(31, 10)),
        (X, Y),
        (X, X + 1),
        (sqrt(X), X),
        (U(T), U(2 * T)),
        (U(T), Symbol("u", real=True)),
        (sqrt(2), Float("1.4142")),  # 1.4e-5 apart
        (Symbol("i", real=False), Integer(1)),
    ],
)
def test_different_expressions_differ(a: Any, b: Any) -> None:
    assert differ_at_a_point(a, b) and differ_at_a_point(b, a)


@pytest.mark.parametrize(
    "unusual",
    [
        sympy.zoo,
        sympy.oo,
        sympy.nan,
        sympy.Sum(X, (X, 1, 3)),
        sympy.Integral(X, (X, 0, 1)),
        sympy.Max(X, 2),
        sympy.Symbol("n", integer=True),
        sympy.Symbol("m", negative=True),
        sympy.Pow(0, -1, evaluate=False),
        sympy.Matrix([[1, 2]]),  # cannot be hashed
        sympy.ImmutableMatrix([[1, 2]]),
        sympy.FiniteSet(1, 2),
        sympy.Eq(X, 1),
        "text",
        None,
    ],
)
def test_what_is_unusual_proves_nothing(unusual: Any) -> None:
    assert not differ_at_a_point(unusual, Integer(7))
    assert not differ_at_a_point(Integer(7), unusual)


def test_a_value_that_is_not_certain_proves_nothing() -> None:
    # Exactly zero, but no number of digits shows it: evalf gives up.
    assert value_at_a_point(sqrt(2) + sqrt(3) - sqrt(5 + 2 * sqrt(6))) is None


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.sampled_from([X, Y, Integer(2), Integer(-3), Rational(1, 2), pi]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
            inner.map(lambda part: part**2),
            inner.map(sympy.cos),
            inner.map(sympy.Abs),
        ),
        max_leaves=6,
    )
)
def test_other_forms_of_an_expression_never_differ_from_it(expression: Any) -> None:
    for rewrite in (sympy.expand, sympy.factor, sympy.together, sympy.simplify):
        assert not differ_at_a_point(expression, rewrite(expression))


def test_math_verify_agrees_on_every_pair_of_answers_that_differ() -> None:
    parsed = [
        part for text in EXPRESSIONS for part in parse(f"$\\boxed{{{text}}}$")[:1] if isinstance(part, sympy.Expr)
    ]
    pairs = [(a, b) for a, b in combinations(parsed, 2) if differ_at_a_point(a, b)]
    assert len(pairs) > 200
    for a, b in pairs[::4]:  # simplify is slow
        assert not simplifies_to_zero(a, b)
