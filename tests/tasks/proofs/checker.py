"""An independent checker of proofs, without Lean: parser, then type inference by unification. A test oracle."""

from __future__ import annotations

from typing import Any

from verl_fgrpo.tasks.proofs.formulas import read
from verl_fgrpo.tasks.proofs.language import HYPOTHESES, why_not


class Rejected(Exception):
    """No proof of the statement."""


class Parser:
    """Terms: ("var", h), ("fun", [h], body), ("app", head, [argument]), ("pair", [term]), ("get", term, accessor),
    ("const", name)."""

    def __init__(self, text: str) -> None:
        self.tokens = [*text.split(" "), ""]
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position]

    def take(self, wanted: str | None = None) -> str:
        token = self.peek()
        if wanted is not None and token != wanted:
            raise Rejected(f"{token!r} instead of {wanted!r}")
        self.position += 1
        return token

    def whole(self) -> Any:
        term = self.term()
        self.take("")
        return term

    def term(self) -> Any:
        if self.peek() == "fun":
            return self.function()
        head = self.operand()
        arguments = []
        while self.peek() in HYPOTHESES or self.peek() in ("(", "⟨", "Or.inl", "Or.inr", "True.intro", "fun"):
            if self.peek() == "fun":
                arguments.append(self.function())
                break
            arguments.append(self.operand())
        return ("app", head, arguments) if arguments else head

    def function(self) -> Any:
        self.take("fun")
        names = []
        while self.peek() in HYPOTHESES:
            names.append(self.take())
        if not names:
            raise Rejected("fun without a name")
        self.take("=>")
        return ("fun", names, self.term())

    def operand(self) -> Any:
        token = self.take()
        if token in HYPOTHESES:
            term: Any = ("var", token)
        elif token in ("Or.inl", "Or.inr", "True.intro"):
            term = ("const", token)
        elif token == "(":
            term = self.term()
            self.take(")")
        elif token == "⟨":
            parts = []
            while self.peek() != "⟩":
                parts.append(self.term())
                if self.peek() != "⟩":
                    self.take(",")
                    if self.peek() == "⟩" and False:
                        raise Rejected("a comma at the end")
            self.take("⟩")
            term = ("pair", parts)
        else:
            raise Rejected(f"{token!r} begins no term")
        while self.peek() in (".1", ".2", ".elim"):
            term = ("get", term, self.take())
        return term


