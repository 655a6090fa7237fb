"""Batched, KV-cached sampling from a Hugging Face causal language model, with exact log-probs.

Shapes: _B rows still running (finished ones leave the batch), _R of them those cut to top-k or top-p, _V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

# What verl sends with every request although it only concerns other engines.
_IGNORED = {"logprobs", "prompt_logprobs", "include_stop_str_in_output", "detokenize", "n", "best_of"}
_NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}


@dataclass(frozen=True)
class SamplingParams:
    """How one row is sampled."""

    max_tokens: int  # at most this many new tokens (at least 1)
    temperature: float = 1.0  # 0 is greedy; else logits are divided by it
    top_k: int = -1  # keep the k most likely tokens; -1 or 0 keeps all
    top_p: float = 1.0  # keep the smallest set of tokens whose probability reaches p; 1 keeps all
    seed: int | None = None  # the row's own random stream, whatever else is in the batch; None draws from the batch's
    stop_token_ids: frozenset[int] = frozenset()  # tokens that end the row (they are part of the output)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 1: the prompt leaves no room")
        if not (self.temperature >= 0 and self.temperature < float("inf")):
            raise ValueError(f"temperature={self.temperature} must be finite and not negative (0 is greedy)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1] (1 keeps every token)")
        if self.top_k < -1:
            raise ValueError(f"top_k={self.top_k} must be -1 or 0 (every token) or a positive count")

    @classmethod
    def from_request(
        cls, params: dict[str, Any], max_tokens: int, stop_token_ids: frozenset[int], ignore_eos: bool = False
    ) -> "SamplingParams":
        """Read the dictionary that verl sends with a request, in the names of vLLM.

        Args:
            max_tokens: limit if `params` has none, and upper bound of the one it has.
            stop_token_ids: ends of sequence, used unless `ignore_eos`.

        Raises:
            ValueError: for a parameter that this rollout does not implement, or an invalid value.
        """
        params = dict(params)
        limit = params.pop("max_tokens", None)
        limit = params.pop("max_new_tokens", None) if limit is None else limit
        stop = frozenset(params.pop("stop_token_ids", None) or ())
        ignore_eos = bool(params.pop("ignore_eos", ignore_eos))
        result = cls(
            max_tokens=max_tokens if limit is None else min(int(limit), max_tokens),
            temperature=float(params.pop("temperature", 1.0)),
            top_k=int(params.pop("top_k", -1)),
            top_p=float(params.pop("top_p", 1.0)),
            seed=params.pop("seed", None),
            stop_token_ids=stop if ignore_eos else stop | stop_token_ids,
        )
        for name, value in params.items():
            if name not in _IGNORED and value is not None and value != _NEUTRAL.get(name):
                raise ValueError(
                    f"sampling parameter {name}={value!r} is not implemented by rollout.name=hf; "
                    "leave it out (implemented: temperature, top_k, top_p, max_tokens, seed, stop_token_ids, "
                    "ignore_eos)"
                )
        return result


@dataclass
class Generation:
    """One row's result: new token ids, the log-probs they were sampled with, and why it ended."""

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stop_reason: str = "aborted"


