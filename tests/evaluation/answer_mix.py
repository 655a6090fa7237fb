"""A realistic mix of responses built from real problems and gold answers: for benchmarks and tests of the grading."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

__all__ = ["answer_variants", "sample_responses"]


def answer_variants(gold: str, others: Sequence[str], rng: np.random.Generator, count: int) -> list[str]:
    """`count` distinct final sentences for a gold answer: right in several spellings, wrong, unfinished, odd.

    Args:
        gold: LaTeX of the right answer.
        others: gold answers of other problems, used as wrong ones.
        rng: generator.
        count: how many distinct ones.
    """
    bare = gold.strip().strip("$")
    spellings = [bare, *_respelled(bare)]
    variants = [f"Therefore the final answer is $\\boxed{{{text}}}$." for text in spellings]
    variants += [
        f"So the answer is: ${bare}$",
        f"\\[\\boxed{{{bare}}}\\]",
        f"Answer: {bare}",
        f"First $\\boxed{{0}}$, no: I made a mistake. Corrected: $\\boxed{{{bare}}}$",
        f"We get $\\boxed{{{bare}}}$ and also $\\boxed{{{others[0].strip('$')}}}$.",
        f"Hence it is $\\boxed{{{bare} \\text{{ cm}}}}$.",
        f"Hence it is $\\boxed{{x = {bare}}}$.",
        f"The value is {bare}, as claimed.",
        f"Thus we conclude that the answer is $\\boxed{{{bare[: max(1, len(bare) // 2)]}",  # cut off
        "Now let us consider the remaining case, in which",  # cut off before any answer
        "I cannot solve this problem.",
    ]
    step = 0
    while len(set(variants)) < count:
        other = others[int(rng.integers(len(others)))].strip().strip("$")
        step += 1
        wrong = (other, f"{other} + {step}", str(int(rng.integers(-999, 1000))), f"\\frac{{{step}}}{{{step + 7}}}")
        variants.append(f"Therefore the final answer is $\\boxed{{{wrong[step % 4]}}}$.")
    return list(dict.fromkeys(variants))[:count]


def sample_responses(
    reasoning: str,
    variants: Sequence[str],
    num_samples: int,
    rng: np.random.Generator,
    same_text: bool = False,
    skewed: bool = True,
) -> list[str]:
    """`num_samples` responses ending in one of `variants`, each at least once.

    With `skewed` the first variants come more often (1/rank), as a model's answers do; otherwise all equally often.

    The reasoning before the answer is the problem's sentences in random order, so that no two texts are equal; with
    `same_text` it is the same for every sample, so that only the answers differ.
    """
    weights = 1.0 / np.arange(1, len(variants) + 1) if skewed else np.ones(len(variants))
    picks = rng.choice(len(variants), size=num_samples, p=weights / weights.sum())
    picks[: len(variants)] = np.arange(len(variants))
    rng.shuffle(picks)
    sentences = re.split(r"(?<=[.!?])\s+", reasoning)
    responses = []
    for number, pick in enumerate(picks):
        if same_text:
            text = reasoning
        else:
            order = rng.permutation(len(sentences))
            text = f"Attempt {number}. " + " ".join(sentences[index] for index in order)
        responses.append(f"{text}\n\n{variants[pick]}")
    return responses


def _respelled(answer: str) -> list[str]:
    """Other spellings of the same value where the form is simple enough to know; possibly none."""
    spellings = []
    if re.fullmatch(r"-?\d+", answer):
        value = int(answer)
        spellings += [f"{value}.0", f"{value:,}", f"{2 * value}/2", f"\\frac{{{3 * value}}}{{3}}", f"+{value}"]
    if "\\frac{" in answer:
        spellings += [answer.replace("\\frac{", "\\dfrac{"), answer.replace("\\frac{", "\\tfrac{")]
    if "," in answer:
        spellings += [answer.replace(",", ", "), answer.replace(" ", "")]
    if "\\left" in answer:
        spellings.append(answer.replace("\\left", "").replace("\\right", ""))
    spellings += [f"{{{answer}}}", f"\\displaystyle {answer}"]
    return spellings
