"""What a trainer of verl_fgrpo hands to an estimator beyond the arguments that verl gives it. No verl."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch


@dataclass
class Handover:
    """Data of one batch beyond verl's own arguments; rows as in the estimator's batch.

    Args:
        log_probs: (B, T) log-probabilities of the response tokens under the sampling policy (verl's old_log_probs).
        raw_scores: (B,) summed reward before any KL penalty.
        accuracy: (B,) the reward function's own `acc`.
        sessions: (B,) session of each row; the outputs of one session share it.
        final: (B,) bool, true for the last output of its session.
        metrics: estimators add to it, the trainer logs it.
    """

    log_probs: torch.Tensor | None = None
    raw_scores: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None
    sessions: list[str] | None = None
    final: torch.Tensor | None = None
    metrics: dict[str, float] = field(default_factory=dict)


_current: ContextVar[Handover | None] = ContextVar("verl_fgrpo_handover", default=None)


@contextmanager
def handing_over(handover: Handover) -> Iterator[None]:
    """Make `handover` what `handed_over()` returns inside the block."""
    token = _current.set(handover)
    try:
        yield
    finally:
        _current.reset(token)


def handed_over() -> Handover | None:
    """What the trainer handed over; None outside of its modes."""
    return _current.get()
