"""Two expressions that differ at a point are not equal: a proof that costs far less than simplifying their difference.

math-verify asks whether `sympy.simplify(a - b)` is zero. For two different answers, the usual case, sympy tries all
its transformations in vain. Here both are evaluated at one point instead; only if they agree there, or if anything
about the evaluation is unusual, does `simplify` have to decide.
"""

from functools import lru_cache
from typing import Any
from zlib import crc32

DIGITS = 15  # of the values, all of them certain
TOLERANCE = 1e-6  # smaller differences, relative to the values plus 1, prove nothing: decimals may be rounded


def differ_at_a_point(a: Any, b: Any) -> bool:
    """Whether a and b are certainly not the same function: |a - b| > 1e-6 (|a| + |b| + 1) at a point.

    False also where one of them is no expression of sympy, or has no certain value at the point (`value_at_a_point`).
    """
    from sympy import Expr

    if not (isinstance(a, Expr) and isinstance(b, Expr)):
        return False
    one, other = value_at_a_point(a), value_at_a_point(b)
    if one is None or other is None:
        return False
    return abs(one - other) > TOLERANCE * (abs(one) + abs(other) + 1)


@lru_cache(maxsize=4096)
def value_at_a_point(expression: Any) -> complex | None:
    """The value of an expression where every symbol has a fixed value in (1, 2) that its name determines.

    Positive values, because some rewritings hold for them alone: sqrt(x**2) = x. A symbol that is assumed not to be
    real gets a value with a small angle, for the same reason. An undefined function f(x, y) stands for any function,
    so also for one that is linear in its arguments.

    Returns:
        None for anything but sums, products, powers and elementary functions of numbers and symbols; for a symbol that
        is assumed not to be positive or to be an integer; and where no finite value is certain to `DIGITS` digits.
    """
    from sympy import preorder_traversal
    from sympy.core.function import AppliedUndef

    try:
        if expression.has(AppliedUndef):
            expression = expression.replace(lambda part: isinstance(part, AppliedUndef), _linear)
        if not all(isinstance(part, _elementary()) for part in preorder_traversal(expression)):
            return None
        point = {symbol: _value_of(symbol) for symbol in expression.free_symbols}
        if None in point.values():
            return None
        value = complex(expression.evalf(DIGITS, subs=point, strict=True))
    except Exception:  # as around simplify in math-verify: whatever sympy cannot do here, it need not
        return None
    return value if abs(value) < float("inf") else None  # also not for nan


def _number(name: str) -> Any:
    from sympy import Float

    return Float(1 + crc32(name.encode()) / 2**32, DIGITS)


def _value_of(symbol: Any) -> Any:
    from sympy import I

    if symbol.is_real is False:
        return _number(symbol.name) * (1 + I / 8)
    if symbol.is_positive is False or symbol.is_integer:
        return None
    return _number(symbol.name)


def _linear(function: Any) -> Any:
    places = (_number(str(place)) * argument for place, argument in enumerate(function.args))
    return sum(places, _number(function.func.__name__))


@lru_cache(maxsize=1)
def _elementary() -> tuple[type, ...]:
    import sympy
    from sympy.functions.elementary.hyperbolic import HyperbolicFunction
    from sympy.functions.elementary.trigonometric import InverseTrigonometricFunction, TrigonometricFunction

    numbers = (sympy.Rational, sympy.Float, sympy.NumberSymbol, type(sympy.I))
    operations = (sympy.Add, sympy.Mul, sympy.Pow, sympy.UnevaluatedExpr)
    functions = (sympy.exp, sympy.log, sympy.Abs, sympy.floor, sympy.ceiling, sympy.factorial)
    families = (TrigonometricFunction, InverseTrigonometricFunction, HyperbolicFunction)
    return (*numbers, sympy.Symbol, *operations, *functions, *families)
