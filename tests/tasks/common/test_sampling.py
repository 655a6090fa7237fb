"""The sampler: seeds per problem, exact log-probabilities, the right distribution."""

import math

import numpy as np
import pytest
import torch

from verl_fgrpo.tasks.common import sampling
from verl_fgrpo.tasks.common.model import load_model
from verl_fgrpo.tasks.common.sampling import score_answers
from verl_fgrpo.tasks.maze.task import MAZE, read_problems

encode, END_ID = MAZE.tokenizer.encode, MAZE.tokenizer.end_id


def sample_answers(model, problems, *args, **kwargs):
    return sampling.sample_answers(model, MAZE.tokenizer, problems, *args, **kwargs)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder / "start_model")


@pytest.fixture(scope="module")
def heldout(folder):
    return read_problems(folder)


def texts(groups):
    return [[(a.text, a.finished) for a in group] for group in groups]


def test_answers_do_not_depend_on_the_other_problems_or_their_order(model, heldout):
    forward = texts(sample_answers(model, heldout[:4], 6, 10, seed=1))
    backward = texts(sample_answers(model, heldout[3::-1], 6, 10, seed=1))
    alone = texts(sample_answers(model, heldout[2:3], 6, 10, seed=1))
    assert forward == backward[::-1]
    assert forward[2] == alone[0]


def test_more_samples_keep_the_first_ones(model, heldout):
    few, many = (texts(sample_answers(model, heldout[:3], n, 10, seed=1)) for n in (4, 32))
    assert few == [group[:4] for group in many]


def test_seed_matters(model, heldout):
    first, second = (texts(sample_answers(model, heldout[:4], 8, 10, seed=seed)) for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_prob_is_the_models_own(model, heldout, temperature):
    """Sum over tokens of log softmax(logits / T), by one uncached pass a sample; rows end at different lengths."""
    for maze, group in zip(heldout, sample_answers(model, heldout[:3], 12, 8, 3, temperature), strict=False):
        assert len({len(a.text) for a in group}) > 1
        for answer in group:
            tokens = encode(answer.text) + [END_ID] * answer.finished
            prompt = encode(maze.prompt)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + tokens])).logits[0].double() / temperature
            log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(tokens)[:, None]).sum()
            assert answer.log_prob == pytest.approx(float(log_p), abs=1e-4)


def test_scoring_gives_back_the_log_prob_of_sampling(model, heldout):
    """Teacher forcing over padded rows of different lengths, against the sum kept while sampling."""
    pairs, expected = [], []
    for maze, group in zip(heldout[:6], sample_answers(model, heldout[:6], 8, 10, 5), strict=True):
        pairs += [(maze.prompt, a.text) for a in group if a.finished]
        expected += [a.log_prob for a in group if a.finished]
    assert len(pairs) > 10
    assert score_answers(model, MAZE.tokenizer, pairs, batch_size=7) == pytest.approx(expected, abs=1e-4)


def test_first_token_follows_the_models_distribution(model, heldout):
    """Chi-square over 4,000 first tokens at the 1e-6 level: sampling from anything else would show."""
    maze, n = heldout[0], 4000
    first = [encode(a.text)[0] if a.text else END_ID for a in next(sample_answers(model, [maze], n, 1, seed=4))]
    with torch.no_grad():
        p = model(torch.tensor([encode(maze.prompt)])).logits[0, -1].double().softmax(-1).numpy()
    counts, expected = np.bincount(first, minlength=10), n * p
    common = expected > 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    assert ((observed - wanted) ** 2 / np.maximum(wanted, 1)).sum() < 60  # chi-square, at most 10 degrees of freedom


def test_truncated_answers_are_unfinished_and_wrong(model, heldout):
    for group in sample_answers(model, heldout[:4], 16, 1, seed=0):
        assert all(a.finished == (a.text == "") for a in group)


@pytest.mark.parametrize("bad", [{"n": 0}, {"max_tokens": 0}, {"temperature": 0.0}, {"temperature": math.nan}])
def test_bad_arguments_are_named(model, heldout, bad):
    with pytest.raises(ValueError, match="must be positive"):
        next(sample_answers(model, heldout, **{"n": 2, "max_tokens": 2, "seed": 0, **bad}))
