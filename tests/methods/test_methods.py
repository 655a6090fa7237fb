"""Sibling methods: golden values by hand, parity with verl GRPO, identities on 0/1 rewards, edges, clear errors."""

from fractions import Fraction
from itertools import combinations
from math import comb, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage, get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from verl_fgrpo.core.groups import group_rank
from verl_fgrpo.methods.context import EstimatorContext, current_context, using_context
from verl_fgrpo.methods.ds_grpo import differential_smoothing
from verl_fgrpo.methods.estimators import METHODS
from verl_fgrpo.methods.maxrl import maxrl_advantages
from verl_fgrpo.methods.passk_training import passk_advantages, passk_advantages_of_group
from verl_fgrpo.methods.settings import MethodConfig
from verl_fgrpo.methods.success import Reported
from verl_fgrpo.methods.unlikeliness import unlikeliness_rewards
from verl_fgrpo.methods.w_reinforce import w_reinforce_advantages

SIBLINGS = [method.name for method in METHODS if "entropy" not in method.needs]  # fade: test_fade.py
NEEDS_LOG_PROBS = {method.name for method in METHODS if "log_probs" in method.needs}
EVERY = [prefix + name for name in SIBLINGS for prefix in ("", "f_")]


def algorithm(**values):
    base = {"norm_adv_by_std_in_grpo": True, "use_kl_in_reward": False, "gamma": 1.0, "focal_gamma": 0, "passk_k": 2}
    return OmegaConf.create(base | values)


def batch(seed, counts, num_tokens=6, mask_dtype=torch.int64, padding_rows=0):
    """Groups of (size, number correct) in shuffled order with ragged responses and log-probabilities."""
    rng = np.random.default_rng(seed)
    index = np.array([f"uid-{g}" for g, (n, _) in enumerate(counts) for _ in range(n)] + ["pad"] * padding_rows)
    score = np.array([float(i < x) for n, x in counts for i in range(n)] + [0.0] * padding_rows)
    rows = len(index)
    lengths = rng.integers(1, num_tokens + 1, rows)
    lengths[index == "pad"] = 0
    mask = np.arange(num_tokens) < lengths[:, None]
    rewards = np.zeros((rows, num_tokens), dtype=np.float32)
    rewards[np.arange(rows), np.maximum(lengths, 1) - 1] = score
    log_probs = -rng.exponential(0.5, (rows, num_tokens)).astype(np.float32)
    order = rng.permutation(rows)
    return {
        "token_level_rewards": torch.from_numpy(rewards[order]),
        "response_mask": torch.from_numpy(mask[order]).to(mask_dtype),
        "index": index.astype(object)[order],
    }, torch.from_numpy(log_probs[order])


def call(name, data, log_probs, config, **handed):
    with using_context(EstimatorContext(log_probs=log_probs, **handed)):
        return get_adv_estimator_fn(name)(**data, config=config)[0]


def per_rollout(advantages, data):
    """The one advantage of each row, which every response token holds."""
    values, mask = [], data["response_mask"].bool()
    for row, inside in zip(advantages, mask, strict=True):
        assert bool((row[~inside] == 0).all()) and bool((row[inside] == row[inside][:1]).all())
        values.append(row[inside][0].item() if inside.any() else 0.0)
    return np.array(values)


def one_group(scores, log_probs):
    """A group of one-token responses."""
    data = {
        "token_level_rewards": torch.tensor(scores).unsqueeze(-1),
        "response_mask": torch.ones(len(scores), 1),
        "index": np.array(["a"] * len(scores), dtype=object),
    }
    return data, torch.tensor(log_probs).unsqueeze(-1)


# golden values


def test_unlikeliness_golden():
    # log-probs -0.1 -0.5 -0.9 -0.3: the likeliest is the first, so ranks 3 1 0 2
    # rewards 1 1 1 0 become 1 - 0.25 * 3/4 = 0.8125, 1 - 0.25 * 1/4 = 0.9375, 1, and 0 for the wrong one
    data, log_probs = one_group([1.0, 1.0, 1.0, 0.0], [-0.1, -0.5, -0.9, -0.3])
    rewards = unlikeliness_rewards(
        data["token_level_rewards"][:, 0],
        torch.tensor([1, 1, 1, 0]).bool(),
        log_probs[:, 0],
        torch.zeros(4).long(),
        0.25,
    )
    assert rewards.tolist() == [0.8125, 0.9375, 1.0, 0.0]
    # GRPO: mean 2.75 / 4 = 0.6875, squared deviations 1/64 + 1/16 + 25/256 + 121/256, divided by 3 (Bessel)
    std = sqrt((1 / 64 + 1 / 16 + 25 / 256 + 121 / 256) / 3)
    expected = np.array([0.125, 0.25, 0.3125, -0.6875]) / std
    advantages = call("unlikeliness", data, log_probs, algorithm())
    np.testing.assert_allclose(per_rollout(advantages, data), expected, rtol=5e-6)


