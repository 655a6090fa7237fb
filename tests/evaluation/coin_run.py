"""A sequential run with a backend of coins instead of a model; started as a process by the kill test.

python coin_run.py RUN CAP STOP SECONDS_A_SAMPLE
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.counts import StopRule
from verl_fgrpo.evaluation.generation import Decoding, Generated, Request
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.samples import sample_seed
from verl_fgrpo.evaluation.sequential import sample_until_correct

RATES = {"never": 0.0, "rare": 0.04, "some": 0.2, "half": 0.5, "often": 0.8, "always": 1.0}
PROBLEMS = [Problem("coin", name, f"question {name}", "choice", ("A",)) for name in RATES]


def answer(seed: int, name: str) -> str:
    """The response that belongs to a seed."""
    coin = random.Random(seed).random()
    return f"{coin:.9f}. The answer is {'A' if coin < RATES[name] else 'B'}."


class Coins:
    """Answers A with the problem's rate; `orders` of requests are kept."""

    def __init__(self, seconds: float = 0.0, fail_after: int | None = None) -> None:
        self.seconds, self.fail_after, self.drawn = seconds, fail_after, 0

    def identity(self) -> dict[str, Any]:
        return {"backend": "coins"}

    def generate(self, requests: Iterable[Request], decoding: Decoding) -> Iterator[Generated]:
        batch = list(requests)
        random.Random(len(batch)).shuffle(batch)  # engines give samples back in any order
        for request in batch:
            if self.drawn == self.fail_after:
                raise RuntimeError("the engine died")
            time.sleep(self.seconds)
            self.drawn += 1
            yield Generated(request.key, request.seed, answer(request.seed, request.key[1]), 10, "stop")


def undisturbed(cap: int, stop: int) -> dict[str, tuple[int, int]]:
    """(samples counted, correct) of every problem, from the coins alone."""
    found = {}
    for name, rate in RATES.items():
        right = [random.Random(sample_seed(0, "coin", name, index)).random() < rate for index in range(cap)]
        at = [index + 1 for index in range(cap) if right[index] and sum(right[: index + 1]) == stop]
        found[name] = (at[0], stop) if at else (cap, sum(right))
    return found


def run(
    folder: Path,
    cap: int,
    stop: int,
    backend: Coins,
    say: Any = lambda line: None,
    problems: Sequence[Problem] = PROBLEMS,
) -> None:
    sample_until_correct(
        folder, problems, backend, StopRule(cap, stop), Decoding(max_tokens=16), "none", progress=False, say=say
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Coins(float(sys.argv[4])))
