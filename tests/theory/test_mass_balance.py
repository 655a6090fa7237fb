"""Eq. 17, Prop. 3.2 and Lemma H.1 against autograd, finite differences, enumeration and Monte Carlo."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_fgrpo.theory.mass_balance import expected_sampled_mass, one_step_mass_balance


def random_case(seed, num_actions=12, group_size=6):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.5, num_actions)
    correct = rng.random(num_actions) < 0.5
    p = np.exp(logits) / np.exp(logits).sum()
    sampled = np.zeros(num_actions, dtype=bool)
    sampled[rng.choice(num_actions, group_size, p=p)] = True
    return logits, p, correct, sampled


def autograd_directions(logits, correct, sampled, group_size, eta, reward_correct, reward_wrong):
    """dz by autograd of the surrogate (1/N) sum_{sampled} R_i p_i; dQ = gradient of Q (autograd too) times dz."""
    z = torch.tensor(logits, requires_grad=True)
    reward = torch.tensor(np.where(correct, reward_correct, reward_wrong) * sampled)
    (gradient,) = torch.autograd.grad((reward * torch.softmax(z, 0)).sum() / group_size, z)
    dz = eta * gradient

    def directional(which):
        (slope,) = torch.autograd.grad(torch.softmax(z, 0)[torch.tensor(which)].sum(), z)
        return float(slope @ dz)

    return dz.numpy(), directional(correct), directional(correct & ~sampled)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    reward_correct=st.floats(0.1, 2.0),
    reward_wrong=st.floats(-2.0, 0.0),
    eta=st.sampled_from([1e-3, 1e-1]),
)
def test_every_formula_against_autograd(seed, reward_correct, reward_wrong, eta):
    logits, p, correct, sampled = random_case(seed)
    result = one_step_mass_balance(
        p, correct, sampled, group_size=6, learning_rate=eta, reward_correct=reward_correct, reward_wrong=reward_wrong
    )
    dz, dq_pos, dq_u_pos = autograd_directions(logits, correct, sampled, 6, eta, reward_correct, reward_wrong)
    np.testing.assert_allclose(result.logit_change, dz, rtol=1e-10, atol=1e-16)
    assert result.correct.total == pytest.approx(dq_pos, rel=1e-9, abs=1e-15)
    assert result.unsampled_correct.total == pytest.approx(dq_u_pos, rel=1e-9, abs=1e-15)
    assert result.q_pos + result.q_neg == pytest.approx(1.0)


def test_finite_step():
    logits, p, correct, sampled = random_case(3)
    correct[np.argmax(~sampled)] = True  # at least one unsampled correct action
    eta = 1e-4
    result = one_step_mass_balance(p, correct, sampled, group_size=6, learning_rate=eta)
    q = np.exp(logits + result.logit_change)
    q /= q.sum()
    assert result.correct.total != 0 and result.unsampled_correct.total != 0
    assert q[correct].sum() - p[correct].sum() == pytest.approx(result.correct.total, rel=1e-3)
    unsampled = correct & ~sampled
    assert q[unsampled].sum() - p[unsampled].sum() == pytest.approx(result.unsampled_correct.total, rel=1e-3)


def test_golden_three_actions():
    # p = (0.5, 0.25, 0.25): 0 correct and sampled, 1 correct, not sampled, 2 wrong, sampled. N = 2, eta = 1, R = +-1.
    # S = 0.5 - 0.25 = 0.25.  A2 = 0.25, B2 = 0.0625, Upos2 = 0.0625, Uneg2 = 0; Q_pos = 0.75, Q_neg = 0.25.
    result = one_step_mass_balance(
        [0.5, 0.25, 0.25], [True, True, False], [True, False, True], group_size=2, learning_rate=1.0
    )
    assert result.baseline == 0.25
    assert result.correct.sampled_correct == 0.5 * 0.75 * 0.25 * 0.25
    assert result.correct.sampled_wrong == 0.5 * 1.25 * 0.75 * 0.0625
    assert result.correct.unsampled_correct == -0.5 * 0.25 * 0.25 * 0.0625
    assert result.correct.unsampled_wrong == 0.0
    # dQ_u,pos = 0.5 * [-0.25 * 0.0625 - 0.25 * (0.75 * 0.25 - 1.25 * 0.0625 - 0.25 * 0.0625)]
    assert result.unsampled_correct.total == pytest.approx(0.5 * (-0.015625 - 0.25 * 0.09375), abs=1e-16)


def test_correct_mass_grows_while_the_unsampled_part_shrinks():
    """The paper's regime: an anchor is sampled, the rare correct actions are not, so they pay for its growth."""
    p = np.array([0.5] + [0.01] * 10 + [0.04] * 10)
    correct = np.arange(21) < 11
    sampled = np.isin(np.arange(21), [0, 11, 12])
    result = one_step_mass_balance(p, correct, sampled, group_size=8, learning_rate=1.0)
    assert result.baseline > 0
    assert result.correct.total > 0
    assert result.unsampled_correct.total < 0
    _, dq_pos, dq_u_pos = autograd_directions(np.log(p), correct, sampled, 8, 1.0, 1.0, -1.0)
    assert dq_pos > 0 > dq_u_pos


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_signs_of_the_terms(seed):
    """With S >= 0 and R = +-1, only unsampled correct mass can lower Q_pos, and only sampled wrong mass helps U."""
    _, p, correct, sampled = random_case(seed)
    result = one_step_mass_balance(p, correct, sampled, group_size=6, learning_rate=1.0)
    assert result.correct.sampled_correct >= 0 and result.correct.sampled_wrong >= 0
    sign = np.sign(result.baseline)
    assert sign * result.correct.unsampled_wrong >= 0 >= sign * result.correct.unsampled_correct
    assert sign * result.unsampled_correct.own_logits <= 0
    assert result.unsampled_correct.pull_of_sampled_correct <= 0 <= result.unsampled_correct.push_of_sampled_wrong


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"probabilities": [0.5, 0.6]}, "sum to 1"),
        ({"is_correct": [True]}, "one length"),
        ({"group_size": 1}, "group_size"),
        ({"reward_correct": -1.0}, "reward_correct"),
    ],
)
def test_bad_input(changes, word):
    call = {"probabilities": [0.5, 0.5], "is_correct": [True, False], "is_sampled": [True, True], "group_size": 2}
    with pytest.raises(ValueError, match=word):
        one_step_mass_balance(**(call | changes), learning_rate=1.0)


