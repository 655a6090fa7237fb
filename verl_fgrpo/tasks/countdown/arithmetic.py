"""Exact value of an arithmetic expression. Text of a model is read by this small grammar and never evaluated.

expression = term {("+" | "-") term}     term = factor {("*" | "/") factor}
factor = {"+" | "-"} (whole number | "(" expression ")")
"""

import re
from fractions import Fraction

MAX_CHARACTERS = 200  # bounds the recursion as well; the longest right answer has about 30
_TOKENS = re.compile(r" *(0|[1-9][0-9]{0,5}|[-+*/()])")


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Value of an expression and its whole numbers in order.

    Args:
        text: digits, + - * / ( ) and blanks. Numbers have no leading zero and at most six digits.

    Raises:
        ValueError: not of the grammar, longer than 200 characters, or a division by zero.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters: an expression has at most {MAX_CHARACTERS}")
    text = text.strip(" ")
    tokens, place = [], 0
    while place < len(text):
        match = _TOKENS.match(text, place)
        if match is None:
            raise ValueError(f"{text[place]!r} at {place}: an expression has whole numbers, + - * / ( ) and blanks")
        tokens.append(match[1])
        place = match.end()
    reader = _Reader(tokens)
    try:
        value = reader.sum()
    except ZeroDivisionError:
        raise ValueError("division by zero: an expression must have a value") from None
    if reader.next:
        raise ValueError(f"{reader.next!r}: an operator or the end was expected")
    return value, [int(token) for token in tokens if token.isdigit()]


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.left = tokens[::-1]

    @property
    def next(self) -> str:
        return self.left[-1] if self.left else ""

    def sum(self) -> Fraction:
        value = self.product()
        while self.next in ("+", "-"):
            value += self.product() if self.left.pop() == "+" else -self.product()
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while self.next in ("*", "/"):
            value = value * self.factor() if self.left.pop() == "*" else value / self.factor()
        return value

    def factor(self) -> Fraction:
        token = self.left.pop() if self.left else ""
        if token in ("+", "-"):
            return self.factor() if token == "+" else -self.factor()
        if token.isdigit():
            return Fraction(int(token))
        if token != "(":
            raise ValueError(f"{token!r}: a number or an opening bracket was expected")
        value = self.sum()
        if self.next != ")":
            raise ValueError(f"{self.next!r}: a closing bracket was expected")
        self.left.pop()
        return value
