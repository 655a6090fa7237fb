"""The plugin in a verl that hands `batch` and `non_tensor_batch` to every estimator that can take them (verl #7473).

Run by `bash upstream/estimator_inputs/verify.sh` in a copy of verl with that behaviour.
"""

import numpy as np
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est
from verl.trainer.ppo.ray_trainer import compute_advantage

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
