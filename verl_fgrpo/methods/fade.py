"""FADE: focal advantages whose exponent and sign balance follow the training (arXiv 2607.01490). No verl."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from verl_fgrpo.core.focal import focal_weight
from verl_fgrpo.methods.settings import MethodConfig

FILE = "fade_state.jsonl"  # beside verl's checkpoints


@dataclass(frozen=True)
class FadeState:
    """What FADE remembers after a step."""

    step: int  # global step of the run, from 1
    solve_rate: float  # p, moving average of the batch's success rate; starts from 0.5
    entropy: float  # H, moving average of the mean token entropy, nats; starts from that of the start policy
    entropy_target: float  # H*


def start_state(entropy: float, settings: MethodConfig) -> FadeState:
    """Before the first step: p = 0.5, H = entropy of the start policy, H* = `fade_entropy_target` or half of it.

    Args:
        entropy: mean token entropy of the first batch, which the start policy has sampled; nats.
        settings: with `fade_entropy_target`.
    """
    target = settings.fade_entropy_target
    return FadeState(0, 0.5, entropy, 0.5 * entropy if target is None else target)


def schedule(
    state: FadeState, step: int, solve_rate: float, entropy: float, settings: MethodConfig
) -> tuple[FadeState, float, float]:
    """Take a step's batch into the moving averages and read exponent and sign balance off them.

        p <- (1 - b) p + b * solve_rate        alpha = clip(3 (1 - p) / (2 p), 1, alpha_max)
        H <- (1 - b) H + b * entropy           delta = clip(1 + H - H*, delta_min, 1)

    Source: arXiv 2607.01490, of which its abstract and two digests were read, not the text; there is no public code.
    The digests agree on alpha, delta and b = 0.02, and that the averages are brought up to date first. They leave open
    which way the average runs (one prints p <- b p + (1 - b) solve_rate; that is `fade_ema=0.98` here, and hardly an
    average); where entropy is measured (here: verl's `actor/entropy` forward pass over the batch, before the update,
    mean over response tokens); whether H* follows the start entropy (here: half of it unless it is set; they found that
    best and name 1.0 and 1.3).

    Args:
        state: after the step before.
        step: global step.
        solve_rate: share of correct rollouts of the batch.
        entropy: mean entropy of the policy over its response tokens, nats.
        settings: with `fade_ema` (b), `fade_alpha_max`, `fade_delta_min`.

    Returns:
        The state after this step, alpha, delta.
    """
    b = settings.fade_ema
    p = (1.0 - b) * state.solve_rate + b * solve_rate
    h = (1.0 - b) * state.entropy + b * entropy
    alpha_max = settings.fade_alpha_max
    alpha = alpha_max if p == 0 else min(max(1.5 * (1.0 - p) / p, 1.0), alpha_max)
    delta = min(max(1.0 + h - state.entropy_target, settings.fade_delta_min), 1.0)
    return replace(state, step=step, solve_rate=p, entropy=h), alpha, delta


def fade_advantages(centred: torch.Tensor, mu: torch.Tensor, alpha: float, delta: float) -> torch.Tensor:
    """FADE's advantages.

        A_i = (1 - mu) ** (alpha - 1) * (r_i - mean r),   divided by delta where r_i < mean r

    Source: arXiv 2607.01490 (see `schedule`). delta = 1 is its "Power alpha": std-free GRPO with the focal weight at
    gamma = alpha - 1. A rollout at the mean has advantage 0 on either side. Groups that are all right or all wrong
    get 0.

    Args:
        centred: (B,) r_i - mean r of the rollout's group: verl's GRPO without the std.
        mu: (B,) success rate of the rollout's group; the mean reward for rewards of 0/1.
        alpha: exponent, at least 1.
        delta: above 0; below 1 wrong rollouts count more.

    Returns:
        (B,) advantages, dtype of `centred`.
    """
    focal = centred * focal_weight(mu, alpha - 1.0).to(centred.dtype)
    return torch.where(focal < 0, focal / delta, focal)


def save_state(folder: Path, state: FadeState) -> None:
    """Append the state to the run's file, one JSON line a step, and sync it: it must not be behind the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a") as handle:
        handle.write(json.dumps(asdict(state)) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def load_state(folder: Path, step: int) -> FadeState:
    """The state after `step`, from which a resumed run goes on. Of several (a run resumed before) the newest counts.

    Raises:
        ValueError: there is none.
    """
    file, found = folder / FILE, None
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            state = FadeState(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut off by a kill; the step it belonged to is done again
        found = state if state.step == step else found
    if found is None:
        raise ValueError(
            f"fade goes on after step {step}, but {file} has no state of that step, so its moving averages are lost; "
            "resume the run in the folder where it was trained with fade, or start it anew in another "
            "trainer.default_local_dir"
        )
    return found