def test_unlikeliness_ranks_by_the_mean_per_token_not_by_the_sum():
    # sums -3 and -2, means over 6 and 2 tokens -0.5 and -1: the long one is the likelier, rank 1, and pays 0.25 * 1/2
    mask = (torch.arange(6) < torch.tensor([[6], [2], [6]])).long()
    log_probs = torch.tensor([[-0.5] * 6, [-1.0] * 6, [-3.0] * 6])
    data = {
        "token_level_rewards": torch.tensor([[0, 0, 0, 0, 0, 1.0], [0, 1.0, 0, 0, 0, 0], [0.0] * 6]),
        "response_mask": mask,
        "index": np.array(["a"] * 3, dtype=object),
    }
    # ranks: wrong -3 is 0, short -1 is 1, long -0.5 is 2; rewards 1 - 0.25 * 2/3 and 1 - 0.25 * 1/3 and 0
    rewards = np.array([1 - 0.5 / 3, 1 - 0.25 / 3, 0.0])
    expected = (rewards - rewards.mean()) / rewards.std(ddof=1)
    advantages = call("unlikeliness", data, log_probs, algorithm())
    np.testing.assert_allclose(per_rollout(advantages, data), expected, rtol=1e-5)


def test_ds_grpo_golden():
    # two of four correct: GRPO's advantages are +-0.5 / sqrt(1/3)
    # correct: - 0.1 * -2 = +0.2 and - 0.1 * -5 = +0.5; wrong: + 0.01 * -1 = -0.01 and + 0.01 * -4 = -0.04
    a = 0.5 / sqrt(1 / 3)
    data, log_probs = one_group([1.0, 1.0, 0.0, 0.0], [-2.0, -5.0, -1.0, -4.0])
    advantages = call("ds_grpo", data, log_probs, algorithm(ds_gp=0.1, ds_gn=0.01))
    np.testing.assert_allclose(per_rollout(advantages, data), [a + 0.2, a + 0.5, -a - 0.01, -a - 0.04], rtol=5e-6)


@pytest.mark.parametrize(("per_token", "shift"), [(False, 0.1 * 0.5 * 4), (True, 0.1 * 0.5)])
def test_ds_grpo_takes_the_whole_response_or_its_mean(per_token, shift):
    # response tokens of -0.5 nats each, the correct one with 4 of them; tokens outside the mask do not count
    data = {
        "token_level_rewards": torch.tensor([[0, 0, 0, 1.0, 0], [0.0] * 5]),
        "response_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]),
        "index": np.array(["a", "a"], dtype=object),
    }
    log_probs = torch.full((2, 5), -0.5).masked_fill(~data["response_mask"].bool(), float("nan"))
    a = 0.5 / sqrt(0.5)
    config = algorithm(ds_gp=0.1, ds_gn=0.2, ds_length_normalized=per_token)
    advantages = call("ds_grpo", data, log_probs, config)
    np.testing.assert_allclose(per_rollout(advantages, data), [a + shift, -a - 0.2 * 0.5], rtol=5e-6)


def test_maxrl_golden():
    # one of four correct: mean 1/4, so (1 - 1/4) / (1/4) = 3 and (0 - 1/4) / (1/4) = -1
    data, log_probs = one_group([0.0, 1.0, 0.0, 0.0], [-1.0] * 4)
    advantages = call("maxrl", data, None, algorithm())
    np.testing.assert_allclose(per_rollout(advantages, data), [-1, 3, -1, -1], rtol=5e-6)


