"""The fast simulation against plain autograd, its sampler against binary search, and the paper's three regimes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_simulation import plain_simulate

from verl_fgrpo.theory import simulation
from verl_fgrpo.theory.simulation import Trajectory, draw_actions, published_logits, simulate, simulate_batch

SMALL = {"logits": published_logits(600, 60), "num_correct": 60}
SERIES = ("q_pos", "m_ret", "entropy", "anchor", "success_rate")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shared_draws(group_size, seed):
    """The same uniform numbers as the fast simulation, turned into actions by cumulative sums of our own."""
    generator = simulation._generator(seed, group_size, "cpu")

    def draw(p):
        cdf = p.double().cumsum(0)
        uniforms = torch.rand(group_size, dtype=torch.float64, generator=generator)
        return torch.searchsorted(cdf / cdf[-1], uniforms, right=True)

    return draw


@pytest.mark.parametrize(
    ("group_size", "gamma", "rewards"),
    [
        (2, 0.0, (1.0, -1.0)),
        (16, 1.0, (1.0, -1.0)),
        (64, 0.5, (1.0, 0.0)),
        (300, 2.0, (0.7, -0.2)),
        (8192, 1.0, (1, -1)),
    ],
)
def test_equals_plain_autograd(group_size, gamma, rewards):
    options = {**SMALL, "reward_correct": rewards[0], "reward_wrong": rewards[1], "learning_rate": 0.03}
    fast = simulate(group_size, gamma, steps=60, seed=5, dtype=torch.float64, **options)
    q_pos, m_ret = plain_simulate(group_size, gamma, 60, shared_draws(group_size, 5), dtype=torch.float64, **options)
    assert abs(q_pos[-1] - q_pos[0]) > 1e-3  # something happened
    np.testing.assert_allclose(fast.q_pos, q_pos, atol=1e-9)
    np.testing.assert_allclose(fast.m_ret, m_ret, atol=1e-9)


def test_plain_gradient_equals_expected_formula():
    """optimizer="sgd": dz_i = eta * g / N * c_i * (R_i - mean R), replayed by hand for one step."""
    logits = np.array([1.0, 0.5, 0.0, 0.0])
    run = simulate(10, 1.0, steps=1, seed=3, logits=logits, num_correct=2, learning_rate=0.5, optimizer="sgd")
    p = np.exp(logits) / np.exp(logits).sum()
    actions = shared_draws(10, 3)(torch.tensor(p)).numpy()
    counts, success = np.bincount(actions, minlength=4), np.mean(actions < 2)
    assert run.success_rate[0] == success and 0 < success < 1
    mean = 2 * success - 1
    z = logits + 0.5 * (1 - success) / 10 * counts * (np.array([1, 1, -1, -1]) - mean)
    after = np.exp(z) / np.exp(z).sum()
    assert run.q_pos[1] == pytest.approx(after[:2].sum(), abs=1e-6)
    assert run.anchor[1] == pytest.approx(after[0], abs=1e-6)
    assert run.entropy[1] == pytest.approx(-(after * np.log(after)).sum(), abs=1e-5)
    assert run.m_ret[1] == pytest.approx(1 - np.maximum(0, p - after)[:2].sum() / p[:2].sum(), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 1.0, 8.0, 60.0]), num_actions=st.integers(2, 3000))
def test_table_lookup_equals_binary_search(seed, spread, num_actions):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(num_actions, generator=generator)
    cdf = torch.softmax(logits, 0).double().cumsum(0)
    cdf = cdf / cdf[-1]
    uniforms = torch.rand(simulation.LOOKUP_FROM_GROUP_SIZE, dtype=torch.float64, generator=generator)
    # the ends of [0, 1), slice borders and cumulative probabilities themselves
    border = torch.arange(64) * 2.0**-18
    uniforms[:64], uniforms[64] = border, 1.0 - 2.0**-53
    inner = cdf[cdf < 1][:200]
    uniforms[65 : 65 + len(inner)] = inner
    assert torch.equal(draw_actions(cdf, uniforms), torch.searchsorted(cdf, uniforms, right=True))


@pytest.mark.parametrize("group_size", [4096, 8192])  # below and at the lookup table
def test_samples_follow_the_policy(group_size):
    """Pearson's chi-square of pooled draws: within 5 standard deviations of its mean."""
    p = torch.softmax(torch.linspace(0, 3, 50), 0).double()
    cdf = p.cumsum(0)
    generator = torch.Generator().manual_seed(11)
    uniforms = [torch.rand(group_size, dtype=torch.float64, generator=generator) for _ in range(20)]
    counts = sum(torch.bincount(draw_actions(cdf / cdf[-1], u), minlength=50) for u in uniforms)
    expected = p * group_size * 20
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - 49) < 5 * np.sqrt(2 * 49)


