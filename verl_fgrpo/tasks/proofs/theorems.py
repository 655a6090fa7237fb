"""A seeded generator of theorems with their normal proofs up to a length; no two the same up to `formulas.shape`."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.processes import worker_pool
from verl_fgrpo.core.rows import iter_rows
from verl_fgrpo.tasks.proofs.formulas import Formula, read, shape, truth_table, write
from verl_fgrpo.tasks.proofs.search import ProofSearch

MAX_PROOF_TOKENS = 22
MAX_STATEMENT_TOKENS = 36
LEAST_SHORTEST_PROOF = 8  # tokens; a theorem with a shorter proof teaches little
MAX_PROOFS = 64  # kept of a theorem
CHUNK = 100  # theorems drawn with one seed
FORGET = 50_000  # sequents that a search may remember


@dataclass(frozen=True)
class Theorem:
    """A statement and its normal proofs up to `MAX_PROOF_TOKENS`, shortest first.

    `complete` tells whether these are all; a search stops at `MAX_PROOFS` of any sequent.
    """

    statement: str
    proofs: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return len(self.proofs) < MAX_PROOFS


def save_theorems(path: Path, theorems: Sequence[Theorem]) -> None:
    """Write them as a JSON list, one a line."""
    rows = [json.dumps(asdict(theorem), ensure_ascii=False) for theorem in theorems]
    write_atomic(path, "[\n" + ",\n".join(rows) + "\n]\n")


def load_theorems(path: Path) -> list[Theorem]:
    """Read a file of `save_theorems`, in order."""
    return [Theorem(row["statement"], tuple(row["proofs"])) for row in iter_rows(path)]


def draw_formula(size: int, rng: random.Random) -> Formula:
    """A random formula over A, B, C with at most `size` atoms and connectives, no operator on two equal operands."""
    if size <= 1:
        return rng.choice("ABC")
    name = rng.choices(("And", "Or", "→", "Not"), (2, 2, 2, 1))[0]
    if name == "Not":
        return ("Not", draw_formula(size - 1, rng))
    left_size = rng.randint(1, max(1, size - 2))
    left = draw_formula(left_size, rng)
    while (right := draw_formula(max(1, size - 1 - left_size), rng)) == left:
        pass
    return (name, left, right)


def draw_statement(rng: random.Random) -> Formula | None:
    """A random statement of one to three premises and a goal; None unless it is worth a search for proofs.

    Worth it: classically true, premises that differ and do not contradict each other, not too long.
    """
    goal = draw_formula(rng.choice((1, 3, 3, 5)), rng)
    premises = [draw_formula(rng.choice((1, 2, 3, 3, 4, 5)), rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    table = 0xFFFF
    for premise in premises:
        table &= truth_table(premise)
    if not table or table & ~truth_table(goal) or goal in premises or len(set(premises)) < len(premises):
        return None
    statement = goal
    for premise in premises:
        statement = ("→", premise, statement)
    return statement if len(write(statement).split(" ")) <= MAX_STATEMENT_TOKENS else None


def draw_theorems(rng: random.Random) -> Iterator[Theorem]:
    """Endless random theorems with at least two proofs, the shortest not too short."""
    search = ProofSearch(MAX_PROOFS)
    while True:
        statement = draw_statement(rng)
        if statement is None:
            continue
        proofs = search.proofs(statement, MAX_PROOF_TOKENS)
        search.forget(FORGET)
        if len(proofs) >= 2 and len(proofs[0].split(" ")) >= LEAST_SHORTEST_PROOF:
            yield Theorem(write(statement), tuple(proofs[:MAX_PROOFS]))


def make_theorems(
    count: int, seed: int, jobs: int = 1, progress: Callable[[int], object] = lambda found: None
) -> list[Theorem]:
    """`count` theorems with different shapes; the same for a seed, whatever `jobs` is.

    Args:
        count: at least 1.
        seed: of the statements.
        jobs: processes.
        progress: told how many there are, from time to time.
    """
    found: dict[str, Theorem] = {}
    with worker_pool(jobs) as pool:
        running = [pool.submit(_chunk, seed, number) for number in range(jobs + 1)]
        while len(found) < count:
            running.append(pool.submit(_chunk, seed, len(running)))
            for theorem in running[len(running) - jobs - 2].result():  # chunks in their order
                found.setdefault(shape(read(theorem.statement)), theorem)
            progress(min(count, len(found)))
    return list(found.values())[:count]


def _chunk(seed: int, number: int) -> list[Theorem]:
    theorems = draw_theorems(random.Random(f"{seed} {number}"))
    return [next(theorems) for _ in range(CHUNK)]
