"""Sampling: exact log-probs, batching equals single, truncation, stops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from verl_fgrpo.core.token_sampling import Generation, SamplingParams, generate, processed_log_probs

VOCAB = 27
STOP = frozenset({2})


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,  # far from uniform, so that a wrong position or mask shows
    )
    return Qwen2ForCausalLM(config).double().eval()


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_log_probs(model: Qwen2ForCausalLM, prompt: list[int], row: Generation, temperature: float) -> list[float]:
    """log_softmax(logits / temperature) of one unpadded forward without cache."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + row.token_ids])).logits[0]
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    return [log_probs[len(prompt) - 1 + t, token].item() for t, token in enumerate(row.token_ids)]


# The model runs in float64, where another order of sums (padding, cache, batch) moves a log-probability by some 1e-13.
# What rounds is the sampler's float32 log_softmax: 8 roundings (logit, scale, shift, exponential, sum, log, two
# differences) of numbers below 32, each off by at most 2**-24 of them.
TOLERANCE = 8 * 32 * 2**-24

PROMPTS = [[5, 6, 7], [9], [5, 6, 7], [3, 4, 5, 6, 7, 8, 9, 10], [9], [5, 6, 7]]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
def test_log_probs_are_those_of_a_plain_forward(model: Qwen2ForCausalLM, temperature: float) -> None:
    # Ragged prompts, some of them equal, rows that stop at different steps: everything that padding, the shared prefill
    # and leaving the batch could get wrong.
    params = [SamplingParams(max_tokens=4 + 3 * i, temperature=temperature, stop_token_ids=STOP) for i in range(6)]
    rows = generate(model, PROMPTS, params, stream())
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.log_probs == pytest.approx(plain_log_probs(model, prompt, row, temperature), abs=TOLERANCE)


def test_a_seeded_row_is_the_same_alone_and_in_a_batch(model: Qwen2ForCausalLM) -> None:
    params = [SamplingParams(max_tokens=12, seed=100 + i, stop_token_ids=STOP) for i in range(6)]
    together = generate(model, PROMPTS, params, stream(1))
    for i, prompt in enumerate(PROMPTS):
        (alone,) = generate(model, [prompt], [params[i]], stream(2))
        assert alone.token_ids == together[i].token_ids
        assert alone.log_probs == pytest.approx(together[i].log_probs, abs=TOLERANCE)
        assert alone.stop_reason == together[i].stop_reason


def test_greedy_is_argmax_of_a_plain_forward(model: Qwen2ForCausalLM) -> None:
    (row,) = generate(model, [[5, 6, 7]], [SamplingParams(max_tokens=6, temperature=0)], stream())
    tokens = [5, 6, 7]
    for token, log_prob in zip(row.token_ids, row.log_probs, strict=True):
        with torch.no_grad():
            expected = torch.log_softmax(model(torch.tensor([tokens])).logits[0, -1], dim=-1)
        assert token == int(expected.argmax())
        assert log_prob == pytest.approx(expected.max().item(), abs=TOLERANCE)
        tokens.append(token)


def test_stop_token_ends_a_row_and_is_part_of_it(model: Qwen2ForCausalLM) -> None:
    every_token = frozenset(range(VOCAB))
    stopped, full = generate(
        model,
        [[5], [5]],
        [SamplingParams(max_tokens=5, stop_token_ids=every_token), SamplingParams(max_tokens=5)],
        stream(),
    )
    assert (len(stopped.token_ids), stopped.stop_reason) == (1, "completed")
    assert (len(full.token_ids), full.stop_reason) == (5, "length")


def test_abort_returns_what_there_is(model: Qwen2ForCausalLM) -> None:
    calls = iter([False, False, True])
    (row,) = generate(model, [[5]], [SamplingParams(max_tokens=9)], stream(), aborted=lambda: next(calls))
    assert (len(row.token_ids), row.stop_reason) == (2, "aborted")


