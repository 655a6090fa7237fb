"""All normal proofs of a statement up to a length, and the form by which two proofs are the same.

A normal proof has no detour: nothing is introduced only to be taken apart. Every term is one of

    fun h => t        ⟨ t , t ⟩        Or.inl t        Or.inr t        True.intro
    a hypothesis, followed by arguments, .1 and .2, and at the end perhaps by .elim (of Or with two branches, of False)

`Not.elim` is left out: `h1 .elim h2` says what `( h1 h2 ) .elim` says.
"""

from collections.abc import Iterator
from typing import NamedTuple

from verl_fgrpo.tasks.proofs.formulas import Formula
from verl_fgrpo.tasks.proofs.language import HYPOTHESES

_ANY = "*"


class Term(NamedTuple):
    """Text, number of tokens, and whether it can stand as an argument without brackets."""

    text: str
    length: int
    operand: bool

    def argument(self) -> "Term":
        return self if self.operand else Term(f"( {self.text} )", self.length + 2, True)


class ProofSearch:
    """Normal proofs up to a length; what was found for a sequent is kept for the next statement.

    Args:
        max_proofs: of a sequent; a statement with more has an incomplete list.
    """

    def __init__(self, max_proofs: int = 1000) -> None:
        self.max_proofs = max_proofs
        self._found: dict[tuple[tuple[Formula, ...], Formula, int], tuple[Term, ...]] = {}

    def proofs(self, statement: Formula, max_tokens: int) -> list[str]:
        """Texts of the proofs with at most `max_tokens` tokens, shortest first; each is its own `canonical` form."""
        found = {term.text: term.length for term in self._terms((), statement, max_tokens)}
        return sorted(found, key=lambda text: (found[text], text))

    def forget(self, limit: int) -> None:
        """Drop what was remembered if it is more than `limit` sequents."""
        if len(self._found) > limit:
            self._found.clear()

    def _terms(self, context: tuple[Formula, ...], goal: Formula, budget: int) -> tuple[Term, ...]:
        if budget < 1:
            return ()
        key = (context, goal, budget)
        if key not in self._found:
            terms = []
            for term in self._all(context, goal, budget):
                terms.append(term)
                if len(terms) >= self.max_proofs:
                    break
            self._found[key] = tuple(terms)
        return self._found[key]

    def _all(self, context: tuple[Formula, ...], goal: Formula, budget: int) -> Iterator[Term]:
        yield from self._introductions(context, goal, budget)
        for name, kind in zip(HYPOTHESES, context, strict=False):
            if _reachable(kind) & {goal, _ANY}:
                yield from self._spine(context, goal, budget, Term(name, 1, True), kind)

    def _introductions(self, context: tuple[Formula, ...], goal: Formula, budget: int) -> Iterator[Term]:
        if goal == "True":
            yield Term("True.intro", 1, True)
        if isinstance(goal, str):
            return
        if goal[0] in ("→", "Not") and len(context) < len(HYPOTHESES):
            name = HYPOTHESES[len(context)]
            for body in self._terms((*context, goal[1]), goal[2] if goal[0] == "→" else "False", budget - 1):
                if body.text.startswith("fun "):
                    yield Term(f"fun {name} {body.text[4:]}", body.length + 1, False)
                elif body.length + 3 <= budget:
                    yield Term(f"fun {name} => {body.text}", body.length + 3, False)
        elif goal[0] == "And":
            for left in self._terms(context, goal[1], budget - 4):
                for right in self._terms(context, goal[2], budget - 3 - left.length):
                    yield Term(f"⟨ {left.text} , {right.text} ⟩", left.length + right.length + 3, True)
        elif goal[0] == "Or":
            for constructor, part in zip(("Or.inl", "Or.inr"), goal[1:], strict=True):
                for term in map(Term.argument, self._terms(context, part, budget - 1)):
                    if term.length < budget:
                        yield Term(f"{constructor} {term.text}", term.length + 1, False)

    def _spine(
        self, context: tuple[Formula, ...], goal: Formula, budget: int, head: Term, kind: Formula
    ) -> Iterator[Term]:
        """Terms that begin with `head`, whose type is `kind`."""
        if kind == goal:
            yield head
        base = head.argument()
        if kind == "False" and goal != "False" and base.length < budget:
            yield Term(f"{base.text} .elim", base.length + 1, True)
        if isinstance(kind, str):
            return
        if kind[0] == "And":
            for accessor, part in zip((".1", ".2"), kind[1:], strict=True):
                if _reachable(part) & {goal, _ANY} and base.length < budget:
                    longer = Term(f"{base.text} {accessor}", base.length + 1, True)
                    yield from self._spine(context, goal, budget, longer, part)
        elif kind[0] in ("→", "Not"):
            result = kind[2] if kind[0] == "→" else "False"
            if _reachable(result) & {goal, _ANY}:
                for argument in map(Term.argument, self._terms(context, kind[1], budget - head.length)):
                    if head.length + argument.length <= budget:
                        longer = Term(f"{head.text} {argument.text}", head.length + argument.length, False)
                        yield from self._spine(context, goal, budget, longer, result)
        else:
            yield from self._cases(context, goal, budget, base, kind)

    def _cases(
        self, context: tuple[Formula, ...], goal: Formula, budget: int, base: Term, kind: Formula
    ) -> Iterator[Term]:
        left = budget - base.length - 1
        for first in map(Term.argument, self._terms(context, ("→", kind[1], goal), left - 1)):
            for second in map(Term.argument, self._terms(context, ("→", kind[2], goal), left - first.length)):
                length = base.length + 1 + first.length + second.length
                if length <= budget:
                    yield Term(f"{base.text} .elim {first.text} {second.text}", length, False)


_reach: dict[Formula, frozenset[Formula]] = {}


def _reachable(kind: Formula) -> frozenset[Formula]:
    """Types in which a spine that begins with this type can end; `*` for any."""
    if kind not in _reach:
        ends: set[Formula] = {kind}
        if kind == "False":
            ends.add(_ANY)
        elif isinstance(kind, tuple):
            if kind[0] == "And":
                ends |= _reachable(kind[1]) | _reachable(kind[2])
            elif kind[0] == "→":
                ends |= _reachable(kind[2])
            else:  # Or by cases, Not by way of False
                ends |= {_ANY, "False"} if kind[0] == "Not" else {_ANY}
        _reach[kind] = frozenset(ends)
    return _reach[kind]


def canonical(proof: str) -> str:
    """The proof with bound names changed to h1, h2, ... by depth, and nothing else changed.

    A name under d binders is h(d + 1). Names that nothing binds, and those beyond h12, stay; text that is no proof is
    given back with whatever could be renamed.
    """
    tokens, renamed = proof.split(" "), []
    scopes: list[list[tuple[str, str]]] = [[]]  # one of bound names for each open bracket
    binding = False
    for token in tokens:
        if token in HYPOTHESES and binding:
            bound = scopes[-1]
            new = HYPOTHESES[len(bound)] if len(bound) < len(HYPOTHESES) else token
            scopes[-1] = [*bound, (token, new)]
            token = new
        elif token in HYPOTHESES:
            token = next((new for old, new in reversed(scopes[-1]) if old == token), token)
        elif token == "fun":
            binding = True
        elif token == "=>":
            binding = False
        elif token in ("(", "⟨"):
            scopes.append(scopes[-1])
        elif token in (")", "⟩") and len(scopes) > 1:
            scopes.pop()
        elif token == "," and len(scopes) > 1:
            scopes[-1] = scopes[-2]
        renamed.append(token)
    return " ".join(renamed)