def test_lemma_h1_by_enumeration():
    pi = np.array([0.3, 0.15, 0.05])
    for k in range(5):
        expected = 0.0
        for drawn in product(range(3), repeat=k):
            expected += np.prod(pi[list(drawn)] / 0.5) * pi[sorted(set(drawn))].sum()
        assert expected_sampled_mass(pi, k) == pytest.approx(expected, abs=1e-14)


def test_lemma_h1_monte_carlo():
    rng = np.random.default_rng(5)
    pi = rng.dirichlet(np.full(40, 0.3)) * 0.7
    counts = rng.multinomial(12, pi / pi.sum(), size=40_000)
    shown = (counts > 0) @ pi
    error = shown.std() / np.sqrt(len(shown))
    assert abs(shown.mean() - float(expected_sampled_mass(pi, 12))) < 4.5 * error


@given(
    st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=20),
    st.floats(0.01, 1.0),
)
def test_lemma_h1_is_monotone_and_bounded(weights, mu):
    pi = np.array(weights) / sum(weights) * mu
    mass = expected_sampled_mass(pi, np.array([0, 1, 2, 8, 64, 10**6]))
    assert mass[0] == 0.0
    assert np.all(np.diff(mass) >= -1e-15)
    assert mass[-1] <= mu * (1 + 1e-12)


def test_one_solution_is_shown_at_once():
    np.testing.assert_array_equal(expected_sampled_mass([0.25], [0, 1, 5]), [0.0, 0.25, 0.25])
    with pytest.raises(ValueError, match="num_correct_rollouts"):
        expected_sampled_mass([0.25], [-1])
    with pytest.raises(ValueError, match="correct_probabilities"):
        expected_sampled_mass([0.7, 0.7], 1)
