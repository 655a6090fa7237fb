"""The f_ policy losses equal verl's loss on f_grpo advantages, in value and gradient, one micro-batch at a time."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.utils import omega_conf_to_dataclass
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig, PolicyLossConfig

from verl_fgrpo.config import FocalPolicyLossConfig
from verl_fgrpo.methods.losses import BASE_LOSSES

GROUP = 8
TOKENS = 6


def actor(gamma=0.5, norm=True, group_size=GROUP, **values):
    policy_loss = FocalPolicyLossConfig(
        focal_gamma=gamma, norm_adv_by_std_in_grpo=norm, clip_cov_ratio=0.3, clip_cov_lb=0.0, kl_cov_ratio=0.3
    )
    return ActorConfig(
        strategy="fsdp2", rollout_n=group_size, ppo_micro_batch_size_per_gpu=1, policy_loss=policy_loss, **values
    )


def rollouts(seed, correct_per_group, group_size=GROUP, drop=0):
    """Ragged responses of several groups with a given number of correct rollouts; the first group lost `drop`."""
    rng = np.random.default_rng(seed)
    rows, index = [], []
    for g, num_correct in enumerate(correct_per_group):
        members = [1.0] * num_correct + [0.0] * (group_size - num_correct)
        members = members[drop:] if g == 0 else members
        rows += members
        index += [f"uid-{g}"] * len(members)
    lengths = rng.integers(1, TOKENS + 1, len(rows))
    mask = torch.from_numpy(np.arange(TOKENS) < lengths[:, None])
    rewards = torch.zeros(len(rows), TOKENS)
    rewards[torch.arange(len(rows)), torch.from_numpy(lengths) - 1] = torch.tensor(rows)
    index = np.array(index, dtype=object)
    order = rng.permutation(len(rows))
    return rewards[order], mask[order], index[order], rng


def advantages(name, rewards, mask, index, gamma=0.5, norm=True):
    config = OmegaConf.create({"focal_gamma": gamma, "norm_adv_by_std_in_grpo": norm})
    function = get_adv_estimator_fn(name)
    result, _ = function(
        token_level_rewards=rewards, response_mask=mask, index=index, config=config, norm_adv_by_std_in_grpo=norm
    )
    return result


def loss_and_gradient(name, config, advantage, mask, old, new, weights, seed=0):
    log_prob = new.clone().requires_grad_()
    torch.manual_seed(seed)  # clip_cov draws its tokens from the global generator
    loss, metrics = get_policy_loss_fn(name)(
        old_log_prob=old,
        log_prob=log_prob,
        advantages=advantage,
        response_mask=mask,
        loss_agg_mode="token-mean",
        config=config,
        rollout_is_weights=weights,
    )
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


@pytest.mark.parametrize("name", BASE_LOSSES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 48])
@pytest.mark.parametrize("importance_weights", [False, True])
def test_f_loss_on_grpo_advantages_is_the_host_loss_on_f_grpo_advantages(name, norm, micro_batch, importance_weights):
    rewards, mask, index, rng = rollouts(7, [0, 1, 3, 6, 7, 8])  # with an all-wrong and an all-correct group
    plain = advantages("grpo", rewards, mask, index, norm=norm)
    focal = advantages("f_grpo", rewards, mask, index, norm=norm)
    assert not torch.allclose(plain, focal)
    old = torch.from_numpy(rng.normal(-1.5, 0.5, mask.shape)).float()
    new = old + torch.from_numpy(rng.normal(0, 0.3, mask.shape)).float()
    weights = torch.from_numpy(rng.uniform(0.5, 2, mask.shape)).float() if importance_weights else None
    config = actor(norm=norm)
    for start in range(0, len(rewards), micro_batch):
        rows = slice(start, start + micro_batch)
        is_weights = weights[rows] if importance_weights else None
        ours = loss_and_gradient(f"f_{name}", config, plain[rows], mask[rows], old[rows], new[rows], is_weights)
        host = loss_and_gradient(name, config, focal[rows], mask[rows], old[rows], new[rows], is_weights)
        torch.testing.assert_close(ours[0], host[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(ours[1], host[1], rtol=1e-5, atol=1e-7)
        assert bool(torch.isfinite(ours[0])) and bool(torch.isfinite(ours[1]).all())


@pytest.mark.parametrize("name", BASE_LOSSES)
def test_gamma_zero_is_the_host_loss_bit_for_bit(name):
    rewards, mask, index, rng = rollouts(3, [0, 2, 5, 8])
    plain = advantages("grpo", rewards, mask, index)
    old = torch.from_numpy(rng.normal(-1.5, 0.5, mask.shape)).float()
    new = old + torch.from_numpy(rng.normal(0, 0.3, mask.shape)).float()
    ours = loss_and_gradient(f"f_{name}", actor(gamma=0.0), plain, mask, old, new, None)
    host = loss_and_gradient(name, actor(gamma=0.0), plain, mask, old, new, None)
    assert torch.equal(ours[0], host[0]) and torch.equal(ours[1], host[1])
    assert {key: ours[2][key] for key in host[2]} == host[2]


@pytest.mark.parametrize("name", ["vanilla", "cispo"])
@pytest.mark.parametrize("correct", range(1, 8))
def test_a_group_that_lost_a_rollout_has_its_own_weight(name, correct):
    rewards, mask, index, _ = rollouts(correct, [correct], drop=1)
    plain = advantages("grpo", rewards, mask, index)
    focal = advantages("f_grpo", rewards, mask, index)
    old = torch.full(mask.shape, -1.0)
    for row in range(len(rewards)):
        rows = slice(row, row + 1)
        ours = loss_and_gradient(f"f_{name}", actor(), plain[rows], mask[rows], old[rows], old[rows], None)
        host = loss_and_gradient(name, actor(), focal[rows], mask[rows], old[rows], old[rows], None)
        torch.testing.assert_close(ours[0], host[0], rtol=1e-5, atol=1e-7)


def test_metrics_tell_what_the_weight_did():
    # two groups of eight: 2 of 8 correct (mu 1/4, weight sqrt(3/4)) and all correct (inactive)
    rewards, mask, index, _ = rollouts(0, [2, 8])
    plain = advantages("grpo", rewards, mask, index)
    old = torch.full(mask.shape, -1.0)
    _, _, metrics = loss_and_gradient("f_vanilla", actor(), plain, mask, old, old, None)
    assert metrics["actor/focal/active_share"] == 0.5
    assert metrics["actor/focal/weight_mean"] == pytest.approx((0.75**0.5 + 1) / 2, rel=1e-5)
    assert metrics["actor/focal/success_rate"] / metrics["actor/focal/active_share"] == pytest.approx(0.25, rel=1e-5)
    as_verl_logs_them = Metric.from_dict(metrics, aggregation=AggregationType.MEAN)
    assert as_verl_logs_them["actor/focal/active_share"].aggregate() == 0.5


def test_a_micro_batch_without_an_active_row_gives_zero_loss_and_finite_metrics():
    rewards, mask, index, _ = rollouts(0, [8])
    plain = advantages("grpo", rewards, mask, index)[:1]
    old = torch.full((1, TOKENS), -1.0)
    loss, gradient, metrics = loss_and_gradient("f_vanilla", actor(), plain, mask[:1], old, old, None)
    assert loss.item() == 0.0 and not gradient.any()
    assert all(np.isfinite(value) for value in metrics.values())


def feed(config, advantage, mask):
    old = torch.full(mask.shape, -1.0)
    return loss_and_gradient("f_vanilla", config, advantage, mask, old, old, None)[2]


@pytest.mark.parametrize("estimator", ["f_grpo", "rloo", "gpg"])
def test_double_weighting_and_other_estimators_are_refused_at_the_first_row(estimator):
    rewards, mask, index, _ = rollouts(1, [1, 2, 3, 4, 5, 6, 7])
    make = advantages if estimator == "f_grpo" else other
    wrong = make(estimator, rewards, mask, index)
    refused = 0
    for row in range(len(wrong)):
        try:
            feed(actor(gamma=1.0), wrong[row : row + 1], mask[row : row + 1])
        except ValueError as error:
            assert "plain GRPO with 8 rollouts" in str(error) and "never both" in str(error)
            refused += 1
    assert refused > len(wrong) / 2
    feed(actor(gamma=0.0), wrong, mask)  # the baseline arm weighs nothing


def other(estimator, rewards, mask, index):
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": True})
    return get_adv_estimator_fn(estimator)(token_level_rewards=rewards, response_mask=mask, index=index, config=config)[
        0
    ]


@pytest.mark.parametrize("correct", range(1, 8))
def test_undivided_advantages_of_rewards_other_than_one_apart_are_refused(correct):
    # D3: rewards -1/1 without std: A is 2 (1 - mu) or -2 mu, of which the old reading made weights 1.0 and 0.0
    rewards, mask, index, _ = rollouts(1, [correct])
    undivided = advantages("grpo", 2 * rewards - mask.float() * 0, mask, index, norm=False)
    with pytest.raises(ValueError, match=r"without their std, cannot give.*adv_estimator=f_grpo"):
        feed(actor(norm=False), undivided, mask)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("group_size", [2, 4, 8, 16])
def test_a_flag_that_does_not_fit_the_advantages_is_refused(norm, group_size):
    # D3: nearly every group has a row that the other reading cannot have; undivided .5 is also 3 of 4, divided
    passed = []
    for correct in range(1, group_size):
        rewards, mask, index, _ = rollouts(1, [correct], group_size=group_size)
        other_way = advantages("grpo", rewards, mask, index, norm=not norm)
        try:
            feed(actor(norm=norm, group_size=group_size), other_way, mask)
            passed.append(correct)
        except ValueError as error:
            assert "cannot give" in str(error)
    assert len(passed) <= 2 and (group_size > 2 or not passed)


def test_one_shaped_reward_in_a_group_is_refused():
    # D10: one overlong correct rollout of three: the old reading gave the weights .731 .731 .053 in one group
    rewards, mask, index, _ = rollouts(1, [3])
    correct = int((rewards.sum(-1) == 1).nonzero()[0])
    rewards[correct] *= 0.3
    with pytest.raises(ValueError, match=r"\(8 rows of this micro-batch\)"):
        feed(actor(), advantages("grpo", rewards, mask, index), mask)


def test_rows_without_a_focal_gamma_in_their_config_are_refused():
    # D5: a plain PolicyLossConfig used to mean gamma 0.5, whatever the user had set elsewhere
    rewards, mask, index, _ = rollouts(0, [2, 5])
    config = ActorConfig(
        strategy="fsdp2", rollout_n=GROUP, ppo_micro_batch_size_per_gpu=1, policy_loss=PolicyLossConfig()
    )
    with pytest.raises(ValueError, match=r"no focal_gamma in actor\.policy_loss.*FocalPolicyLossConfig"):
        feed(config, advantages("grpo", rewards, mask, index), mask)


def test_config_is_built_by_verl_from_a_target_and_refuses_a_bad_gamma():
    node = {
        "_target_": "verl_fgrpo.config.FocalPolicyLossConfig",
        "loss_mode": "f_vanilla",
        "focal_gamma": 1.0,
    }
    built = omega_conf_to_dataclass(OmegaConf.create(node))
    assert isinstance(built, FocalPolicyLossConfig) and isinstance(built, PolicyLossConfig)
    assert (built.loss_mode, built.focal_gamma, built.norm_adv_by_std_in_grpo) == ("f_vanilla", 1.0, True)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"policy_loss\.focal_gamma is .*at least 0"):
            FocalPolicyLossConfig(focal_gamma=bad)


def test_missing_config_and_group_of_one_are_errors():
    with pytest.raises(ValueError, match="config=None.*actor config"):
        get_policy_loss_fn("f_vanilla")(None, None, None, None, config=None)
    rewards, mask, index, _ = rollouts(0, [2])
    plain = advantages("grpo", rewards, mask, index)
    with pytest.raises(ValueError, match="group_size is 1"):
        feed(actor(group_size=1), plain, mask)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", BASE_LOSSES)
def test_cuda_equals_cpu(name):
    rewards, mask, index, rng = rollouts(3, [0, 2, 5, 8])
    plain = advantages("grpo", rewards, mask, index)
    old = torch.from_numpy(rng.normal(-1.5, 0.5, mask.shape)).float()
    new = old + 0.1
    on_cpu = loss_and_gradient(f"f_{name}", actor(), plain, mask, old, new, None)
    on_gpu = loss_and_gradient(f"f_{name}", actor(), plain.cuda(), mask.cuda(), old.cuda(), new.cuda(), None)
    if name != "clip_cov":  # draws from the device's own generator
        torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0], rtol=1e-5, atol=1e-7)
