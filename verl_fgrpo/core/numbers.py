"""Numbers that a user has set, checked before they are used."""

from math import inf, isfinite
from typing import Any


def finite_number(value: Any, key: str, rule: str, remedy: str, low: float = -inf, high: float = inf) -> float:
    """`value` as a finite float within bounds; `key` is what the user set, `rule` goes on after "must be".

    Raises:
        ValueError: it is none.
    """
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (isfinite(number) and low <= number <= high):
        raise ValueError(f"{key} is {value!r}, but it must be {rule}; {remedy}")
    return number + 0.0  # -0.0 is 0.0


def check_gamma(value: Any, key: str = "gamma") -> float:
    """`value` as a float if it is a valid focal exponent; ValueError if it is not a finite number of at least 0."""
    remedy = f"the paper uses 0.5 or 1.0, e.g. {'+' if '.' in key else ''}{key}=0.5"
    return finite_number(value, key, "a finite number of at least 0 (0 is the base method)", remedy, low=0.0)
