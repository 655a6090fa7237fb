"""GAPO: golden bounds, parity with verl's gspo and vanilla bit for bit, clipping row by row, clear errors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import ActorConfig

from verl_fgrpo.methods.gapo import GAPO_LOSSES, clip_high

NAMES = sorted(GAPO_LOSSES)


def config(low=3e-3, high=5e-3, rollout_n=8, **values):
    return ActorConfig(
        strategy="fsdp2",
        rollout_n=rollout_n,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=low,
        clip_ratio_high=high,
        **values,
    )


def rows(counts, k=8, tokens=5, spread=0.01, seed=0):
    """All rollouts of groups with `counts` correct ones: old and new log-probabilities, advantages, mask."""
    generator = torch.Generator().manual_seed(seed)
    advantage = torch.tensor([1 - c / k if i < c else -c / k for c in counts for i in range(k)])
    advantage[advantage.abs() == 1] = 0.0  # all right or all wrong
    lengths = torch.randint(1, tokens + 1, (len(advantage), 1), generator=generator)
    mask = (torch.arange(tokens) < lengths).long()
    old = -torch.rand(len(advantage), tokens, generator=generator)
    new = (old + spread * torch.randn(old.shape, generator=generator)).requires_grad_()
    return old, new, advantage.unsqueeze(-1) * mask, mask


# golden values


def test_bounds_golden():
    # k = 8, (3e-3, 5e-3): c = 1 has the widest, c = 8 the narrowest, c = 4: 3e-3 + 2e-3 * 4/7
    mu = torch.tensor([1, 4, 7, 8], dtype=torch.float64) / 8
    expected = [5e-3, 3e-3 + 2e-3 * 4 / 7, 3e-3 + 2e-3 / 7, 3e-3]
    torch.testing.assert_close(clip_high(mu, 8, 3e-3, 5e-3), torch.tensor(expected, dtype=torch.float64))


@given(st.integers(2, 64), st.floats(0, 0.5), st.floats(0, 0.5))
def test_bounds_fall_with_the_number_of_correct_rollouts(k, low, more):
    mu = torch.arange(1, k + 1, dtype=torch.float64) / k
    bounds = clip_high(mu, k, low, low + more)
    assert bounds[0].item() == pytest.approx(low + more) and bounds[-1].item() == pytest.approx(low)
    assert bool((bounds.diff() <= 1e-12).all())


def test_the_loss_golden():
    # k = 4, one token a row, ratio 1.5: a lone correct rollout (A = 3/4) is clipped at 1.4, one of three (A = 1/4) at
    # 1.2 + 0.2 * 1/3; a wrong one of a group with one correct (A = -1/4) pays its ratio, and dual clip (3) is far
    old = torch.zeros(3, 1)
    new = torch.full((3, 1), 1.5).log()
    advantages = torch.tensor([[0.75], [0.25], [-0.25]])
    expected = -(0.75 * 1.4 + 0.25 * (1.2 + 0.2 / 3) - 0.25 * 1.5) / 3
    for name in NAMES:
        loss, metrics = get_policy_loss_fn(name)(
            old, new, advantages, torch.ones(3, 1), config=config(0.2, 0.4, rollout_n=4)
        )
        assert loss.item() == pytest.approx(expected)
        assert metrics["actor/gapo/clip_high"] == pytest.approx((0.4 + 0.2 + 0.2 / 3 + 0.2) / 3)
        assert metrics["actor/pg_clipfrac"] == pytest.approx(2 / 3)


# parity


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("low, high", [(3e-3, 3e-3), (0.2, 0.2), (0.0, 0.0), (0.17, 0.17)])
@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_equal_bounds_are_verls_loss_with_that_symmetric_clip_bit_for_bit(name, low, high, mode):
    for seed in range(3):
        losses = []
        for called in (name, GAPO_LOSSES[name]):
            old, new, advantages, mask = rows([0, 1, 3, 7, 8], spread=max(low, 1e-3), seed=seed)
            loss, metrics = get_policy_loss_fn(called)(
                old, new, advantages, mask, loss_agg_mode=mode, config=config(low, high)
            )
            loss.backward()
            losses.append((loss.item(), new.grad, metrics["actor/pg_clipfrac"]))
        assert losses[0][0] == losses[1][0] and losses[0][2] == losses[1][2]
        assert torch.equal(losses[0][1], losses[1][1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("c", range(1, 8))
def test_a_group_with_c_correct_is_verls_loss_with_its_own_bound(name, c):
    low, high = 3e-3, 5e-3
    old, new, advantages, mask = rows([c], spread=5e-3, seed=c)
    found, _ = get_policy_loss_fn(name)(old, new, advantages, mask, "token-mean", config(low, high))
    bound = low + (high - low) * (8 - c) / 7
    expected, _ = get_policy_loss_fn(GAPO_LOSSES[name])(old, new, advantages, mask, "token-mean", config(low, bound))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_micro_batches_of_one_row_have_the_bounds_of_the_whole(tmp_path):
    old, new, advantages, mask = rows([2, 6])
    whole = get_policy_loss_fn("gapo")(old, new, advantages, mask, config=config())[1]["actor/gapo/clip_high"]
    parts = [
        get_policy_loss_fn("gapo")(*(x[i : i + 1] for x in (old, new, advantages, mask)), config=config())[1]
        for i in range(16)
    ]
    assert sum(part["actor/gapo/clip_high"] for part in parts) / 16 == pytest.approx(whole)
    # 2 of 8 correct: 3e-3 + 2e-3 * 6/7; 6 of 8: 3e-3 + 2e-3 * 2/7; wrong ones 3e-3
    assert whole == pytest.approx(3e-3 + 2e-3 * (2 * 6 / 7 + 6 * 2 / 7) / 16)


def test_the_users_configuration_is_left_alone():
    given_config = config()
    get_policy_loss_fn("gapo")(*rows([1]), config=given_config)
    assert (given_config.clip_ratio_low, given_config.clip_ratio_high) == (3e-3, 5e-3)


# errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [1.3, 1.0, -1.5, 0.3141])
def test_advantages_off_the_lattice_are_refused(name, wrong):
    old, new, advantages, mask = rows([3])
    advantages[0] = wrong * mask[0]
    with pytest.raises(ValueError, match=r"1 - c/8 and -c/8; use .*norm_adv_by_std_in_grpo=False"):
        get_policy_loss_fn(name)(old, new, advantages, mask, config=config())


def test_every_active_group_of_minus_one_and_one_rewards_is_refused():
    # twice the advantages of 0/1 rewards: one of the two values of a group is always at least 1 in size
    for c in range(1, 8):
        old, new, advantages, mask = rows([c])
        with pytest.raises(ValueError, match="rewards of 0 and 1"):
            get_policy_loss_fn("gapo")(old, new, 2 * advantages, mask, config=config())


def test_errors():
    inputs = rows([3])
    with pytest.raises(ValueError, match="got config=None"):
        get_policy_loss_fn("gapo")(*inputs)
    with pytest.raises(ValueError, match=r"clip_ratio_low is 0.005 and clip_ratio_high is 0.003"):
        get_policy_loss_fn("gapo")(*inputs, config=config(5e-3, 3e-3))
    with pytest.raises(ValueError, match="rollout_n is 1"):
        get_policy_loss_fn("gapo")(*inputs, config=config(rollout_n=1))
