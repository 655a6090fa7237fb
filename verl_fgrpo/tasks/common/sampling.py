"""Many answers to each problem, for pass@k."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from verl_fgrpo.core.token_sampling import SamplingParams, generate
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.samples import sample_seed
from verl_fgrpo.tasks.common.tokenizer import WordTokenizer

BATCH_ROWS = 512


@dataclass(frozen=True)
class Answer:
    """One sampled answer: its words without the end token, whether the end token came, its log-probability, its seed.

    `log_prob` is the sum over tokens, the end token included, of log softmax(logits / temperature).
    """

    text: str
    finished: bool
    log_prob: float
    seed: int


def sample_answers(
    model: Any,
    tokenizer: WordTokenizer,
    problems: Sequence[Problem],
    n: int,
    max_tokens: int,
    seed: int,
    temperature: float = 1.0,
) -> Iterator[list[Answer]]:
    """Yields `n` answers to each problem in turn, drawn from softmax(logits / temperature) over the whole vocabulary.

    Each answer has a random stream of its own, seeded by `seed`, the problem and its place among the n. So a problem's
    answers depend neither on the other problems nor on their order, and the first answers are the same whether n is 8
    or 128 (up to float rounding in the batched forward pass).

    Args:
        model: a causal language model on the CPU, in evaluation mode (`model.load_model`).
        tokenizer: of the prompts.
        problems: `prompt` is the text the model sees.
        n: samples a problem.
        max_tokens: response limit, end token included.
        seed: of this evaluation.
        temperature: above 0.
    Raises:
        ValueError: n, max_tokens or temperature not positive.
    """
    import torch

    if n < 1 or max_tokens < 1 or not temperature > 0:
        raise ValueError(f"n = {n}, max_tokens = {max_tokens}, temperature = {temperature}: all must be positive")
    stop = frozenset({tokenizer.end_id})
    at_once = max(1, BATCH_ROWS // n)
    for start in range(0, len(problems), at_once):
        rows = [(problem, index) for problem in problems[start : start + at_once] for index in range(n)]
        seeds = [sample_seed(seed, problem.benchmark, problem.problem_id, index) for problem, index in rows]
        prompts = {problem.key: tokenizer.encode(problem.prompt) for problem, _ in rows}
        generated = generate(
            model,
            [prompts[problem.key] for problem, _ in rows],
            [SamplingParams(max_tokens, temperature, seed=row_seed, stop_token_ids=stop) for row_seed in seeds],
            torch.Generator(),
        )
        answers = [
            Answer(tokenizer.decode(g.token_ids), g.stop_reason == "completed", sum(g.log_probs), row_seed)
            for g, row_seed in zip(generated, seeds, strict=True)
        ]
        yield from (answers[i : i + n] for i in range(0, len(answers), n))


def score_answers(
    model: Any, tokenizer: WordTokenizer, pairs: Sequence[tuple[str, str]], batch_size: int = 256
) -> list[float]:
    """Log-probability of each (prompt, answer), the end token included: what `Answer.log_prob` is at temperature 1."""
    import torch

    rows = [(tokenizer.encode(prompt), [*tokenizer.encode(answer), tokenizer.end_id]) for prompt, answer in pairs]
    values = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        width = max(len(prompt) + len(answer) for prompt, answer in part)
        ids = torch.tensor([p + a + [tokenizer.end_id] * (width - len(p) - len(a)) for p, a in part])
        with torch.inference_mode():  # padding stands on the right: causal attention never sees it
            log_p = model(input_ids=ids, use_cache=False).logits.double().log_softmax(-1)
        chosen = log_p[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2)
        for i, (prompt, answer) in enumerate(part):
            values.append(float(chosen[i, len(prompt) - 1 : len(prompt) + len(answer) - 1].sum()))
    return values
