"""The f_ estimators: golden values, parity at gamma 0, invariances, verl's own entry point, clear errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from verl_fgrpo.methods.estimators import BASE_ESTIMATORS

NO_SINGLETONS = {"grpo_passk"}  # the host refuses a group of one


def algorithm(**values):
    base = {"adv_estimator": "f_grpo", "norm_adv_by_std_in_grpo": True, "use_kl_in_reward": False, "gamma": 1.0}
    return OmegaConf.create(base | values)


def batch(seed, group_sizes, num_tokens=7, wrong=0.0, correct=1.0, mask_dtype=torch.int64, padding_rows=0):
    """Ragged groups in shuffled order, ragged masks, the reward at the last response token."""
    rng = np.random.default_rng(seed)
    index = np.concatenate([[f"uid-{i}"] * n for i, n in enumerate(group_sizes)] + [["pad"] * padding_rows])
    index = index.astype(object)
    rows = len(index)
    lengths = rng.integers(1, num_tokens + 1, rows)
    lengths[index == "pad"] = 0
    mask = np.arange(num_tokens) < lengths[:, None]
    rewards = np.zeros((rows, num_tokens), dtype=np.float32)
    chance = {uid: rng.random() for uid in dict.fromkeys(index)}
    score = np.where(rng.random(rows) < [chance[uid] for uid in index], correct, wrong)
    real = lengths > 0
    rewards[np.flatnonzero(real), lengths[real] - 1] = score[real]
    order = rng.permutation(rows)
    return {
        "token_level_rewards": torch.from_numpy(rewards[order]),
        "response_mask": torch.from_numpy(mask[order]).to(mask_dtype),
        "index": index[order],
    }


def host_result(name, data, config):
    """verl's own estimator, called as the contract says: with the config's std flag where it takes one."""
    arguments = {"config": config}
    if name in {"grpo", "grpo_vectorized", "grpo_passk"}:
        arguments["norm_adv_by_std_in_grpo"] = config.norm_adv_by_std_in_grpo
    return get_adv_estimator_fn(name)(**data, **arguments)


def test_f_grpo_golden():
    # one group of four, two correct: mean 1/2, std sqrt(1/3) (Bessel), advantages +-0.5 / 0.57735 = +-0.8660
    # focal weight sqrt(1 - 1/2) = 0.70711, so +-0.61237
    data = {
        "token_level_rewards": torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
        "response_mask": torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]]),
        "index": np.array(["a"] * 4, dtype=object),
    }
    advantages, returns = get_adv_estimator_fn("f_grpo")(**data, config=algorithm())
    a = 0.5 / (1 / 3) ** 0.5 * 0.5**0.5
    expected = torch.tensor([[a, a], [a, a], [-a, 0.0], [-a, -a]])
    torch.testing.assert_close(advantages, expected, rtol=1e-5, atol=0)
    assert returns is advantages


@pytest.mark.parametrize("name", BASE_ESTIMATORS)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("wrong", "correct", "threshold"), [(0.0, 1.0, 0.5), (-1.0, 1.0, 0.0)])
@pytest.mark.parametrize("mask_dtype", [torch.int64, torch.bool, torch.float32])
def test_gamma_zero_is_the_host_bit_for_bit(name, norm, wrong, correct, threshold, mask_dtype):
    config = algorithm(focal_gamma=0, focal_success_threshold=threshold, norm_adv_by_std_in_grpo=norm)
    for seed in range(6):
        sizes = [8, 5, 2, 3] + ([] if name in NO_SINGLETONS else [1, 1])
        data = batch(seed, sizes, wrong=wrong, correct=correct, mask_dtype=mask_dtype, padding_rows=3)
        ours = get_adv_estimator_fn(f"f_{name}")(**data, config=config)
        theirs = host_result(name, data, config)
        for mine, host in zip(ours, theirs, strict=True):
            assert mine.dtype == host.dtype
            if name == "opo":  # D13: the host divides by a total length of 0 in padding rows and returns NaN
                host = torch.where(torch.from_numpy(data["index"] == "pad")[:, None], 0.0, host)
            assert mine.numpy().tobytes() == host.numpy().tobytes()


@pytest.mark.parametrize("name", BASE_ESTIMATORS)
def test_focal_result_is_the_host_times_the_weight_of_the_group(name):
    config = algorithm(focal_gamma=0.7)
    data = batch(2, [6, 6, 4, 4])
    scores = data["token_level_rewards"].sum(-1).numpy()
    weight = np.empty(len(scores))
    for uid in set(data["index"]):
        members = data["index"] == uid
        weight[members] = (1 - (scores[members] > 0.5).mean()) ** 0.7
    ours, _ = get_adv_estimator_fn(f"f_{name}")(**data, config=config)
    theirs, _ = host_result(name, data, config)
    assert len(set(weight.round(6))) > 2, "the batch must hold different success rates"
    np.testing.assert_allclose(ours.numpy(), theirs.numpy() * weight[:, None], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", BASE_ESTIMATORS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), padding_rows=st.integers(0, 3))
def test_weight_ignores_row_order_and_padding(name, seed, padding_rows):
    config = algorithm(focal_gamma=1.0)
    data = batch(seed, [4, 4, 3], padding_rows=padding_rows)
    function = get_adv_estimator_fn(f"f_{name}")
    straight, _ = function(**data, config=config)
    order = np.random.default_rng(seed).permutation(len(data["index"]))
    shuffled, _ = function(
        token_level_rewards=data["token_level_rewards"][order],
        response_mask=data["response_mask"][order],
        index=data["index"][order],
        config=config,
    )
    if name != "grpo_passk":  # of equal best rollouts the host rewards the first one, so order matters to it
        torch.testing.assert_close(shuffled, straight[order], rtol=1e-5, atol=1e-6)
    assert torch.equal(straight[torch.from_numpy(data["index"] == "pad")], torch.zeros(padding_rows, 7))


def test_a_stray_correct_rollout_alone_in_its_group_is_inactive():
    data = {
        "token_level_rewards": torch.tensor([[1.0], [0.0], [1.0], [0.0]]),
        "response_mask": torch.ones(4, 1),
        "index": np.array(["alone-correct", "alone-wrong", "pair", "pair"], dtype=object),
    }
    advantages, _ = get_adv_estimator_fn("f_grpo")(**data, config=algorithm())
    assert advantages[:2].flatten().tolist() == [0.0, 0.0]
    assert bool((advantages[2:] != 0).all())


def test_f_grpo_passk_inherits_the_hosts_error_for_a_group_of_one():
    data = batch(0, [4, 1])
    with pytest.raises(ValueError, match="at least 2 samples per group"):
        get_adv_estimator_fn("f_grpo_passk")(**data, config=algorithm())


@pytest.mark.parametrize("name", BASE_ESTIMATORS)
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_through_verls_own_compute_advantage(name, gamma):
    tensors = batch(2, [6, 6, 4, 4])
    config = algorithm(adv_estimator=f"f_{name}", focal_gamma=gamma)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": tensors["token_level_rewards"], "response_mask": tensors["response_mask"]},
        non_tensors={"uid": tensors["index"]},
    )
    result = compute_advantage(data, adv_estimator=f"f_{name}", config=config)
    direct, _ = get_adv_estimator_fn(f"f_{name}")(**tensors, config=config)
    assert torch.equal(result.batch["advantages"], direct)
    theirs, _ = host_result(name, tensors, config)
    assert bool((theirs != 0).any())
    assert torch.equal(result.batch["advantages"], theirs) == (gamma == 0)


def test_the_std_flag_of_the_config_is_honoured_by_f_grpo_vectorized():
    data = batch(3, [4, 4])
    function = get_adv_estimator_fn("f_grpo_vectorized")
    plain, _ = function(**data, config=algorithm(norm_adv_by_std_in_grpo=False, focal_gamma=0))
    scaled, _ = function(**data, config=algorithm(norm_adv_by_std_in_grpo=True, focal_gamma=0))
    assert not torch.equal(plain, scaled)


def test_focal_normalize_divides_by_the_mean_weight_of_the_active_groups():
    # X = 1 and 3 of 4, gamma 1: weights 3/4 and 1/4, mean 1/2, so 3/2 and 1/2 times GRPO's advantages; a solved group
    # and a padding row count for nothing
    data = batch(5, [4, 4, 4], padding_rows=1)
    chance = {"uid-0": 1, "uid-1": 3, "uid-2": 4, "pad": 0}
    seen = dict.fromkeys(chance, 0)
    for row, uid in enumerate(data["index"]):
        seen[uid] += 1
        data["token_level_rewards"][row] = 0.0
        data["token_level_rewards"][row, 0] = float(seen[uid] <= chance[uid])
    config = algorithm(focal_gamma=1.0, focal_normalize=True)
    ours, _ = get_adv_estimator_fn("f_grpo")(**data, config=config)
    theirs, _ = host_result("grpo", data, config)
    factor = torch.tensor([{"uid-0": 1.5, "uid-1": 0.5}.get(uid, 0.0) for uid in data["index"]]).unsqueeze(1)
    assert bool((theirs != 0).any())
    assert torch.allclose(ours, theirs * factor, rtol=1e-6)
    plain = algorithm(focal_gamma=0.0, focal_normalize=True)
    assert torch.equal(get_adv_estimator_fn("f_grpo")(**data, config=plain)[0], theirs)


def test_default_gamma_is_the_papers():
    data = batch(3, [4, 4])
    function = get_adv_estimator_fn("f_grpo")
    assert torch.equal(function(**data, config={})[0], function(**data, config=algorithm(focal_gamma=0.5))[0])


def test_no_config_is_an_error():
    # two trainers of verl-recipe call compute_advantage without one: a gamma that was set would not arrive
    with pytest.raises(ValueError, match=r"config=None.*config=config\.algorithm"):
        get_adv_estimator_fn("f_grpo")(**batch(3, [4, 4]), config=None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"focal_gamma": -0.5}, r"algorithm\.focal_gamma is -0\.5.*at least 0.*\+algorithm\.focal_gamma=0\.5"),
        ({"focal_gamma": float("inf")}, r"algorithm\.focal_gamma is inf"),
        ({"focal_gamma": float("nan")}, r"algorithm\.focal_gamma is nan"),
        ({"focal_normalize": "yes"}, r"focal_normalize is 'yes'.*True or False.*focal_normalize=True"),
        ({"focal_gamma": "much"}, r"algorithm\.focal_gamma is 'much'"),
        ({"focal_success_threshold": float("nan")}, r"focal_success_threshold is nan.*0\.5 for 0/1"),
        ({"use_kl_in_reward": True}, r"use_kl_in_reward is True.*actor\.use_kl_loss=True"),
    ],
)
@pytest.mark.parametrize("name", BASE_ESTIMATORS)
def test_bad_settings_give_value_rule_and_remedy(name, values, message):
    with pytest.raises(ValueError, match=message):
        get_adv_estimator_fn(f"f_{name}")(**batch(0, [4, 4]), config=algorithm(**values))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_reward_names_its_uid(value):
    data = batch(0, [4, 4])
    data["token_level_rewards"][3, 0] = value
    with pytest.raises(ValueError, match=rf"rollout 3 of uid '{data['index'][3]}'.*finite"):
        get_adv_estimator_fn("f_grpo")(**data, config=algorithm())


def test_no_uid_is_an_error():
    data = batch(0, [4, 4])
    del data["index"]
    with pytest.raises(ValueError, match=r"f_grpo got no index \(uid\)"):
        get_adv_estimator_fn("f_grpo")(**data, config=algorithm())


@pytest.mark.parametrize("padding_rows", [0, 2])
def test_only_groups_of_one_is_an_error(padding_rows):
    data = batch(0, [1, 1, 1], padding_rows=padding_rows)
    with pytest.raises(ValueError, match=r"every one of the 3 groups.*rollout\.n to 2 or more"):
        get_adv_estimator_fn("f_grpo")(**data, config=algorithm())


def test_a_wrong_number_of_uids_is_an_error():
    data = batch(0, [4, 4])
    data["index"] = data["index"][:5]
    with pytest.raises(ValueError, match="8 rollouts but 5 group labels"):
        get_adv_estimator_fn("f_grpo")(**data, config=algorithm())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", BASE_ESTIMATORS)
def test_cuda_equals_cpu(name):
    data = batch(5, [6, 6, 4])
    config = algorithm()
    on_cpu, _ = get_adv_estimator_fn(f"f_{name}")(**data, config=config)
    moved = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in data.items()}
    on_gpu, _ = get_adv_estimator_fn(f"f_{name}")(**moved, config=config)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-6, atol=1e-7)
