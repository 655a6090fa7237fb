"""Is patched verl the unpatched one at gamma 0, and the plugin otherwise? For verify.py and tests/test_upstream.py.

record FILE    with verl as installed: write what it computes
compare FILE   with the patched copy on PYTHONPATH: against the record, and against the plugin
cost           with the patched copy on PYTHONPATH: time of `compute_advantage` with the weight over that without
"""

import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
import verl
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from verl_fgrpo.methods.estimators import BASE_ESTIMATORS

SEEDS = range(5)
NO_PADDING = {"grpo_passk", "opo", "gpg"}  # verl refuses padding rows there, returns NaN for them, or counts them

#: verl's scripts/generate_trainer_config.sh: generated file -> Hydra override
GENERATED = {
    "_generated_ppo_trainer.yaml": [],
    "_generated_ppo_megatron_trainer.yaml": ["model_engine=megatron"],
    "_generated_ppo_veomni_trainer.yaml": ["model_engine=veomni"],
    "_generated_ppo_torchtitan_trainer.yaml": ["model_engine=torchtitan"],
}


def batch(name: str, seed: int) -> DataProto:
    """Ragged groups in shuffled order, ragged responses, 0/1 rewards at the last token, sometimes a padding row."""
    rng = np.random.default_rng(seed)
    uid = np.repeat([f"uid-{i}" for i in range(6)], rng.integers(2, 9, 6)).astype(object)
    if seed % 2 and name not in NO_PADDING:
        uid = np.append(uid, "pad")
    uid = rng.permutation(uid)
    lengths = rng.integers(1, 12, len(uid))
    lengths[uid == "pad"] = 0
    rewards = np.zeros((len(uid), 12), dtype=np.float32)
    real = np.flatnonzero(lengths)
    chance = {label: rng.random() for label in dict.fromkeys(uid)}
    rewards[real, lengths[real] - 1] = rng.random(len(real)) < [chance[label] for label in uid[real]]
    return DataProto.from_dict(
        tensors={
            "token_level_scores": torch.from_numpy(rewards),
            "token_level_rewards": torch.from_numpy(rewards.copy()),
            "response_mask": torch.from_numpy((np.arange(12) < lengths[:, None]).astype(np.int64)),
        },
        non_tensors={"uid": uid},
    )


def verl_result(name: str, seed: int, **algorithm: Any) -> tuple[bytes, bytes]:
    """Advantages and returns of verl's own `compute_advantage`, as bytes."""
    data = compute_advantage(batch(name, seed), adv_estimator=name, config=OmegaConf.create(algorithm))
    return data.batch["advantages"].numpy().tobytes(), data.batch["returns"].numpy().tobytes()


def plugin_result(name: str, seed: int, **algorithm: Any) -> tuple[bytes, bytes]:
    """Advantages and returns of the plugin's f_ estimator, as bytes."""
    data = batch(name, seed)
    advantages, returns = get_adv_estimator_fn(f"f_{name}")(
        token_level_rewards=data.batch["token_level_rewards"],
        response_mask=data.batch["response_mask"],
        index=data.non_tensor_batch["uid"],
        config=OmegaConf.create(algorithm),
    )
    return advantages.numpy().tobytes(), returns.numpy().tobytes()


def record(path: Path) -> None:
    """Write what verl as installed computes for every estimator and seed."""
    assert not hasattr(AlgoConfig(), "f_grpo_gamma"), f"{verl.__file__} is patched already"
    torch.save({(name, seed): verl_result(name, seed) for name in BASE_ESTIMATORS for seed in SEEDS}, path)
    print(f"recorded {len(BASE_ESTIMATORS)} estimators x {len(SEEDS)} batches of verl {verl.__version__}")