@pytest.mark.parametrize(("weight", "expected"), [(None, 0.1), (0.0, 0.0), (1.0, 1.0)])
def test_w_reinforce_golden(weight, expected):
    data, _ = one_group([1.0, 0.0, 1.0, 0.0], [-1.0] * 4)
    config = algorithm() if weight is None else algorithm(w_reinforce_lambda=weight)
    advantages = call("w_reinforce", data, None, config)
    np.testing.assert_allclose(per_rollout(advantages, data), [expected, -1, expected, -1], rtol=1e-6)


def test_passk_training_golden():
    # N = 4, X = 1, k = 2: rho = 1 - C(3,2)/C(4,2) = 1/2, sigma = 1/2
    # A+ = (1/2) / (1/2) = 1;  A- = (1/2 - C(2,1)/C(3,1)) / (1/2) = (1/2 - 2/3) / (1/2) = -1/3
    data, _ = one_group([0.0, 1.0, 0.0, 0.0], [-1.0] * 4)
    advantages = call("passk_training", data, None, algorithm(passk_k=2))
    np.testing.assert_allclose(per_rollout(advantages, data), [-1 / 3, 1, -1 / 3, -1 / 3], rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_passk_training_is_the_mean_over_all_subsets(n):
    for k in range(1, n + 1):
        for x in range(n + 1):
            subsets = list(combinations(range(n), k))
            reward = np.array([float(any(i < x for i in subset)) for subset in subsets])
            sigma = reward.std()
            expected = []
            for rollout in (0, n - 1):  # correct ones come first
                own = [
                    (r - reward.mean()) / sigma for r, s in zip(reward, subsets, strict=True) if rollout in s and sigma
                ]
                expected.append(np.mean(own) if own else 0.0)
            positive, negative = passk_advantages_of_group(n, x, k)
            if x > 0:
                assert positive == pytest.approx(expected[0], rel=1e-12, abs=1e-13)
            if x < n:
                assert negative == pytest.approx(expected[1], rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(
    ("n", "x", "k"), [(1024, 700, 256), (4096, 1, 4096 - 1), (100_000, 3, 1000), (100_000, 40_000, 2)]
)
def test_passk_training_is_exact_for_large_groups(n, x, k):
    failing = Fraction(1)
    for i in range(k):
        failing *= Fraction(n - x - i, n - i)
    positive, negative = passk_advantages_of_group(n, x, k)
    assert positive == pytest.approx(sqrt(failing / (1 - failing)), rel=1e-14)
    conditional = failing * Fraction(n, n - x)  # C(N-X-1, k-1) / C(N-1, k-1)
    assert negative == pytest.approx(float(failing - conditional) / sqrt(failing * (1 - failing)), rel=1e-14)


# parity: a parameter that switches the method off


@pytest.mark.parametrize("prefix", ["", "f_"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("mask_dtype", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize(
    ("name", "off"), [("unlikeliness", {"unlikeliness_beta": 0}), ("ds_grpo", {"ds_gp": 0, "ds_gn": 0})]
)
def test_switched_off_is_verls_grpo_bit_for_bit(prefix, norm, mask_dtype, name, off):
    for seed in range(5):
        data, log_probs = batch(
            seed, [(8, 3), (5, 5), (4, 0), (3, 1), (1, 1), (1, 0)], mask_dtype=mask_dtype, padding_rows=2
        )
        config = algorithm(norm_adv_by_std_in_grpo=norm, **off)
        theirs, _ = compute_grpo_outcome_advantage(**data, norm_adv_by_std_in_grpo=norm)
        ours = call(prefix + name, data, log_probs, config)
        assert ours.dtype == theirs.dtype and ours.numpy().tobytes() == theirs.numpy().tobytes()


@pytest.mark.parametrize("name", SIBLINGS)
def test_gamma_zero_is_the_plain_sibling_bit_for_bit(name):
    for seed in range(5):
        data, log_probs = batch(seed, [(8, 3), (5, 5), (4, 0), (3, 1)], padding_rows=2)
        plain, focal = (call(prefix + name, data, log_probs, algorithm()) for prefix in ("", "f_"))
        assert plain.dtype == data["token_level_rewards"].dtype
        assert plain.numpy().tobytes() == focal.numpy().tobytes()


@pytest.mark.parametrize("name", SIBLINGS)
def test_the_f_form_is_the_sibling_times_the_focal_weight(name):
    data, log_probs = batch(1, [(8, 3), (8, 6), (5, 5), (4, 0)])
    plain, focal = (call(p + name, data, log_probs, algorithm(focal_gamma=0.7)) for p in ("", "f_"))
    mu = {"uid-0": 3 / 8, "uid-1": 6 / 8, "uid-2": 1.0, "uid-3": 0.0}
    weight = np.array([(1 - mu[uid]) ** 0.7 for uid in data["index"]])
    assert bool((plain != 0).any())
    np.testing.assert_allclose(focal.numpy(), plain.numpy() * weight[:, None], rtol=1e-6)


# identities on 0/1 rewards; in float64 and without the epsilons, which are 1e-6 of a std or mean

# advantage = GRPO * constant(N) * mu^a (1 - mu)^b; verl's std has Bessel's correction, hence the constants
BESSEL = {"f_grpo": 0.0, "maxrl": 0.5, "dr_grpo": 0.5, "rloo": 1.5}  # power of N / (N - 1)
EXPONENTS = {"f_grpo": (0.0, 0.7), "maxrl": (-0.5, 0.5), "dr_grpo": (0.5, 0.5), "rloo": (0.5, 0.5)}


def grpo64(scores, norm=True):
    return compute_grpo_outcome_advantage(
        scores.unsqueeze(-1), torch.ones(len(scores), 1), ["a"] * len(scores), epsilon=0.0, norm_adv_by_std_in_grpo=norm
    )[0].squeeze(-1)


@pytest.mark.parametrize("name", EXPONENTS)
def test_siblings_that_are_grpo_times_powers_of_the_success_rate(name):
    for n in (2, 3, 8, 32):
        for x in range(1, n):
            scores = (torch.arange(n) < x).double()
            mu, codes = x / n, torch.zeros(n, dtype=torch.int64)
            one_token = (scores.unsqueeze(-1), torch.ones(n, 1), np.array(["a"] * n))
            if name == "maxrl":
                method = maxrl_advantages(scores, codes, epsilon=0.0)
            elif name == "dr_grpo":
                method = grpo64(scores, norm=False)
            elif name == "rloo":
                method = get_adv_estimator_fn("rloo")(*one_token)[0].squeeze(-1)
            else:
                config = algorithm(focal_gamma=0.7)
                method = get_adv_estimator_fn("f_grpo")(*one_token, config=config, epsilon=0.0)[0].squeeze(-1)
            a, b = EXPONENTS[name]
            constant = (n / (n - 1)) ** BESSEL[name]
            torch.testing.assert_close(method, grpo64(scores) * constant * mu**a * (1 - mu) ** b, rtol=1e-6, atol=0)


def test_maxrl_as_registered_obeys_the_identity_up_to_the_epsilons():
    data, _ = batch(0, [(8, 3), (8, 7), (4, 1)])
    grpo, _ = compute_grpo_outcome_advantage(**data)
    factor = {"uid-0": sqrt(5 / 3) * sqrt(8 / 7), "uid-1": sqrt(1 / 7) * sqrt(8 / 7), "uid-2": sqrt(3) * sqrt(4 / 3)}
    expected = grpo.numpy() * np.array([factor[uid] for uid in data["index"]])[:, None]
    np.testing.assert_allclose(call("maxrl", data, None, algorithm()).numpy(), expected, rtol=1e-5)


def test_centred_w_reinforce_is_grpo_without_std():
    # A - mean A = (1 + lambda) * (R - mean R): in expectation, where a constant cancels, it is plain policy gradient
    scores = (torch.arange(8) < 3).double()
    advantages = w_reinforce_advantages(scores.bool(), 0.1).double()
    torch.testing.assert_close(advantages - advantages.mean(), 1.1 * grpo64(scores, norm=False), rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [2, 3, 8, 32])
def test_pass_at_1_training_is_grpo_up_to_bessel(n):
    for x in range(n + 1):
        scores = (torch.arange(n) < x).double()
        ours = passk_advantages(scores.bool(), torch.zeros(n, dtype=torch.int64), k=1)
        theirs = grpo64(scores).nan_to_num() * sqrt(n / (n - 1))  # without epsilon a constant group is 0 / 0
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("k", [2, 4, 8])
def test_passk_training_is_grpo_times_a_function_of_the_success_rate(k):
    # A+ / A- = -(N - X) / X, GRPO's; in the limit of large N the factor is sqrt(mu (1-mu)^(k-1) / (1 - (1-mu)^k))
    n = 20_000
    for mu in (0.01, 0.25, 0.5, 0.9):
        x = int(mu * n)
        positive, negative = passk_advantages_of_group(n, x, k)
        assert negative / positive == pytest.approx(-x / (n - x), rel=1e-12)
        factor = sqrt(mu * (1 - mu) ** (k - 1) / (1 - (1 - mu) ** k))
        assert positive == pytest.approx(factor * sqrt((1 - mu) / mu), rel=1e-2)
        assert factor <= (1 - mu) ** ((k - 1) / 2)  # never above F-GRPO's weight at gamma (k - 1) / 2
    assert sqrt(n) * passk_advantages_of_group(n, 1, k)[0] == pytest.approx(n / sqrt(k), rel=1e-2)  # rare successes


def test_mean_advantage_of_a_group_is_zero_for_the_group_relative_methods():
    data, log_probs = batch(4, [(8, 3), (8, 6), (4, 1)])
    for name in ("unlikeliness", "maxrl", "passk_training"):
        values = per_rollout(call(name, data, log_probs, algorithm()), data)
        for uid in set(data["index"]):
            assert abs(values[data["index"] == uid].sum()) < 1e-5


# edges


def test_ties_share_the_mean_rank():
    values = torch.tensor([-1.0, -2.0, -1.0, -2.0, -2.0, -0.5, -0.5])
    codes = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    assert group_rank(values, codes).tolist() == [3.5, 1.0, 3.5, 1.0, 1.0, 0.5, 0.5]


def test_equal_responses_get_equal_advantages_from_unlikeliness():
    data, log_probs = one_group([1.0, 1.0, 1.0, 0.0], [-0.2, -0.2, -0.7, -0.2])
    values = per_rollout(call("unlikeliness", data, log_probs, algorithm()), data)
    assert values[0] == values[1] < values[2]


def test_unlikeliness_leaves_wrong_rollouts_alone_at_rewards_of_minus_one():
    scores, correct = torch.tensor([1.0, -1.0, -1.0, 1.0]), torch.tensor([1, 0, 0, 1]).bool()
    rewards = unlikeliness_rewards(scores, correct, torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.zeros(4).long(), 0.25)
    assert rewards.tolist() == [1 - 0.25 * 3 / 4, -1.0, -1.0, 1.0]


# expected advantage of every rollout; "host" is what verl's GRPO says
@pytest.mark.parametrize(
    ("name", "all_correct", "all_wrong", "one_correct", "one_wrong"),
    [
        ("unlikeliness", 0.0, 0.0, "host", "host"),
        ("maxrl", 0.0, 0.0, 0.0, 0.0),
        ("w_reinforce", 0.1, -1.0, 0.1, -1.0),
        ("passk_training", 0.0, 0.0, 0.0, 0.0),
        ("ds_grpo", 0.2, -0.2, "host + 0.2", "host - 0.2"),  # shifts of 0.1 * 2 nats
    ],
)
def test_constant_groups_and_groups_of_one(name, all_correct, all_wrong, one_correct, one_wrong):
    data, _ = batch(0, [(4, 4), (4, 0), (1, 1), (1, 0), (4, 2)])
    log_probs = -2.0 * data["response_mask"] / data["response_mask"].sum(-1, keepdim=True)
    values = per_rollout(call(name, data, log_probs, algorithm(ds_gp=0.1, ds_gn=0.1)), data)
    host = per_rollout(compute_grpo_outcome_advantage(**data)[0], data)
    for group, expected in enumerate((all_correct, all_wrong, one_correct, one_wrong)):
        rows = data["index"] == f"uid-{group}"
        if isinstance(expected, str):
            expected = host[rows] + float(expected.removeprefix("host").replace(" ", "") or 0)
        np.testing.assert_allclose(values[rows], expected, rtol=1e-6, atol=1e-6)
    assert bool((values[data["index"] == "uid-4"] != 0).all())


def test_a_group_that_lost_rollouts_is_inactive_in_passk_training():
    data, _ = batch(0, [(4, 1), (3, 1)])
    values = per_rollout(call("passk_training", data, None, algorithm(passk_k=4)), data)
    assert bool((values[data["index"] == "uid-1"] == 0).all())
    data, _ = batch(0, [(4, 1), (3, 1)])
    with pytest.raises(ValueError, match=r"passk_k is 5, but a group has 4 rollouts.*\+algorithm\.passk_k to 1 \.\.\."):
        call("passk_training", data, None, algorithm(passk_k=5))


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_response_counts_in_its_group_and_gets_no_advantage(name):
    data, log_probs = batch(3, [(4, 2), (4, 3)])
    wrong = int((data["token_level_rewards"].sum(-1) == 0).nonzero()[0])
    before = per_rollout(call(name, data, log_probs, algorithm(ds_gp=0, ds_gn=0)), data)
    data["response_mask"][wrong] = 0
    advantages = call(name, data, log_probs, algorithm(ds_gp=0, ds_gn=0))
    assert bool(torch.isfinite(advantages).all()) and bool((advantages[wrong] == 0).all())
    if not name.endswith("unlikeliness"):  # there it is now the likeliest, with log-probability 0, and shifts ranks
        after = per_rollout(advantages, data)
        assert before[wrong] != 0
        np.testing.assert_array_equal(np.delete(after, wrong), np.delete(before, wrong))


def test_a_response_without_tokens_has_no_rank():
    # rejected as a whole: of the other three the likelihoods are -0.1, -0.3, -0.4, so ranks 2 1 0 of 3
    data, log_probs = one_group([1.0, 0.0, 1.0, 0.0], [-0.1, -0.2, -0.3, -0.4])
    data["response_mask"][1] = 0
    rewards = np.array([1 - 0.25 * 2 / 3, 0, 1 - 0.25 * 1 / 3, 0])
    expected = (rewards - rewards.mean()) / rewards.std(ddof=1)
    expected[1] = 0
    advantages = call("unlikeliness", data, log_probs, algorithm())
    np.testing.assert_allclose(advantages[:, 0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_long_responses_stay_finite(name):
    data, log_probs = batch(3, [(8, 2), (8, 7)], num_tokens=20_000)
    assert bool(torch.isfinite(call(name, data, log_probs * 20, algorithm(focal_gamma=1.0))).all())


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=4),
    padding_rows=st.integers(0, 3),
    gamma=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_row_order_and_padding_do_not_matter(name, seed, counts, padding_rows, gamma):
    data, log_probs = batch(seed, [(4, 2), *counts], padding_rows=padding_rows)
    config = algorithm(focal_gamma=gamma)
    straight = call(name, data, log_probs, config)
    assert bool(torch.isfinite(straight).all())
    order = np.random.default_rng(seed + 1).permutation(len(data["index"]))
    order = order[data["index"][order] != "pad"]
    shuffled = call(name, {key: value[order] for key, value in data.items()}, log_probs[order], config)
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-5, atol=1e-6)
    assert bool((straight[torch.from_numpy(data["index"] == "pad")] == 0).all())


# the way of the data


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("with_log_probs", [True, False])
def test_through_verls_own_compute_advantage(name, with_log_probs):
    tensors, log_probs = batch(2, [(6, 2), (6, 5), (4, 1)])
    config = algorithm(adv_estimator=name, focal_gamma=0.5)
    data = DataProto.from_dict(
        tensors={key: tensors[key] for key in ("token_level_rewards", "response_mask")},
        non_tensors={"uid": tensors["index"]},
    )
    if not with_log_probs and name.removeprefix("f_") in NEEDS_LOG_PROBS:
        with pytest.raises(ValueError, match=r"needs the log-probabilities.*compute_advantage with old_log_probs"):
            compute_advantage(data, adv_estimator=name, config=config)
        return
    with using_context(EstimatorContext(log_probs=log_probs if with_log_probs else None)):
        result = compute_advantage(data, adv_estimator=name, config=config)
    advantages = result.batch["advantages"]
    assert torch.equal(advantages, call(name, tensors, log_probs, config))
    assert bool((advantages != 0).any()) and result.batch["returns"] is advantages
    assert current_context() is None


@pytest.mark.parametrize("name", EVERY)
def test_a_session_with_two_outputs_counts_once(name):
    data, log_probs = batch(5, [(4, 2), (4, 3), (4, 1)])
    config = algorithm(focal_gamma=0.5)
    whole = call(name, data, log_probs, config)
    # every other rollout gets an output before the last one: other tokens, no reward
    early, _ = batch(6, [(4, 0), (4, 0), (4, 0)])
    rows = np.concatenate([np.arange(12), np.arange(0, 12, 2)])
    final = torch.tensor([True] * 12 + [False] * 6)
    several = {
        "token_level_rewards": torch.cat([data["token_level_rewards"], torch.zeros(6, 6)]),
        "response_mask": torch.cat([data["response_mask"], early["response_mask"][:6]]),
        "index": data["index"][rows],
    }
    order = np.random.default_rng(0).permutation(18)
    ours = call(
        name,
        {key: value[order] for key, value in several.items()},
        torch.cat([log_probs, torch.full((6, 6), -9.0)])[order],
        config,
        sessions=[f"session-{row}" for row in rows[order]],
        final=final[order],
    )
    expected = per_rollout(whole, data)[rows, None] * several["response_mask"].numpy()
    np.testing.assert_allclose(ours.numpy(), expected[order], rtol=1e-6, atol=1e-7)


def test_the_reward_before_kl_tells_success_with_kl_in_the_reward():
    data, _ = one_group([0.4, 0.3, -0.2, -0.1], [-1.0] * 4)
    config = algorithm(use_kl_in_reward=True)
    with pytest.raises(ValueError, match="use_kl_in_reward is True"):
        call("passk_training", data, None, config)
    raw = torch.tensor([1.0, 1.0, 0.0, 0.0])
    values = per_rollout(call("passk_training", data, None, config, raw_scores=raw), data)
    # N = 4, X = 2, k = 2: one of six pairs fails, so A+ = sqrt((1/6) / (5/6)) and A- = -A+ * 2/2
    np.testing.assert_allclose(values, np.array([1, 1, -1, -1]) * sqrt(1 / 5), rtol=1e-6)


@pytest.mark.parametrize("name", ["w_reinforce", "passk_training"])
def test_the_reward_functions_own_accuracy_beats_the_threshold(name):
    data, _ = one_group([0.4, 0.9, 0.1, 0.2], [-1.0] * 4)  # shaped rewards: the first and second are correct
    acc = Reported(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.full((4,), torch.nan))
    values = per_rollout(call(name, data, None, algorithm(), reported=acc), data)
    assert values[0] == values[1] > 0 > values[2] == values[3]


# errors


@pytest.mark.parametrize("rewards", [[1.0, -1.0, 1.0, -1.0], [0.5, 0.0, 1.0, 0.0]])
def test_passk_training_refuses_rewards_other_than_zero_and_one(rewards):
    data, _ = one_group(rewards, [-1.0] * 4)
    with pytest.raises(ValueError, match=r"passk_training got a reward of (-1\.0|0\.5).*rewards must be 0 or 1; let"):
        call("passk_training", data, None, algorithm(focal_success_threshold=0.0))


def test_maxrl_refuses_negative_rewards():
    data, _ = one_group([1.0, -1.0, 1.0, -1.0], [-1.0] * 4)
    with pytest.raises(ValueError, match=r"maxrl got a reward of -1\.0.*at least 0; use 0/1 rewards"):
        call("maxrl", data, None, algorithm())


@pytest.mark.parametrize("name", ["unlikeliness", "ds_grpo"])
def test_log_probs_must_fit_and_be_finite(name):
    data, log_probs = batch(0, [(4, 2)])
    with pytest.raises(ValueError, match=r"shape \(4, 5\) for a response mask of shape \(4, 6\)"):
        call(name, data, log_probs[:, :5], algorithm())
    log_probs[2, 0] = float("-inf")
    with pytest.raises(ValueError, match=rf"log-probabilities of rollout 2 are not all finite, but {name}"):
        call(name, data, log_probs, algorithm())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unlikeliness_beta": 1.5}, r"unlikeliness_beta is 1\.5.*from 0 to 1.*\+algorithm\.unlikeliness_beta=0\.25"),
        ({"unlikeliness_beta": "much"}, r"unlikeliness_beta is 'much'"),
        ({"ds_gp": -1}, r"ds_gp is -1.*at least 0.*\+algorithm\.ds_gp=0\.001"),
        ({"ds_gn": float("inf")}, r"ds_gn is inf"),
        ({"ds_length_normalized": "yes"}, r"ds_length_normalized is 'yes'.*True or False"),
        ({"w_reinforce_lambda": float("nan")}, r"w_reinforce_lambda is nan.*=0\.1"),
        ({"passk_k": 0}, r"passk_k is 0.*whole number from 1"),
        ({"passk_k": 2.5}, r"passk_k is 2\.5"),
        ({"focal_success_threshold": float("nan")}, r"focal_success_threshold is nan"),
    ],
)
def test_bad_settings_give_value_rule_and_remedy(values, message):
    data, log_probs = batch(0, [(4, 2)])
    for name in SIBLINGS:
        with pytest.raises(ValueError, match=message):
            call(name, data, log_probs, algorithm(**values))


@pytest.mark.parametrize("name", SIBLINGS)
def test_batches_without_groups_or_with_broken_rewards_are_errors(name):
    data, log_probs = batch(0, [(4, 2)])
    with pytest.raises(ValueError, match=rf"{name} got no index \(uid\)"):
        call(name, data | {"index": None}, log_probs, algorithm())
    with pytest.raises(ValueError, match="4 rollouts but 3 group labels"):
        call(name, data | {"index": data["index"][:3]}, log_probs, algorithm())
    data["token_level_rewards"][1, 0] = float("nan")
    with pytest.raises(ValueError, match="rollout 1 of uid 'uid-0' sums to nan"):
        call(name, data, log_probs, algorithm())
    data, log_probs = batch(0, [(1, 1), (1, 0)])
    if name == "w_reinforce":
        np.testing.assert_allclose(sorted(per_rollout(call(name, data, None, algorithm()), data)), [-1, 0.1])
    else:
        with pytest.raises(ValueError, match=rf"every one of the 2 groups.*but {name} compares"):
            call(name, data, log_probs, algorithm())


def test_defaults_are_the_papers_where_there_is_one():
    assert MethodConfig.from_algorithm({}) == MethodConfig(
        unlikeliness_beta=0.25, ds_gp=0.001, ds_gn=0.001, ds_length_normalized=False, w_reinforce_lambda=0.1, passk_k=4
    )


# registration and presets


def test_every_sibling_is_registered_under_both_names():
    assert set(EVERY) <= set(ADV_ESTIMATOR_REGISTRY)


@pytest.mark.parametrize("name", SIBLINGS)
def test_presets_set_the_method_alone_and_gamma_combines_it(name):
    from hydra import compose, initialize_config_module

    def resolved(*overrides):
        with initialize_config_module("verl.trainer.config", version_base=None):
            return OmegaConf.to_container(compose("ppo_trainer", overrides=list(overrides)), resolve=True)

    grpo, config = resolved("+focal=grpo"), resolved(f"+focal={name}")
    assert config["algorithm"]["adv_estimator"] == f"f_{name}" and config["algorithm"]["focal_gamma"] == 0
    MethodConfig.from_algorithm(config["algorithm"])
    assert config["trainer"]["v1"]["trainer_mode"] == "sync"
    actor, of_grpo = config["actor_rollout_ref"]["actor"], grpo["actor_rollout_ref"]["actor"]
    if name == "unlikeliness":  # arXiv 2506.02355 Table 1
        assert (actor["ppo_epochs"], actor["use_kl_loss"], actor["kl_loss_coef"]) == (2, True, 0.1)
    else:
        assert actor == of_grpo
    assert resolved(f"+focal={name}", "algorithm.focal_gamma=1.0")["algorithm"]["focal_gamma"] == 1.0


def test_differential_smoothing_alone():
    shifted = differential_smoothing(
        torch.zeros(2), torch.tensor([True, False]), torch.tensor([-3.0, -3.0]).double(), 1, 2
    )
    assert shifted.tolist() == [3.0, -6.0] and shifted.dtype == torch.float32


def test_paper_formula_of_passk_training_agrees():
    for n, x, k in ((8, 3, 4), (8, 5, 4), (32, 7, 8)):
        rho = 1 - comb(n - x, k) / comb(n, k)
        sigma = sqrt(rho * (1 - rho)) or 1.0
        positive = (1 - rho) / sigma
        negative = (1 - rho - comb(n - x - 1, k - 1) / comb(n - 1, k - 1)) / sigma
        assert passk_advantages_of_group(n, x, k) == pytest.approx((positive, negative), rel=1e-9, abs=1e-12)