def test_ids_beyond_the_tokenizer_are_never_sampled(model: Qwen2ForCausalLM) -> None:
    rows = generate(model, [[5]] * 64, [SamplingParams(max_tokens=8)] * 64, stream(), vocab_size=4)
    assert {token for row in rows for token in row.token_ids} == {0, 1, 2, 3}
    with torch.no_grad():
        logits = model(torch.tensor([[5] + rows[0].token_ids])).logits[0, :, :4]
    expected = torch.log_softmax(logits, dim=-1)
    for t, token in enumerate(rows[0].token_ids):
        assert rows[0].log_probs[t] == pytest.approx(expected[t, token].item(), abs=TOLERANCE)


def test_sampled_frequencies_follow_the_log_probs(model: Qwen2ForCausalLM) -> None:
    n = 20_000
    rows = generate(model, [[5, 6]] * n, [SamplingParams(max_tokens=1)] * n, stream(3))
    counts = torch.bincount(torch.tensor([row.token_ids[0] for row in rows]), minlength=VOCAB)
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([[5, 6]])).logits[0, -1], dim=-1)
    # Five binomial standard deviations, plus one count for the rarest tokens.
    assert ((counts - n * p).abs() <= 5 * (n * p * (1 - p)).sqrt() + 1).all()


def test_top_k_and_top_p_by_hand() -> None:
    # p = (.5, .3, .2). top_k=2: (.5, .3)/.8. top_p=.6: .5 < .6 <= .8, so the first two again. top_p=.4: the first.
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(4, 1)
    got = processed_log_probs(
        logits,
        temperature_B=torch.ones(4),
        top_k_B=torch.tensor([2, 3, 3, 3]),
        top_p_B=torch.tensor([1.0, 0.6, 0.4, 1.0]),
    ).exp()
    expected = torch.tensor([[0.625, 0.375, 0.0], [0.625, 0.375, 0.0], [1.0, 0.0, 0.0], [0.5, 0.3, 0.2]])
    torch.testing.assert_close(got, expected)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    top_k=st.integers(1, 12),
    top_p=st.floats(0.05, 1.0),
    temperature=st.floats(0.2, 3.0),
)
def test_truncation_keeps_a_normalised_prefix(seed: int, top_k: int, top_p: float, temperature: float) -> None:
    logits = torch.randn(1, 12, generator=stream(seed))
    got = processed_log_probs(logits, torch.tensor([temperature]), torch.tensor([top_k]), torch.tensor([top_p])).exp()[
        0
    ]
    order = logits[0].argsort(descending=True)
    kept = got[order] > 0
    assert math.isclose(float(got.sum()), 1.0, abs_tol=1e-5)
    assert 1 <= int(kept.sum()) <= top_k
    assert kept.tolist() == sorted(kept.tolist(), reverse=True)  # the most likely tokens, without a gap


def test_request_parameters() -> None:
    params = SamplingParams.from_request(
        {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_tokens": 100, "repetition_penalty": 1.0, "logprobs": True},
        max_tokens=20,
        stop_token_ids=STOP,
    )
    assert params == SamplingParams(max_tokens=20, temperature=0.5, top_k=7, top_p=0.9, stop_token_ids=STOP)
    assert SamplingParams.from_request({}, 20, STOP, ignore_eos=True).stop_token_ids == frozenset()


@pytest.mark.parametrize(
    ("request_params", "message"),
    [
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 is not implemented"),
        ({"stop": ["x"]}, "stop=.* is not implemented"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": -2}, "top_k=-2"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_bad_requests_are_named(request_params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingParams.from_request(request_params, max_tokens=20, stop_token_ids=STOP)


def test_bad_prompts_are_named(model: Qwen2ForCausalLM) -> None:
    with pytest.raises(ValueError, match="no token"):
        generate(model, [[]], [SamplingParams(max_tokens=1)], stream())
    with pytest.raises(ValueError, match="1 prompts but 2"):
        generate(model, [[1]], [SamplingParams(max_tokens=1)] * 2, stream())
