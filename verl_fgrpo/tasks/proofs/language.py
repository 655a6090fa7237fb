"""The language of statements and proofs: which texts are let near Lean at all, and how they are written for it."""

ATOMS = ("A", "B", "C", "D")
STATEMENT_TOKENS = (*ATOMS, "And", "Or", "Not", "False", "True", "→", "(", ")")
HYPOTHESES = tuple(f"h{i}" for i in range(1, 13))
ACCESSORS = (".1", ".2", ".elim")  # written without a blank before them
PROOF_TOKENS = (*HYPOTHESES, "fun", "=>", "(", ")", "⟨", "⟩", ",", *ACCESSORS, "Or.inl", "Or.inr", "True.intro")
MAX_TOKENS = 256  # of a statement, and of a proof

_CLOSING = {")": "(", "⟩": "⟨"}
_BEFORE_ACCESSOR = frozenset((*HYPOTHESES, ")", "⟩", *ACCESSORS))
_STATEMENT_SET, _PROOF_SET = frozenset(STATEMENT_TOKENS), frozenset(PROOF_TOKENS)


def why_not(statement: object, proof: object) -> str | None:
    """Why a pair of texts is not in the language; None if it is.

    The language: 1 to `MAX_TOKENS` tokens of the fixed lists, one blank between two, balanced brackets, an accessor
    only after a hypothesis, a closing bracket or an accessor. So there is no line break, no comment, no command, no
    name but h1 to h12, and nothing that could close the declaration. Whether it is a term at all is Lean's business.
    """
    return _why_not("statement", statement, _STATEMENT_SET) or _why_not("proof", proof, _PROOF_SET)


def _why_not(name: str, text: object, allowed: frozenset[str]) -> str | None:
    if not isinstance(text, str):
        return f"the {name} is no text"
    if len(text) > 16 * MAX_TOKENS:  # no token is longer than 10 characters
        return f"the {name} is too long"
    tokens = text.split(" ")
    if len(tokens) > MAX_TOKENS:
        return f"the {name} has over {MAX_TOKENS} tokens"
    open_brackets: list[str] = []
    before = ""
    for token in tokens:
        if token not in allowed:
            return f"{token[:20]!r} is no token of a {name}" if token else f"the {name} is empty or has two blanks"
        if token in ACCESSORS and before not in _BEFORE_ACCESSOR:
            return f"{token} follows nothing that it could be applied to"
        if token in ("(", "⟨"):
            open_brackets.append(token)
        elif token in _CLOSING and (not open_brackets or open_brackets.pop() != _CLOSING[token]):
            return f"{token} closes nothing"
        before = token
    return f"{open_brackets[-1]} is not closed" if open_brackets else None


def to_lean(text: str) -> str:
    """A statement or proof as Lean reads it, and people: accessors follow without a blank."""
    for accessor in ACCESSORS:
        text = text.replace(f" {accessor}", accessor)
    return text
