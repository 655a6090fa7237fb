"""What an estimator knows beyond verl's own arguments: put there by the host room, read by estimators. No verl.

verl calls an estimator with rewards, mask, uids and config. The reward function's own `acc`, the reward before a KL
penalty, log-probabilities, sessions of an agent loop and a place for metrics reach it through here:

    with using_context(EstimatorContext(...)):
        verl computes advantages             # in there, the estimator calls current_context()
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from verl_fgrpo.methods.success import Reported, reported_success


@dataclass
class Run:
    """What is remembered of one training run, over its steps."""

    # groups with unequal rewards so far, by data source ("" where unknown): all, those with 0 < mu < 1
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)  # data sources about which the user was warned
    announced: bool = False  # whether the line of proof stands in the log
    checked: bool = False  # whether the configuration of the run was checked
    notes: dict[str, Any] = field(default_factory=dict)  # whatever a method keeps, under its own name


@dataclass(frozen=True)
class EstimatorContext:
    """One step of a run as an estimator may know it; rows as in the estimator's batch, None where nobody knows."""

    # (B, T) log-probabilities of the response tokens under the sampling policy (verl's `old_log_probs`)
    log_probs: torch.Tensor | None = None
    raw_scores: torch.Tensor | None = None  # (B,) summed reward before any KL penalty
    reported: Reported | None = None  # what the reward function itself says of success
    data_sources: Sequence[str] | None = None  # (B,) verl's `data_source` of each row
    sessions: list[str] | None = None  # (B,) session of each row; the outputs of one agent-loop session share it
    final: torch.Tensor | None = None  # (B,) bool, the last output of its session
    padding: torch.Tensor | None = None  # (B,) bool, a row with which verl filled the batch up
    varying_groups: bool = False  # whether the data set the number of rollouts per prompt (`__rollout_n__`)
    # mean entropy of the policy over the step's response tokens, nats; for methods that need "entropy"
    entropy: float | None = None
    step: int | None = None  # global step of the run
    folder: Path | None = None  # where the run keeps its checkpoints
    run: Run | None = None  # what is remembered over steps; a method may keep its state in `run.notes`
    metrics: dict[str, float] | None = None  # what is to be logged of the step; None where nothing logs

    def completed(
        self, batch: Mapping[str, Any] | None, non_tensor_batch: Mapping[str, Any] | None
    ) -> "EstimatorContext":
        """With what verl's batch holds, where nothing better is known yet.

        Args:
            batch: tensors of verl's DataProto; used are `old_log_probs` and `token_level_scores`.
            non_tensor_batch: arrays of it; used are the reward's `acc` and `score`, `data_source`, `__rollout_n__`.

        Raises:
            ValueError: the reward function reports an `acc` that tells nothing (`reported_success`).
        """
        tensors, arrays = batch if batch is not None else {}, non_tensor_batch or {}
        found: dict[str, Any] = {}
        if self.log_probs is None and "old_log_probs" in tensors.keys():  # noqa: SIM118 (maybe a TensorDict)
            found["log_probs"] = tensors["old_log_probs"]
        if self.raw_scores is None and "token_level_scores" in tensors.keys():  # noqa: SIM118
            found["raw_scores"] = tensors["token_level_scores"].sum(dim=-1)
        if self.reported is None and "acc" in arrays:
            columns = {name: arrays[name] for name in ("acc", "score") if name in arrays}
            rows = range(len(columns["acc"]))
            infos = [{name: column[row] for name, column in columns.items() if column[row] is not None} for row in rows]
            found["reported"] = reported_success(infos)
        if self.data_sources is None and "data_source" in arrays:
            found["data_sources"] = [str(source) for source in arrays["data_source"]]
        if "__rollout_n__" in arrays:
            found["varying_groups"] = True
        return replace(self, **found) if found else self

    def select(self, rows: torch.Tensor) -> "EstimatorContext":
        """The same for the rows of an int64 index (R,); `run` and `metrics` stay the same objects."""

        def part(values: Any) -> Any:
            if values is None:
                return None
            if isinstance(values, Reported):
                return values.select(rows)
            if isinstance(values, torch.Tensor):
                return values[rows.to(values.device)]
            return [values[row] for row in rows.tolist()]

        by_row = ("log_probs", "raw_scores", "reported", "data_sources", "sessions", "final", "padding")
        return replace(self, **{name: part(getattr(self, name)) for name in by_row})


_current: ContextVar[EstimatorContext | None] = ContextVar("verl_fgrpo_context", default=None)


@contextmanager
def using_context(context: EstimatorContext) -> Iterator[None]:
    """While this is open, `current_context()` returns `context`, in this thread or task alone."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def current_context() -> EstimatorContext | None:
    """What is known of the step, or None where an estimator is called outside a trainer of verl."""
    return _current.get()


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
