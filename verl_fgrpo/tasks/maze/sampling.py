"""Many answers to each maze, for pass@k: one prompt pass a maze, whose key-value cache serves all samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verl_fgrpo.tasks.maze.mazes import Maze, solve
from verl_fgrpo.tasks.maze.rewards import is_correct_answer
from verl_fgrpo.tasks.maze.tokenizer import END_ID, VOCABULARY, encode


@dataclass(frozen=True)
class Answer:
    """One sampled answer: its words without the end token, whether the end token came, the summed log-probability."""

    text: str
    finished: bool
    log_prob: float

    def is_correct(self, maze: Maze) -> bool:
        """Finished, and the target action sequence."""
        return self.finished and is_correct_answer(self.text, " ".join(solve(maze)))


def sample_answers(
    model: Any, mazes: Sequence[Maze], n: int, max_tokens: int, seed: int, temperature: float = 1.0
) -> Iterator[list[Answer]]:
    """Yields `n` answers for each maze in turn, drawn from softmax(logits / temperature) over the whole vocabulary.

    Token t of sample i is the inverse of the cumulative distribution at u[i, t], with u from a generator seeded by
    `seed` and the maze itself. So a maze's answers depend neither on the other mazes nor on their order, and the
    first answers are the same whether n is 8 or 128 (up to float rounding in the batched forward pass).

    Args:
        model: a causal language model on any device, in evaluation mode (`sft.load_model`).
        mazes: the problems.
        n: samples a problem.
        max_tokens: response limit, end token included (`dataset.response_limit`).
        seed: of this evaluation.
        temperature: above 0.
    Raises:
        ValueError: n, max_tokens or temperature not positive.
    """
    if n < 1 or max_tokens < 1 or not temperature > 0:
        raise ValueError(f"n = {n}, max_tokens = {max_tokens}, temperature = {temperature}: all must be positive")
    for maze in mazes:
        rng = np.random.default_rng([seed, int(maze.problem_id, 16)])
        yield _sample_one(model, maze, rng.random((n, max_tokens)), temperature)


def _sample_one(model: Any, maze: Maze, uniforms: np.ndarray, temperature: float) -> list[Answer]:
    """Answers to one maze; `uniforms` has shape (samples, tokens)."""
    import torch

    n, max_tokens = uniforms.shape
    device = model.device
    draws = torch.from_numpy(uniforms).to(device)
    tokens = torch.full((n, max_tokens), END_ID, device=device)
    log_probs = torch.zeros(n, dtype=torch.float64, device=device)
    finished = torch.zeros(n, dtype=torch.bool, device=device)
    rows = torch.arange(n, device=device)  # samples still being written
    with torch.inference_mode():
        prompt = torch.tensor([encode(maze.text)], device=device)
        out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1].expand(n, -1)
        cache.batch_repeat_interleave(n)
        for t in range(max_tokens):
            log_p = torch.log_softmax(logits.double() / temperature, dim=-1)
            # The last cumulative sum may round to just below 1; clamp so that the draw never falls off the vocabulary.
            token = torch.searchsorted(log_p.exp().cumsum(-1), draws[rows, t : t + 1], right=True)
            token = token.clamp(max=log_p.shape[-1] - 1)
            log_probs[rows] += log_p.gather(1, token).squeeze(1)
            tokens[rows, t] = token.squeeze(1)
            going = token.squeeze(1) != END_ID
            finished[rows[~going]] = True
            if not going.any() or t + 1 == max_tokens:
                break
            if not going.all():
                rows, token = rows[going], token[going]
                cache.batch_select_indices(going.nonzero().squeeze(1))
            logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1]
    return [
        Answer(" ".join(VOCABULARY[i] for i in row if i != END_ID), done, log_prob)
        for row, done, log_prob in zip(tokens.tolist(), finished.tolist(), log_probs.tolist(), strict=True)
    ]


def count_correct(
    model: Any, mazes: Sequence[Maze], n: int, max_tokens: int, seed: int, progress: bool = True
) -> np.ndarray:
    """Correct answers among `n` samples of each maze, shape (mazes,), int64: what `pass_at_k` takes."""
    from tqdm import tqdm

    answers = tqdm(sample_answers(model, mazes, n, max_tokens, seed), "sampling", len(mazes), disable=not progress)
    return np.array([sum(a.is_correct(maze) for a in group) for maze, group in zip(mazes, answers, strict=True)])