def processed_log_probs(
    logits_BV: torch.Tensor, temperature_B: torch.Tensor, top_k_B: torch.Tensor, top_p_B: torch.Tensor
) -> torch.Tensor:
    """Log-probs of the sampled distribution: log_softmax(logits / temperature), cut to top-k and top-p.

    A greedy row (temperature 0) keeps its plain log_softmax: its token is the argmax, and that is what vLLM reports.

    Args:
        logits_BV: (B, V) float.
        temperature_B: (B,) float, 0 for greedy.
        top_k_B: (B,) int, V where every token is kept.
        top_p_B: (B,) float in (0, 1].

    Returns:
        (B, V) float32; -inf where a token cannot be sampled.
    """
    scale_B = torch.where(temperature_B > 0, temperature_B, torch.ones_like(temperature_B))
    log_probs_BV = torch.log_softmax(logits_BV.float() / scale_B.unsqueeze(-1), dim=-1)
    vocab_size = logits_BV.shape[-1]
    rows = ((top_k_B < vocab_size) | (top_p_B < 1)) & (temperature_B > 0)
    if not bool(rows.any()):
        return log_probs_BV
    sorted_RV, order_RV = log_probs_BV[rows].sort(dim=-1, descending=True)
    beyond_k_RV = torch.arange(vocab_size).unsqueeze(0) >= top_k_B[rows].unsqueeze(-1)
    sorted_RV = torch.log_softmax(sorted_RV.masked_fill(beyond_k_RV, -torch.inf), dim=-1)
    probs_RV = sorted_RV.exp()
    # A token is kept while the mass before it is below p, so the first one always is.
    beyond_p_RV = (probs_RV.cumsum(dim=-1) - probs_RV) >= top_p_B[rows].unsqueeze(-1)
    sorted_RV = torch.log_softmax(sorted_RV.masked_fill(beyond_p_RV, -torch.inf), dim=-1)
    cut_RV = torch.empty_like(sorted_RV).scatter_(-1, order_RV, sorted_RV)
    log_probs_BV = log_probs_BV.clone()
    log_probs_BV[rows] = cut_RV
    return log_probs_BV


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    generator: torch.Generator,
    vocab_size: int | None = None,
    aborted: Callable[[], bool] = lambda: False,
) -> list[Generation]:
    """Sample one continuation for every prompt, all in one batch.

    Equal prompts share one prefill; prompts are padded on the left; a finished row leaves the batch.

    Args:
        model: causal language model of transformers, in eval mode.
        prompts: token ids, none empty.
        params: one per prompt.
        generator: random stream of the rows without a seed of their own.
        vocab_size: sample only ids below this (the tokenizer's size); None for the model's.
        aborted: asked before every step; True ends all running rows with stop_reason "aborted".

    Returns:
        One Generation per prompt, in order. stop_reason is "completed" (stop token), "length" or "aborted".

    Raises:
        ValueError: if a prompt is empty or the lengths differ.
    """
    if len(prompts) != len(params):
        raise ValueError(f"{len(prompts)} prompts but {len(params)} sampling parameters: give one per prompt")
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt has no token: give every prompt at least one")
    results = [Generation() for _ in prompts]
    if not prompts:
        return results

    cache, logits, mask, position = _prefill(model, prompts)
    vocab = min(vocab_size or logits.shape[-1], logits.shape[-1])
    batch = _Batch(params, vocab)
    running = torch.arange(len(prompts))  # index in `prompts` of every row of the batch
    step = 0
    while not aborted():
        tokens, chosen = batch.draw(logits[:, :vocab], running, generator)
        step += 1
        for index, token, log_prob in zip(running.tolist(), tokens.tolist(), chosen.tolist(), strict=True):
            results[index].token_ids.append(token)
            results[index].log_probs.append(log_prob)
        stopped = batch.stops[batch.stop_row[running], tokens]
        finished = stopped | (batch.limit[running] <= step)
        if bool(finished.any()):
            for index, at_stop in zip(running[finished].tolist(), stopped[finished].tolist(), strict=True):
                results[index].stop_reason = "completed" if at_stop else "length"
            keep = (~finished).nonzero().squeeze(-1)
            if keep.numel() == 0:
                break
            running, tokens, mask, position = running[keep], tokens[keep], mask[keep], position[keep]
            cache.batch_select_indices(keep)
        mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=-1)
        position = position + 1
        logits = model(
            input_ids=tokens.unsqueeze(-1),
            attention_mask=mask,
            position_ids=position.unsqueeze(-1),
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return results


def _prefill(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pass over the distinct prompts: cache, logits (B, V), attention mask (B, T), last position (B,)."""
    distinct = {tuple(prompt): index for index, prompt in reversed(list(enumerate(prompts)))}
    prompt_row = {prompt: row for row, prompt in enumerate(distinct)}
    width = max(len(prompt) for prompt in distinct)
    input_ids = torch.zeros(len(distinct), width, dtype=torch.long)
    mask = torch.zeros(len(distinct), width, dtype=torch.long)
    for prompt, row in prompt_row.items():
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    position_ids = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    inputs = {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids}
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    row_of = torch.tensor([prompt_row[tuple(prompt)] for prompt in prompts])
    output.past_key_values.batch_select_indices(row_of)
    return output.past_key_values, output.logits[:, -1][row_of], mask[row_of], position_ids[row_of, -1]


class _Batch:
    """The parameters of all rows as tensors of shape (B,), random streams, and the stop tokens of each set in use."""

    def __init__(self, params: Sequence[SamplingParams], vocab: int) -> None:
        self.temperature = torch.tensor([p.temperature for p in params])
        self.top_k = torch.tensor([p.top_k if 0 < p.top_k < vocab else vocab for p in params])
        self.top_p = torch.tensor([p.top_p for p in params])
        self.limit = torch.tensor([p.max_tokens for p in params])
        seeds = {row: int(p.seed) for row, p in enumerate(params) if p.seed is not None}
        self.streams = {row: torch.Generator().manual_seed(seed) for row, seed in seeds.items()}
        sets = sorted({p.stop_token_ids for p in params}, key=sorted)
        self.stop_row = torch.tensor([sets.index(p.stop_token_ids) for p in params])
        self.stops = torch.zeros(len(sets), vocab, dtype=torch.bool)
        for row, ids in enumerate(sets):
            self.stops[row, [i for i in ids if i < vocab]] = True

    def draw(
        self, logits_BV: torch.Tensor, running_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A token of every running row and its log-prob: (B,) int64, (B,) float32."""
        temperature = self.temperature[running_B]
        log_probs = processed_log_probs(logits_BV, temperature, self.top_k[running_B], self.top_p[running_B])
        drawn = draw_tokens(log_probs, _uniforms(running_B, self.streams, generator))
        tokens = torch.where(temperature > 0, drawn, log_probs.argmax(dim=-1))
        return tokens, log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def draw_tokens(log_probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """One token per row: the inverse of the cumulative distribution at a number in [0, 1).

    Args:
        log_probs_BV: (B, V), float64 for exact sums; -inf where a token cannot be drawn. Need not be normalised.
        uniform_B: (B,) float64.

    Returns:
        (B,) int64.
    """
    cumulative_BV = log_probs_BV.double().exp().cumsum(dim=-1)
    # The last sum is 1 up to rounding: scaling by it keeps the draw inside, and a token of probability 0 is never drawn
    # because `right` skips ties.
    target_B1 = (uniform_B * cumulative_BV[:, -1]).unsqueeze(-1)
    return torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1)


def _uniforms(
    running_B: torch.Tensor, own_streams: dict[int, torch.Generator], generator: torch.Generator
) -> torch.Tensor:
    """The next number of every running row's stream: (B,) float64."""
    uniform_B = torch.rand(len(running_B), generator=generator, dtype=torch.float64)
    if own_streams:
        for row, index in enumerate(running_B.tolist()):
            if index in own_streams:
                uniform_B[row] = torch.rand((), generator=own_streams[index], dtype=torch.float64)
    return uniform_B