@pytest.mark.parametrize("group_size", [32, 8192])
def test_a_run_does_not_depend_on_its_batch(group_size):
    runs = [(0.0, 0), (1.0, 0), (0.0, 7), (0.5, 7)]
    batch = simulate_batch(group_size, runs, steps=25, **SMALL)
    for trajectory, (gamma, seed) in zip(batch, runs, strict=True):
        alone = simulate(group_size, gamma, steps=25, seed=seed, **SMALL)
        assert (trajectory.focal_gamma, trajectory.seed) == (gamma, seed)
        for name in SERIES:
            np.testing.assert_array_equal(getattr(trajectory, name), getattr(alone, name))


def test_seed_and_shape():
    first, again = (simulate(16, 1.0, steps=12, seed=1, **SMALL) for _ in range(2))
    other = simulate(16, 1.0, steps=12, seed=2, **SMALL)
    assert isinstance(first, Trajectory)
    for name in SERIES:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert len(getattr(first, name)) == (12 if name == "success_rate" else 13)
    assert not np.array_equal(first.q_pos, other.q_pos)
    assert simulate(16, 1.0, steps=0, **SMALL).m_ret.tolist() == [1.0]


def test_published_start():
    start = simulate(2, 0.0, steps=0)
    # Q_pos = (e^5 + 9999 e^3) / (e^5 + 9999 e^3 + 118000)
    correct = np.exp(5) + 9999 * np.exp(3)
    assert start.q_pos[0] == pytest.approx(correct / (correct + 118_000), rel=1e-5)
    assert start.anchor[0] == pytest.approx(np.exp(5) / (correct + 118_000), rel=1e-5)
    assert start.anchor[0] == pytest.approx(4.7e-4, rel=0.02)


def test_three_regimes_in_miniature():
    """The paper's set-up shrunk 64 times (2000 actions, same masses): small and huge groups keep what N = 64 loses."""
    logits = published_logits(2000, 156)
    options = {"logits": logits, "num_correct": 156, "steps": 1000, "seed": 0}
    few, middle, middle_focal, many = (
        simulate(n, gamma, **options) for n, gamma in [(2, 0.0), (64, 0.0), (64, 1.0), (8192, 0.0)]
    )
    for run in (few, middle, middle_focal, many):
        assert run.q_pos[-1] > run.q_pos[0]
    assert middle.m_ret[-1] < 0.2 < 0.5 < few.m_ret[-1]
    assert many.m_ret[-1] > 0.95
    assert middle_focal.m_ret[-1] > middle.m_ret[-1] + 0.02


def test_without_the_ratio_huge_groups_forget_too():
    """Why the surrogate divides by the old probability: with it, N = 8192 keeps over 0.95 (see above)."""
    options = {"logits": published_logits(2000, 156), "num_correct": 156, "divide_by_old": False}
    _, m_ret = plain_simulate(8192, 0.0, 1000, shared_draws(8192, 0), **options)
    assert m_ret[-1] < 0.2


def test_plain_gradient_ascent_moves_nothing_at_the_published_step_size():
    run = simulate(64, 0.0, steps=1000, optimizer="sgd", logits=published_logits(2000, 156), num_correct=156)
    assert abs(run.q_pos[-1] - run.q_pos[0]) < 0.01


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"group_size": 1}, "group_size"),
        ({"focal_gamma": -1.0}, "focal_gamma"),
        ({"focal_gamma": float("nan")}, "focal_gamma"),
        ({"steps": -1}, "steps"),
        ({"seed": -1}, "seed"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"reward_wrong": 1.0}, "reward_correct"),
        ({"num_correct": 600}, "num_correct"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"logits": [0.0, float("inf")], "num_correct": 1}, "logits"),
    ],
)
def test_bad_input(changes, word):
    with pytest.raises(ValueError, match=word):
        simulate(**({"group_size": 4, "focal_gamma": 0.0, "steps": 1} | SMALL | changes))


@pytest.mark.parametrize("logit", [1e300, -501.0, float("nan"), float("inf")])
def test_a_logit_whose_exponential_is_no_float_is_refused(logit):
    with pytest.raises(ValueError, match="the anchor logit is"):
        published_logits(20, 4, anchor=logit)
    assert published_logits(20, 4, anchor=500.0)[0] == 500.0
