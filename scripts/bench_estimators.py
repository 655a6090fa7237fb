"""Time every f_ estimator against verl's own, interleaved in one process, best of seven.

python scripts/bench_estimators.py [--repeats 7] [--only grpo_vectorized ...] [--small] [--device cuda]

Prints per estimator and shape the best time of verl's X and of f_X and their ratio, then how the focal part alone grows
with the number of rollouts. Groups of eight, 0/1 rewards at the last token, ragged lengths, uids as verl makes them.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl  # noqa: F401  (loads the plugin)
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from verl_fgrpo.core.command import COUNT, command_parser, run_command, torch_device
from verl_fgrpo.core.focal import focal_weight, group_codes, success_rate
from verl_fgrpo.methods.estimators import BASE_ESTIMATORS

SHAPES = ((2_048, 8_192), (65_536, 1_024))
SMALL_SHAPES = ((256, 512), (2_048, 128))
GROUP = 8


def make_batch(rollouts: int, tokens: int, seed: int) -> dict[str, Any]:
    """Rewards, mask and uids of one training batch."""
    rng = np.random.default_rng(seed)
    lengths = torch.from_numpy(rng.integers(1, tokens + 1, rollouts))
    mask = (torch.arange(tokens) < lengths[:, None]).to(torch.int64)
    chance = np.repeat(rng.random(rollouts // GROUP), GROUP)
    rewards = torch.zeros(rollouts, tokens)
    rewards[torch.arange(rollouts), lengths - 1] = torch.from_numpy((rng.random(rollouts) < chance).astype(np.float32))
    uids = [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(rollouts // GROUP)]
    index = np.repeat(np.array(uids, dtype=object), GROUP)
    return {"token_level_rewards": rewards, "response_mask": mask, "index": index}


def best_times(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Best wall time of each function in seconds; one call of each per round, so that drift hits all alike."""
    best = [float("inf")] * len(functions)
    for round_number in range(repeats + 1):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():  # kernels are queued
                torch.cuda.synchronize()
            if round_number:  # the first round warms up
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = command_parser(Path(__file__).name, __doc__)
    parser.add_argument("--repeats", type=COUNT, default=7)
    parser.add_argument("--only", nargs="*", choices=BASE_ESTIMATORS, default=list(BASE_ESTIMATORS))
    parser.add_argument("--small", action="store_true", help="small shapes, to see that it runs")
    parser.add_argument("--device", default="cpu", type=torch_device)
    given = parser.parse_args(arguments)

    def batch_of(rollouts: int, tokens: int) -> dict[str, Any]:
        batch = make_batch(rollouts, tokens, seed=0)
        return {key: value.to(given.device) if torch.is_tensor(value) else value for key, value in batch.items()}

    config = OmegaConf.create({"focal_gamma": 0.5, "norm_adv_by_std_in_grpo": True})
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {given.device}, {threads} thread(s), best of {given.repeats}, interleaved")
    print(f"{'estimator':<30} {'rollouts x tokens':>18} {'verl (s)':>9} {'f_ (s)':>9} {'ratio':>6}")
    for rollouts, tokens in SMALL_SHAPES if given.small else SHAPES:
        batch = batch_of(rollouts, tokens)
        for name in given.only:
            host, focal = get_adv_estimator_fn(name), get_adv_estimator_fn(f"f_{name}")
            calls = [partial(function, **batch, config=config) for function in (host, focal)]
            host_time, focal_time = best_times(calls, given.repeats)
            shape = f"{rollouts} x {tokens}"
            ratio = focal_time / host_time
            print(f"{name:<30} {shape:>18} {host_time:9.3f} {focal_time:9.3f} {ratio:6.2f}", flush=True)
        del batch, calls

    print("\nfocal part alone (group codes, success rates, weights):")
    for rollouts in (8_192, 16_384, 32_768, 65_536, 131_072):
        batch = batch_of(rollouts, 1)
        scores = batch["token_level_rewards"].sum(-1)

        def focal_part(index: Any = batch["index"], scores: torch.Tensor = scores) -> torch.Tensor:
            return focal_weight(success_rate(scores, group_codes(index)[0]), 0.5)

        (seconds,) = best_times([focal_part], given.repeats)
        print(f"{rollouts:>8} rollouts {1e3 * seconds:8.2f} ms {1e9 * seconds / rollouts:8.0f} ns a rollout")


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, sys.argv[1:]))
