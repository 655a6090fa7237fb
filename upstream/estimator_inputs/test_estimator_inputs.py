"""The plugin in a verl that hands `batch` and `non_tensor_batch` to every estimator that can take them (verl #7473).

Run by `bash upstream/estimator_inputs/verify.sh` in a copy of verl with that behaviour.
"""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, get_adv_estimator_fn, register_adv_est
from verl.trainer.ppo.ray_trainer import compute_advantage

from verl_fgrpo.methods.estimators import BASE_ESTIMATORS

UID = ["a", "a", "a", "a", "b", "b", "b", "b"]
SCORES = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def batch(**non_tensors):
    """Two prompts with four responses of two tokens: 1 of 4 and 3 of 4 have a reward of 1."""
    rewards = torch.zeros(8, 2)
    rewards[:, 1] = torch.tensor(SCORES)
    tensors = {"token_level_rewards": rewards, "token_level_scores": rewards, "response_mask": torch.ones(8, 2)}
    columns = {name: np.array(values, dtype=object) for name, values in non_tensors.items()}
    return DataProto.from_dict(tensors=tensors, non_tensors={"uid": np.array(UID, dtype=object), **columns})


def seen_by(estimator, **non_tensors):
    """Names of the optional arguments that a freshly registered estimator is called with."""
    register_adv_est("probe")(estimator)
    try:
        return compute_advantage(batch(**non_tensors), "probe", config=OmegaConf.create({})).batch["returns"]
    finally:
        del ADV_ESTIMATOR_REGISTRY["probe"]


def test_an_estimator_gets_what_its_signature_can_take():
    def declared(token_level_rewards, response_mask, index, config, non_tensor_batch):
        return token_level_rewards, torch.tensor(non_tensor_batch["acc"].astype(float))

    def anything(token_level_rewards, response_mask, **kwargs):
        return token_level_rewards, torch.tensor([float({"batch", "non_tensor_batch"} <= kwargs.keys())] * 8)

    def neither(token_level_rewards, response_mask, index, config):
        return token_level_rewards, token_level_rewards

    acc = [0, 1, 0, 0, 0, 0, 0, 1]
    assert seen_by(declared, acc=acc).tolist() == acc
    assert seen_by(anything).all()
    assert seen_by(neither).shape == (8, 2)


@pytest.mark.parametrize("name", sorted(BASE_ESTIMATORS))
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_plugins_advantages_are_those_of_a_direct_call(name, gamma):
    config = OmegaConf.create({"focal_gamma": gamma})
    data = compute_advantage(batch(), f"f_{name}", config=config)
    direct, _ = get_adv_estimator_fn(f"f_{name}")(
        token_level_rewards=batch().batch["token_level_rewards"],
        response_mask=batch().batch["response_mask"],
        index=np.array(UID, dtype=object),
        config=config,
    )
    assert torch.equal(data.batch["advantages"], direct)


def without_the_wrapper(data, config):
    """verl's own `compute_advantage`, which the plugin otherwise wraps to hand its estimators what the batch holds."""
    return compute_advantage.__wrapped__(data, "f_grpo", config=config).batch["advantages"][:, 0]


@pytest.mark.parametrize("reward", [{}, {"use_kl_in_reward": True}])
def test_the_rewards_acc_decides_without_the_plugins_wrapper(reward):
    config = OmegaConf.create({"focal_gamma": 1.0} | reward)
    # by acc 3 of 4 of prompt a and 1 of 4 of prompt b are correct, the other way round than by the scores
    acc = [0, 1, 1, 1, 0, 0, 0, 1]
    found = without_the_wrapper(batch(acc=acc, score=SCORES), config)
    plain = without_the_wrapper(batch(acc=acc, score=SCORES), OmegaConf.create({"focal_gamma": 0.0} | reward))
    weight = torch.tensor([1 / 4] * 4 + [3 / 4] * 4)
    torch.testing.assert_close(found, plain * weight)
    wrapped = compute_advantage(batch(acc=acc, score=SCORES), "f_grpo", config=config).batch["advantages"][:, 0]
    assert torch.equal(wrapped, found)


def test_log_probabilities_reach_an_estimator_without_the_plugins_wrapper():
    data = batch()
    data.batch["old_log_probs"] = -torch.arange(16.0).reshape(8, 2)
    config = OmegaConf.create({"unlikeliness_beta": 0.5})
    found = compute_advantage.__wrapped__(data, "unlikeliness", config=config).batch["advantages"]
    assert torch.isfinite(found).all() and found.any()
    with pytest.raises(ValueError, match="log-probabilities"):
        compute_advantage.__wrapped__(batch(), "unlikeliness", config=config)