class Inference:
    """Types are formulas with holes: a hole is ["hole", solution or None]; what needs a solution first waits."""

    def __init__(self) -> None:
        self.holes: list[list[Any]] = []
        self.waiting: list[Any] = []

    def hole(self) -> list[Any]:
        self.holes.append(["hole", None])
        return self.holes[-1]

    def solved(self, kind: Any) -> Any:
        while isinstance(kind, list) and kind[1] is not None:
            kind = kind[1]
        return kind

    def occurs(self, hole: Any, kind: Any) -> bool:
        kind = self.solved(kind)
        return kind is hole or (isinstance(kind, tuple) and any(self.occurs(hole, part) for part in kind[1:]))

    def unify(self, one: Any, other: Any) -> None:
        one, other = self.solved(one), self.solved(other)
        if one is other:
            return
        if isinstance(other, list):
            one, other = other, one
        if isinstance(one, list):
            if self.occurs(one, other):
                raise Rejected("a type within itself")
            one[1] = other
            return
        if isinstance(one, str) or isinstance(other, str):
            if one != other:
                raise Rejected(f"{one} is not {other}")
            return
        if one[0] != other[0] and {one[0], other[0]} == {"Not", "→"}:
            one, other = self.as_function(one), self.as_function(other)
        if one[0] != other[0]:
            raise Rejected(f"{one[0]} is not {other[0]}")
        for a, b in zip(one[1:], other[1:], strict=True):
            self.unify(a, b)

    @staticmethod
    def as_function(kind: Any) -> Any:
        return ("→", kind[1], "False") if kind[0] == "Not" else kind

    def check(self, term: Any, kind: Any, scope: dict[str, Any]) -> None:
        """`term` must have the type `kind`."""
        name = term[0]
        if name == "fun":
            scope = dict(scope)
            for bound in term[1]:
                kind = self.solved(kind)
                if isinstance(kind, list):
                    self.unify(kind, ("→", self.hole(), self.hole()))
                    kind = self.solved(kind)
                if isinstance(kind, str) or kind[0] not in ("→", "Not"):
                    raise Rejected("a function where none is wanted")
                _, scope[bound], kind = self.as_function(kind)
            self.check(term[2], kind, scope)
        elif name == "pair":
            self.when_known(kind, lambda known: self.pair(term[1], known, scope))
        elif name == "app":
            self.apply(self.head(term[1], scope), term[2], kind, scope)
        else:
            self.apply(self.head(term, scope), [], kind, scope)

    def head(self, term: Any, scope: dict[str, Any]) -> Any:
        """The type of a term that stands as a function; a hole for one that is not known yet."""
        if term[0] == "var":
            if term[1] not in scope:
                raise Rejected(f"{term[1]} is unknown")
            return scope[term[1]]
        if term[0] == "const":
            if term[1] == "True.intro":
                return "True"
            a, b = self.hole(), self.hole()
            return ("→", a if term[1] == "Or.inl" else b, ("Or", a, b))
        kind = self.hole()
        if term[0] == "get":
            inner = self.hole()
            self.check(term[1], inner, scope)
            self.when_known(inner, lambda known: self.unify(kind, self.accessed(known, term[2])))
        else:
            self.check(term, kind, scope)
        return kind

    def accessed(self, kind: Any, accessor: str) -> Any:
        """The type of `x.1`, `x.2` or `x.elim` for x of a known type."""
        name = kind if isinstance(kind, str) else kind[0]
        if accessor != ".elim":
            if name != "And":
                raise Rejected(f"{accessor} of {name}")
            return kind[1] if accessor == ".1" else kind[2]
        goal = self.hole()
        if name == "False":
            return goal
        if name == "Not":
            return ("→", kind[1], goal)
        if name == "Or":
            return ("→", ("→", kind[1], goal), ("→", ("→", kind[2], goal), goal))
        raise Rejected(f".elim of {name}")

    def apply(self, head: Any, arguments: list[Any], kind: Any, scope: dict[str, Any]) -> None:
        """A head of this type, applied to the arguments, must have the type `kind`."""
        if not arguments:
            self.unify(head, kind)
            return

        def with_known(known: Any) -> None:
            if isinstance(known, str) or known[0] not in ("→", "Not"):
                raise Rejected("what is applied is no function")
            _, left, right = self.as_function(known)
            self.apply(right, arguments[1:], kind, scope)
            self.check(arguments[0], left, scope)

        self.when_known(head, with_known)

    def pair(self, parts: list[Any], kind: Any, scope: dict[str, Any]) -> None:
        name = kind if isinstance(kind, str) else kind[0]
        if name == "True" and not parts:
            return
        if name != "And" or len(parts) < 2:
            raise Rejected(f"{len(parts)} parts for {name}")
        self.check(parts[0], kind[1], scope)
        self.check(parts[1] if len(parts) == 2 else ("pair", parts[1:]), kind[2], scope)

    def when_known(self, kind: Any, action: Any) -> None:
        known = self.solved(kind)
        if isinstance(known, list):
            self.waiting.append((kind, action))
        else:
            action(known)

    def finish(self) -> None:
        while self.waiting:
            ready = [item for item in self.waiting if not isinstance(self.solved(item[0]), list)]
            if not ready:
                raise Rejected("types that nothing decides")
            self.waiting.remove(ready[0])
            ready[0][1](self.solved(ready[0][0]))
        if any(isinstance(self.solved(hole), list) for hole in self.holes):
            raise Rejected("types that nothing decides")


def verdict(statement: str, proof: str) -> str:
    """What `check_proofs` has to say, `timeout` aside."""
    if why_not(statement, proof):
        return "error"
    try:
        kind = read(statement)
        inference = Inference()
        inference.check(Parser(proof).whole(), kind, {})
        inference.finish()
    except (Rejected, ValueError):
        return "wrong"
    return "proved"
