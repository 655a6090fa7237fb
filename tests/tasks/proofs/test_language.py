"""Statements, proofs and their forms: reading, sameness, search; all without Lean."""

import random

import pytest
from checker import verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_fgrpo.tasks.proofs.formulas import read, shape, truth_table, write
from verl_fgrpo.tasks.proofs.language import MAX_TOKENS, to_lean, why_not
from verl_fgrpo.tasks.proofs.search import ProofSearch, canonical

atoms = st.sampled_from(["A", "B", "C", "D", "True", "False"])
formulas = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(st.just("Not"), inner), st.tuples(st.sampled_from(["And", "Or", "→"]), inner, inner)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("statement", "proof", "reason"),
    [
        ("A → A", "fun h1 => h1", None),
        ("And A B → A", "fun h1 => h1 .1", None),
        ("A → A", "", "empty"),
        ("A → A", "fun  h1 => h1", "two blanks"),
        ("A → A", "fun h1 => h1 ", "two blanks"),
        ("A → A", "fun h1 => h1\n", "no token"),
        ("A → A", "fun h1\n=> h1", "no token"),
        ("A → A", "fun h13 => h13", "h13"),
        ("A → A", "fun h1 => ( h1", "not closed"),
        ("A → A", "fun h1 => h1 )", "closes nothing"),
        ("A → A", "fun h1 => ( h1 ⟩", "closes nothing"),
        ("A → A", "fun h1 => True.intro .1", "follows nothing"),
        ("A → A", ".1", "follows nothing"),
        ("E → E", "fun h1 => h1", "'E' is no token"),
        ("A → A", "h1 " * MAX_TOKENS + "h1", "over 256 tokens"),
        ("A → A", "h1" * 10_000, "too long"),
        (None, "h1", "no text"),
        ("A", b"h1", "no text"),
    ],
)
def test_what_is_in_the_language(statement, proof, reason):
    found = why_not(statement, proof)
    assert found is None if reason is None else reason in found


def test_accessors_are_written_without_a_blank():
    assert to_lean("fun h1 => ( h1 .2 .1 ) .elim h1 .1") == "fun h1 => ( h1.2.1 ).elim h1.1"


def test_golden_formulas():
    assert read("And A B → Or B A") == ("→", ("And", "A", "B"), ("Or", "B", "A"))
    assert read("( A → B ) → Not A → C") == ("→", ("→", "A", "B"), ("→", ("Not", "A"), "C"))  # → groups to the right
    # A is 1 in every second valuation, B in pairs: A → B fails where A = 1 and B = 0, valuations 1, 5, 9, 13
    assert truth_table(read("A → B")) == 0xFFFF - (1 << 1 | 1 << 5 | 1 << 9 | 1 << 13)
    assert truth_table(read("( ( A → B ) → A ) → A")) == 0xFFFF  # Peirce: classical only


@pytest.mark.parametrize("text", ["", "A B", "And A", "( A", "A →", "Not", "fun", "A → → B", "And A B C"])
def test_what_is_no_formula(text):
    with pytest.raises(ValueError, match="is no formula"):
        read(text)


@given(formulas)
@settings(max_examples=200, deadline=None)
def test_write_and_read_are_inverse(formula):
    assert read(write(formula)) == formula


@given(formulas, st.permutations(["A", "B", "C", "D"]))
@settings(max_examples=100, deadline=None)
def test_shape_forgets_names_and_orders_only(formula, names):
    def renamed(f):
        if isinstance(f, str):
            return dict(zip("ABCD", names, strict=True)).get(f, f)
        if f[0] in ("And", "Or"):
            return (f[0], renamed(f[2]), renamed(f[1]))
        return (f[0], *map(renamed, f[1:]))

    assert shape(renamed(formula)) == shape(formula)
    assert bin(truth_table(renamed(formula))).count("1") == bin(truth_table(formula)).count("1")


def test_shape_takes_premises_in_any_order_and_tells_other_theorems_apart():
    assert shape(read("A → Or B C → A")) == shape(read("Or C A → B → B"))
    assert shape(read("A → B → A")) != shape(read("A → A → B"))
    assert shape(read("A → Not B")) != shape(read("A → B"))


