"""What an estimator needs beyond verl's own arguments, handed over by the trainer modes of `trainer_modes.py`. No verl.

verl calls an estimator with rewards, mask, uids and config. The log-probabilities, the reward function's own `acc`, the
reward before a KL penalty and the sessions of an agent loop reach it through here:

    with handing_over(Handover(raw_scores=..., accuracy=...)):
        trainer computes advantages          # in there, the estimator calls handed_over()
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import numpy as np
import torch

EstimatorFn = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Handover:
    """What a trainer of verl_fgrpo hands to an estimator beyond verl's own arguments; rows as in the estimator's batch.

    Attributes:
        log_probs: (B, T) log-probabilities of the response tokens under the sampling policy (verl's `old_log_probs`).
        raw_scores: (B,) summed reward before any KL penalty.
        accuracy: (B,) the reward function's own `acc`, 0 or 1, or None if it returns none.
        sessions: (B,) session of each row; the outputs of one agent-loop session share it.
        final: (B,) bool, the last output of its session.
        padding: (B,) bool, a row with which verl filled the batch up.
        metrics: what the estimator wants logged; the trainer adds it to the step's metrics.
    """

    log_probs: torch.Tensor | None = None
    raw_scores: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None
    sessions: list[str] | None = None
    final: torch.Tensor | None = None
    padding: torch.Tensor | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def select(self, rows: torch.Tensor) -> "Handover":
        """The same for the rows of an int64 index (R,); `metrics` stays the same object."""

        def of(values: torch.Tensor | None) -> torch.Tensor | None:
            return None if values is None else values[rows.to(values.device)]

        return replace(
            self,
            log_probs=of(self.log_probs),
            raw_scores=of(self.raw_scores),
            accuracy=of(self.accuracy),
            sessions=None if self.sessions is None else [self.sessions[row] for row in rows.tolist()],
            final=of(self.final),
            padding=of(self.padding),
        )


_current: ContextVar[Handover | None] = ContextVar("verl_fgrpo_handover", default=None)


@contextmanager
def handing_over(handover: Handover) -> Iterator[None]:
    """While this is open, `handed_over()` returns `handover`, in this thread or task alone."""
    token = _current.set(handover)
    try:
        yield
    finally:
        _current.reset(token)


def handed_over() -> Handover | None:
    """What the trainer hands over, or None outside the trainer modes of verl_fgrpo."""
    return _current.get()


def correct_rollouts(scores: torch.Tensor, threshold: float, handover: Handover | None) -> torch.Tensor:
    """Which rollouts succeeded, from the best source at hand.

    The reward function's own `acc`; else the raw score (before a KL penalty) above the threshold; else `scores` above
    it. With `acc` the rewards may be shaped in any way and the threshold plays no part.

    Args:
        scores: (B,) summed rewards that the estimator was given.
        threshold: `algorithm.focal_success_threshold`.
        handover: what `handed_over()` returned.

    Returns:
        (B,) bool on the device of `scores`.
    """
    if handover is not None and handover.accuracy is not None:
        return (handover.accuracy > 0.5).to(scores.device)
    if handover is not None and handover.raw_scores is not None:
        return (handover.raw_scores > threshold).to(scores.device)
    return scores > threshold


def reported_accuracy(infos: Sequence[Mapping[str, Any]]) -> torch.Tensor | None:
    """The reward function's own `acc` of every rollout, or None if it reports none.

    For a reward function that returns a bare number, verl stores that number as `acc`; it then tells nothing new. A
    function that returns a dict is known by the key `score`.

    Args:
        infos: (B,) verl's `reward_extra_info` of every rollout.

    Returns:
        (B,) float32 of 0 and 1, or None.

    Raises:
        ValueError: the function reports an `acc` other than 0 and 1 (True and False).
    """
    if not any("score" in info for info in infos) or not all("acc" in info for info in infos):
        return None
    stand_in = False
    values = []
    for row, info in enumerate(infos):
        try:
            values.append(float(info["acc"]))
        except (TypeError, ValueError):
            values.append(float("nan"))
        if values[-1] not in (0.0, 1.0):
            if "score" in info:
                raise ValueError(
                    f"the reward function reports acc={info['acc']!r} for rollout {row}, but acc must tell success as "
                    "0 or 1 (or a bool); return such a value, or leave acc out and set "
                    "algorithm.focal_success_threshold to a score between wrong and correct"
                )
            stand_in = True  # another function of the run returns a bare number, which need not be 0 or 1
    return None if stand_in else torch.tensor(values, dtype=torch.float32)


def sessions_of(keys: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """Split verl's keys `uid_session_index` of agent-loop outputs.

    Args:
        keys: (B,) keys of a batch.

    Returns:
        (B,) `uid_session` of each row, and (B,) bool: the output with the highest index of its session.

    Raises:
        ValueError: a key of another form.
    """
    sessions, indices = [], []
    last: dict[str, int] = {}
    for key in keys:
        session, _, index = key.rpartition("_")
        if "_" not in session or not index.isdigit():
            raise ValueError(f"the batch key {key!r} is not uid_session_index, as verl's agent loops write it")
        sessions.append(session)
        indices.append(int(index))
        last[session] = max(int(index), last.get(session, -1))
    final = [last[session] == index for session, index in zip(sessions, indices, strict=True)]
    return sessions, torch.tensor(final, dtype=torch.bool)


def per_session(estimator: EstimatorFn) -> EstimatorFn:
    """Let a group-relative estimator see one rollout per session: the final output of an agent loop.

    Sessions are told by the handover; without one, or with one output per session, the estimator is called as it is.
    Else it gets the rows of final outputs alone, and every output of a session gets the advantage of the final one
    (read at its first response token), as verl does for `grpo`. So success rates and baselines count a session once.

    Args:
        estimator: verl's calling convention; its advantages are constant over a response.

    Returns:
        An estimator with the same convention, name and docstring.
    """

    @wraps(estimator)
    def estimate(
        token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any = None, **arguments: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        handover = handed_over()
        if handover is None or handover.sessions is None or handover.final is None or bool(handover.final.all()):
            return estimator(
                token_level_rewards=token_level_rewards, response_mask=response_mask, index=index, **arguments
            )
        rows = handover.final.nonzero().squeeze(1)
        number = {handover.sessions[row]: position for position, row in enumerate(rows.tolist())}
        position = torch.tensor([number[session] for session in handover.sessions], device=response_mask.device)
        final_mask = response_mask[rows]
        with handing_over(handover.select(rows)):
            advantages, returns = estimator(
                token_level_rewards=token_level_rewards[rows],
                response_mask=final_mask,
                index=None if index is None else np.asarray(index)[rows.numpy()],
                **{key: value[rows] if isinstance(value, torch.Tensor) else value for key, value in arguments.items()},
            )
        first = (final_mask > 0).to(torch.uint8).argmax(dim=1, keepdim=True)

        def scatter(values: torch.Tensor) -> torch.Tensor:
            return values.gather(1, first)[position] * response_mask

        scattered = scatter(advantages)
        return scattered, scattered if returns is advantages else scatter(returns)

    return estimate
