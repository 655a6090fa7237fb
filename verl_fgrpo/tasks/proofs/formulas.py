"""Propositional formulas: read, write, decide classically, and the form by which two theorems are the same.

A formula is an atom (`A` to `D`, `True`, `False`) or a tuple: ("And", l, r), ("Or", l, r), ("→", l, r), ("Not", f).
"""

from functools import lru_cache
from itertools import permutations
from typing import TypeAlias

from verl_fgrpo.tasks.proofs.language import ATOMS

Formula: TypeAlias = str | tuple["Formula", ...]

# Truth tables over the 16 valuations of A, B, C, D, one bit each.
_TABLES = {"A": 0xAAAA, "B": 0xCCCC, "C": 0xF0F0, "D": 0xFF00, "True": 0xFFFF, "False": 0}


def read(text: str) -> Formula:
    """The formula of a statement in the language.

    Raises:
        ValueError: it is none.
    """
    tokens = [*text.split(" "), ""]
    position = 0

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def operand() -> Formula:
        token = take()
        if token in _TABLES:
            return token
        if token != "(":
            raise ValueError(f"{text[:100]!r} is no formula: {token!r} stands where an operand must")
        inner = implication()
        if take() != ")":
            raise ValueError(f"{text[:100]!r} is no formula: a bracket is not closed")
        return inner

    def application() -> Formula:
        if tokens[position] in ("And", "Or"):
            return (take(), operand(), operand())
        return (take(), operand()) if tokens[position] == "Not" else operand()

    def implication() -> Formula:
        left = application()
        if tokens[position] != "→":
            return left
        take()
        return ("→", left, implication())

    formula = implication()
    if tokens[position]:
        raise ValueError(f"{text[:100]!r} is no formula: {tokens[position]!r} is left over")
    return formula


def write(formula: Formula) -> str:
    """The statement text of a formula, without needless brackets; `read` is its inverse."""
    if isinstance(formula, str):
        return formula
    name, *parts = formula
    if name == "→":
        left, right = parts
        bracketed = f"( {write(left)} )" if isinstance(left, tuple) and left[0] == "→" else write(left)
        return f"{bracketed} → {write(right)}"
    return " ".join([str(name), *(part if isinstance(part, str) else f"( {write(part)} )" for part in parts)])


def size(formula: Formula) -> int:
    """Number of atoms and connectives."""
    return 1 if isinstance(formula, str) else 1 + sum(map(size, formula[1:]))


@lru_cache(maxsize=1 << 16)
def truth_table(formula: Formula) -> int:
    """Bit v is the truth under valuation v of A, B, C, D (bits 0 to 3 of v)."""
    if isinstance(formula, str):
        return _TABLES[formula]
    name, *parts = formula
    values = [truth_table(part) for part in parts]
    if name == "Not":
        return ~values[0] & 0xFFFF
    left, right = values
    return {"And": left & right, "Or": left | right, "→": ~left & 0xFFFF | right}[str(name)]


def shape(formula: Formula) -> str:
    """The same text for theorems that differ in names of atoms, order of premises, or order in And and Or only.

    The smallest over all renamings of atoms of a text in which premises and operands of And and Or are sorted.
    """
    return min(_sorted(formula, dict(zip(ATOMS, order, strict=True))) for order in permutations(ATOMS))


def _sorted(formula: Formula, names: dict[str, str]) -> str:
    if isinstance(formula, str):
        return names.get(formula, formula)
    if formula[0] == "→":
        premises = []
        while isinstance(formula, tuple) and formula[0] == "→":
            premises.append(_sorted(formula[1], names))
            formula = formula[2]
        return f"[{' ; '.join(sorted(premises))} ⊢ {_sorted(formula, names)}]"
    return f"{formula[0]}({' , '.join(sorted(_sorted(part, names) for part in formula[1:]))})"