@pytest.mark.parametrize(
    ("proof", "form"),
    [
        ("fun h7 => h7", "fun h1 => h1"),
        ("fun h2 h1 => h2", "fun h1 h2 => h1"),
        ("fun h3 => fun h3 => h3", "fun h1 => fun h2 => h2"),  # the inner one hides the outer
        ("fun h3 h3 => h3", "fun h1 h2 => h2"),
        ("fun h5 => h5 .elim ( fun h9 => Or.inr h9 ) ( fun h9 => Or.inl h9 )",
         "fun h1 => h1 .elim ( fun h2 => Or.inr h2 ) ( fun h2 => Or.inl h2 )"),
        ("fun h4 => ⟨ fun h5 => h4 , fun h6 => h6 ⟩", "fun h1 => ⟨ fun h2 => h1 , fun h2 => h2 ⟩"),
        ("( fun h4 => h4 ) h4", "( fun h1 => h1 ) h4"),  # free names stay
        ("fun h1 h2 => h1", "fun h1 h2 => h1"),
        ("fun h1 => fun h2 => h1", "fun h1 => fun h2 => h1"),  # grouping stays
    ],
)  # fmt: skip
def test_canonical_changes_bound_names_only(proof, form):
    assert canonical(proof) == form
    assert canonical(form) == form


@pytest.mark.parametrize(
    ("statement", "proofs"),
    [
        ("And A B → Or B A", ["fun h1 => Or.inl h1 .2", "fun h1 => Or.inr h1 .1"]),
        ("A → A → A", ["fun h1 h2 => h1", "fun h1 h2 => h2"]),
        ("( ( A → B ) → A ) → A", []),  # not intuitionistic
        ("True", ["True.intro"]),
        ("False → A", ["fun h1 => h1 .elim"]),
        ("Or A B → Or B A", ["fun h1 => h1 .elim ( fun h2 => Or.inr h2 ) ( fun h2 => Or.inl h2 )"]),
    ],
)
def test_golden_searches(statement, proofs):
    assert ProofSearch().proofs(read(statement), 20) == proofs


@given(formulas.filter(lambda formula: truth_table(formula) == 0xFFFF))
@settings(max_examples=60, deadline=None)
def test_what_is_found_is_proved_canonical_and_short(formula):
    proofs = ProofSearch(max_proofs=60).proofs(formula, 14)
    assert len(set(proofs)) == len(proofs)
    for proof in proofs:
        assert verdict(write(formula), proof) == "proved"
        assert canonical(proof) == proof and len(proof.split()) <= 14


def test_a_larger_bound_finds_more_of_the_same():
    formula = read("( A → B ) → ( B → A ) → A → B")
    short, long = (ProofSearch().proofs(formula, n) for n in (8, 16))
    assert 0 < len(short) < len(long) and set(short) < set(long)


@pytest.mark.parametrize(
    ("statement", "proof", "said"),
    [
        ("A → B", "fun h1 => h1", "wrong"),
        ("A → A", "fun h1 => ( fun h2 => h2 ) h1", "proved"),
        ("And A B → A", "fun h1 => ( fun h2 => h2 .1 ) h1", "proved"),
        ("A → A", "fun h1 => ( fun h2 => h1 ) ( fun h3 => h3 )", "wrong"),  # the type of h3 is decided by nothing
        ("A → And A ( And A A )", "fun h1 => ⟨ h1 , h1 , h1 ⟩", "proved"),
        ("Not A → A → B", "fun h1 => h1 .elim", "proved"),
        ("A → Or A B", "Or.inl", "proved"),
        ("A → A", "fun h1 => h1 h1", "wrong"),
        ("A", "fun", "wrong"),
    ],
)
def test_the_oracle_itself(statement, proof, said):
    assert verdict(statement, proof) == said


def mutated(proof, rng):
    """A proof with one to three tokens replaced, removed, added or exchanged."""
    words = ("h1", "h2", "h3", "fun", "=>", "(", ")", "⟨", "⟩", ",", ".1", ".2", ".elim", "Or.inl", "Or.inr")
    tokens = proof.split(" ")
    for _ in range(rng.choice([1, 1, 2, 3])):
        place, kind = rng.randrange(len(tokens)), rng.random()
        if kind < 0.45:
            tokens[place] = rng.choice(words)
        elif kind < 0.6 and len(tokens) > 1:
            del tokens[place]
        elif kind < 0.8:
            tokens.insert(place, rng.choice(words))
        else:
            other = rng.randrange(len(tokens))
            tokens[place], tokens[other] = tokens[other], tokens[place]
    return " ".join(tokens)


def test_mutations_change_something():
    rng = random.Random(0)
    proof = "fun h1 h2 => ( h1 h2 ) .elim"
    assert len({mutated(proof, rng) for _ in range(100)}) > 50