def compare(path: Path) -> None:
    """Check the patched verl against the record and against the plugin.

    Raises:
        AssertionError: any byte differs.
    """
    assert getattr(AlgoConfig(), "f_grpo_gamma", None) == 0.0, f"{verl.__file__} is not patched"
    unpatched = torch.load(path)
    weighted = Counter()
    for (name, seed), expected in unpatched.items():
        assert verl_result(name, seed) == expected, f"{name}: without the key, patched verl differs from verl"
        assert verl_result(name, seed, f_grpo_gamma=0.0) == expected, f"{name}: gamma 0 differs from verl"
        for gamma in (0.5, 1.0, 2.0):
            patched = verl_result(name, seed, f_grpo_gamma=gamma)
            assert patched == plugin_result(name, seed, focal_gamma=gamma), f"{name}, gamma {gamma}: f_{name} differs"
            weighted[name] += patched != expected
    assert all(weighted[name] > len(SEEDS) for name in BASE_ESTIMATORS), f"the batches show too little: {weighted}"
    print(f"gamma 0 is verl bit for bit: {len(unpatched)} results of {len(BASE_ESTIMATORS)} estimators")
    print(f"gamma 0.5, 1 and 2 are the plugin's f_ estimators bit for bit: {3 * len(unpatched)} results")
    refuses_double_weight()
    check_generated_configs()


def refuses_double_weight() -> None:
    """A run that names an f_ estimator in a patched verl must not be weighted twice."""
    try:
        compute_advantage(batch("grpo", 0), adv_estimator="f_grpo", config=OmegaConf.create({"f_grpo_gamma": 0.5}))
    except ValueError as error:
        assert "adv_estimator is f_grpo" in str(error)
        print("adv_estimator=f_grpo with verl's own f_grpo_gamma is refused")
    else:
        raise AssertionError("f_grpo was weighted twice")


def check_generated_configs() -> None:
    """verl's CI wants its `_generated_*.yaml` up to date: compose each again and compare."""
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with hydra.initialize_config_dir(str(folder.resolve()), version_base=None):
        for name, overrides in GENERATED.items():
            composed = OmegaConf.to_yaml(hydra.compose("ppo_trainer", overrides)).splitlines()
            start = next(i for i, line in enumerate(composed) if line.startswith("actor_rollout_ref"))
            written = (folder / name).read_text().splitlines()
            assert written[5:] == composed[start:], f"{name} is out of date"
    print(f"{len(GENERATED)} generated configuration files are up to date")


def cost(prompts: int = 256, group_size: int = 8, tokens: int = 4096, repeats: int = 7) -> None:
    """Print the time of `compute_advantage` with the weight as a multiple of the time without, alternating."""
    rng = np.random.default_rng(0)
    rows = prompts * group_size
    rewards = torch.zeros(rows, tokens)
    rewards[:, -1] = torch.from_numpy(rng.integers(0, 2, rows).astype(np.float32))
    tensors = {"token_level_scores": rewards, "token_level_rewards": rewards, "response_mask": torch.ones(rows, tokens)}
    uid = np.repeat([str(uuid.uuid4()) for _ in range(prompts)], group_size).astype(object)
    seconds: dict[float, list[float]] = {0.0: [], 0.5: []}
    for _ in range(repeats + 1):  # the first round warms up
        for gamma, times in seconds.items():
            data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": uid})
            start = time.perf_counter()
            compute_advantage(data, adv_estimator="grpo", config=OmegaConf.create({"f_grpo_gamma": gamma}))
            times.append(time.perf_counter() - start)
    off, on = (float(np.median(times[1:])) for times in seconds.values())
    print(f"grpo, {rows} rollouts of {tokens} tokens: {on / off:.2f} times the time without ({off * 1e3:.0f} ms)")


def main(args: list[str]) -> None:
    """Run `record FILE`, `compare FILE` or `cost`."""
    commands = {"record": record, "compare": compare}
    if args == ["cost"]:
        cost()
    elif len(args) == 2 and args[0] in commands:
        commands[args[0]](Path(args[1]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
