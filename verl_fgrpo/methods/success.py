"""Which rollouts succeeded, and how often a prompt is solved: from the best source at hand. No verl."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verl_fgrpo.core.focal import mean_reward_success_rate, success_rate
from verl_fgrpo.methods.settings import FocalConfig


@dataclass(frozen=True)
class Reported:
    """What the reward function says of each rollout's success, beside its reward.

    Attributes:
        acc: (B,) float, its own `acc`, 0 or 1; NaN where it reports none.
        scores: (B,) float, the bare number it returned, before verl's penalty for long responses; NaN where it
            returned a dict.
    """

    acc: torch.Tensor
    scores: torch.Tensor

    def select(self, rows: torch.Tensor) -> "Reported":
        """The same for the rows of an int64 index (R,)."""
        return Reported(self.acc[rows], self.scores[rows])


@dataclass(frozen=True)
class Success:
    """Success of the rollouts of a batch."""

    correct: torch.Tensor  # (B,) bool, on the device of the scores
    rate: torch.Tensor  # (B,) float64, success rate of each rollout's group
    source: str  # what told it: "acc", "threshold", "acc and threshold" or "mean reward"
    scores: torch.Tensor  # (B,) the rewards that told it, before verl's penalty for long responses where that is known

    def select(self, rows: torch.Tensor) -> "Success":
        """The same for the rows of an index or mask (B,)."""
        return Success(self.correct[rows], self.rate[rows], self.source, self.scores[rows])


def reported_success(infos: Sequence[Mapping[str, Any]]) -> Reported | None:
    """Read verl's `reward_extra_info` of every rollout.

    A function that returns a dict is known by the key `score`; its `acc` tells success. For one that returns a bare
    number verl stores that number as `acc`, before its penalty for long responses: it is the score to compare with
    the threshold, and where other rollouts have an `acc` of their own, a 0 or 1 counts as one (verl writes acc 0.0 for
    a reward that ran out of time).

    Args:
        infos: (B,) one mapping per rollout.

    Returns:
        What it says, or None if it says nothing.

    Raises:
        ValueError: an `acc` other than 0 and 1 (True and False), or one rollout without it among others that have it.
    """
    has_own = any("score" in info and "acc" in info for info in infos)
    acc, scores = [], []
    for row, info in enumerate(infos):
        if has_own and "acc" not in info:
            raise ValueError(
                f"the reward function reports acc for some rollouts, but none for rollout {row}, and success must be "
                "told the same way in the whole batch; return acc in every dict, for errors and time-outs too (0.0 "
                "there)"
            )
        number = _number(info.get("acc"))
        own = has_own and number in (0.0, 1.0)
        if "score" in info and "acc" in info and not own:
            raise ValueError(
                f"the reward function reports acc={info['acc']!r} for rollout {row}, but acc must tell success as "
                "0 or 1 (or a bool); return such a value, or leave acc out and set "
                "algorithm.focal_success_threshold to a score between wrong and correct"
            )
        acc.append(number if own else float("nan"))
        scores.append(float("nan") if own or "score" in info else number)
    reported = Reported(torch.tensor(acc, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64))
    return None if bool((reported.acc.isnan() & reported.scores.isnan()).all()) else reported


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def judge(
    scores: torch.Tensor,
    codes: torch.Tensor,
    settings: FocalConfig,
    reported: Reported | None = None,
    data_sources: Sequence[str] | None = None,
) -> Success:
    """Success of every rollout and success rate of its group, from the best source that is there.

    `algorithm.f_grpo_reward_correct` or `_wrong` set: mu = clamp((mean R - Rw) / (Rc - Rw), 0, 1), whatever `acc` says;
    a rollout then counts as correct by its `acc`, else above the middle of Rc and Rw. Otherwise mu = X / N, where a
    rollout is correct by the reward's own `acc`, else if its score is above the threshold of its data source.

    Args:
        scores: (B,) summed reward before any KL penalty.
        codes: (B,) int64 group numbers.
        settings: of the run.
        reported: what the reward function says beside.
        data_sources: (B,) needed with `focal_success_threshold_by_source`.

    Returns:
        Every rollout counts, also one whose tokens were all rejected: it still tells how hard the prompt is.

    Raises:
        ValueError: thresholds by source, and nobody knows the sources.
    """
    codes = codes.to(scores.device)
    if reported is not None:
        base = reported.scores.to(scores.device, scores.dtype)
        scores = torch.where(base.isnan(), scores, base)
    acc = None if reported is None else reported.acc.to(scores.device)
    known = None if acc is None else ~acc.isnan()
    all_known = known is not None and bool(known.all())
    correct = (
        torch.zeros_like(scores, dtype=torch.bool) if all_known else scores > _threshold(settings, scores, data_sources)
    )
    if acc is not None and known is not None:
        correct = torch.where(known, acc > 0.5, correct)
    if settings.rewards is not None:
        return Success(correct, mean_reward_success_rate(scores, codes, *settings.rewards), "mean reward", scores)
    source = "acc" if all_known else "acc and threshold" if known is not None and bool(known.any()) else "threshold"
    return Success(correct, success_rate(correct.to(torch.float64), codes), source, scores)


def _threshold(settings: FocalConfig, scores: torch.Tensor, data_sources: Sequence[str] | None) -> float | torch.Tensor:
    """The threshold, a number, or one per rollout where sources have their own."""
    by_source = settings.threshold_by_source
    if settings.rewards is not None or not by_source:
        return settings.threshold_of(None)
    if data_sources is None:
        raise ValueError(
            f"algorithm.focal_success_threshold_by_source names {', '.join(by_source)}, but this batch does not tell "
            "the data_source of its rollouts; train through verl.trainer.ppo.ray_trainer.compute_advantage with "
            "data_source in non_tensor_batch, or use algorithm.focal_success_threshold"
        )
    values = [settings.threshold_of(source) for source in data_sources]
    return torch.tensor(values, dtype=scores.dtype, device=scores.device)
