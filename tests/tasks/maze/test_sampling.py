"""The sampler: seeds per problem, exact log-probabilities, the right distribution."""

import math

import numpy as np
import pytest
import torch

from verl_fgrpo.tasks.maze.dataset import read_parquet, response_limit
from verl_fgrpo.tasks.maze.mazes import generate, solve
from verl_fgrpo.tasks.maze.sampling import Answer, count_correct, sample_answers
from verl_fgrpo.tasks.maze.sft import load_model
from verl_fgrpo.tasks.maze.tokenizer import END_ID, encode


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder / "start_model")


@pytest.fixture(scope="module")
def heldout(folder):
    return read_parquet(folder / "val.parquet")


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
            prompt = encode(maze.text)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + tokens])).logits[0].double() / temperature
            log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(tokens)[:, None]).sum()
            assert answer.log_prob == pytest.approx(float(log_p), abs=1e-4)


def test_first_token_follows_the_models_distribution(model, heldout):
    """Chi-square over 4,000 first tokens at the 1e-6 level: sampling from anything else would show."""
    maze, n = heldout[0], 4000
    first = [encode(a.text)[0] if a.text else END_ID for a in next(sample_answers(model, [maze], n, 1, seed=4))]
    with torch.no_grad():
        p = model(torch.tensor([encode(maze.text)])).logits[0, -1].double().softmax(-1).numpy()
    counts, expected = np.bincount(first, minlength=10), n * p
    common = expected > 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    assert ((observed - wanted) ** 2 / np.maximum(wanted, 1)).sum() < 60  # chi-square, at most 10 degrees of freedom


def test_truncated_answers_are_unfinished_and_wrong(model, heldout):
    for group in sample_answers(model, heldout[:4], 16, 1, seed=0):
        assert all(a.finished == (a.text == "") for a in group)
    maze = generate(5, np.random.default_rng(0))
    target = " ".join(solve(maze))
    assert Answer(target, True, 0.0).is_correct(maze)
    assert not Answer(target, False, 0.0).is_correct(maze)


def test_count_correct_counts(model, heldout):
    limit = response_limit(heldout)
    counts = count_correct(model, heldout, 16, limit, seed=0, progress=False)
    again = [
        sum(a.is_correct(maze) for a in group)
        for maze, group in zip(heldout, sample_answers(model, heldout, 16, limit, 0), strict=True)
    ]
    assert counts.tolist() == again
    # The trained model beats guessing: a uniform draw over four actions and the end token is right with 5^-3 or less.
    assert counts.mean() / 16 > 3 * 5**-3


@pytest.mark.parametrize("bad", [{"n": 0}, {"max_tokens": 0}, {"temperature": 0.0}, {"temperature": math.nan}])
def test_bad_arguments_are_named(model, heldout, bad):
    with pytest.raises(ValueError, match="must be positive"):
        next(sample_answers(model, heldout, **{"n": 2, "max_tokens": 2, "seed": 0, **bad}))
