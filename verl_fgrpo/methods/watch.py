"""What is said about a step: its metrics, one line of proof at the first update, and thresholds that tell nothing."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from verl_fgrpo.core.groups import group_is_constant, group_sum
from verl_fgrpo.methods.context import EstimatorContext, Run
from verl_fgrpo.methods.metrics import count_groups, group_metrics, weight_metrics
from verl_fgrpo.methods.settings import FocalConfig
from verl_fgrpo.methods.success import Success

logger = logging.getLogger("verl_fgrpo")

WARN_AFTER = 16  # groups with unequal rewards
STOP_AFTER = 64


@dataclass(frozen=True)
class Observed:
    """The rollouts of a step, one row each: group number, summed reward before KL, success, whether it has tokens."""

    codes: torch.Tensor
    raw_scores: torch.Tensor
    success: Success
    has_tokens: torch.Tensor


def observe_step(
    name: str,
    rollouts: Observed,
    settings: FocalConfig,
    context: EstimatorContext,
    weight: torch.Tensor | None,
    magnitude: torch.Tensor,
) -> None:
    """Write the metrics of a step into `context.metrics`, the proof into the log once a run, and judge the threshold.

    Args:
        name: of the estimator or loss.
        rollouts: (B,) rows.
        settings: of the focal weight.
        context: of the step; its `padding` tells rows that are no rollouts, else groups without tokens are none.
        weight: (B,) or (B, 1) focal weight of each rollout; None where none is applied.
        magnitude: (B,) sum over a rollout's response tokens of |A| before weighting.

    Raises:
        ValueError: a threshold that separates no group of the first `STOP_AFTER` (`judge_threshold`), or rewards that
            one of the official keys would have to name (`judge_rewards`).
    """
    assert context.metrics is not None
    codes, success = rollouts.codes, rollouts.success
    keep = group_sum(rollouts.has_tokens, codes) > 0 if context.padding is None else ~context.padding.to(codes.device)
    if not bool(keep.any()):
        return
    codes = torch.unique(codes[keep], return_inverse=True)[1]
    success = success.select(keep)
    correct, size = count_groups(success.correct, codes)
    metrics = group_metrics(correct, size)
    member = torch.zeros(len(size), dtype=torch.int64, device=codes.device)
    member[codes] = torch.arange(len(codes), device=codes.device)  # one row of each group
    rate = success.rate[member]
    unequal = ~group_is_constant(rollouts.raw_scores[keep], codes)[member]
    mixed = (rate > 0) & (rate < 1)
    metrics["focal/unexplained_groups"] = float((unequal & ~mixed).sum())
    if weight is not None:
        metrics |= weight_metrics(weight.reshape(-1)[keep], magnitude[keep], codes)
    context.metrics.update(metrics)
    run = context.run
    if run is None:
        return
    if not run.announced:
        run.announced = True
        logger.info(_proof(name, settings, success, size, metrics))
    weighs = weight is not None and settings.gamma > 0
    if settings.rewards is not None:
        judge_rewards(run, success.scores, settings, weighs and int(unequal.sum()) >= WARN_AFTER)
    if success.source != "acc":
        rows = keep.nonzero().squeeze(1)[member].tolist()
        sources = [""] * len(rows) if context.data_sources is None else [context.data_sources[row] for row in rows]
        stops = weighs and success.source == "threshold"
        span = (float(success.scores.min()), float(success.scores.max()))
        judge_threshold(run, sources, unequal.cpu().numpy(), mixed.cpu().numpy(), span, settings, stops)


def _proof(
    name: str, settings: FocalConfig, success: Success, size: NDArray[np.int64], metrics: dict[str, float]
) -> str:
    """The one line that tells what is weighted by what."""
    rollouts = str(size.min()) if size.min() == size.max() else f"{size.min()} to {size.max()}"
    weight = metrics.get("focal/weight_mean")
    weighted = (
        "no focal weight"
        if weight is None
        else f"gamma {settings.gamma:g} ({settings.gamma_key or 'the default'})"
        + (", normalised" if settings.normalize else "")
    )
    mean = "" if weight is None else f", mean weight {weight:.4f}"
    return (
        f"verl_fgrpo: first update by {name}: {weighted}; success told by {success.source}; {len(size)} groups x "
        f"{rollouts} rollouts{mean}, {100 * metrics['focal/active_share']:.0f} % of the groups active"
    )


def judge_rewards(run: Run, scores: torch.Tensor, settings: FocalConfig, stops: bool) -> None:
    """Notice rewards beyond the one of `f_grpo_reward_wrong` and `_correct` that is not set: -1/1 with its default 0.

    Args:
        run: in which it is told once.
        scores: (B,) rewards of the step.
        settings: with `rewards`.
        stops: whether it ends the run; only if the step has two rewards, so that no penalty or bonus explains them.

    Raises:
        ValueError: see `stops`.
    """
    assert settings.rewards is not None
    wrong, correct = settings.rewards
    low, high = float(scores.min()), float(scores.max())
    seen = {"f_grpo_reward_wrong": min(low, wrong), "f_grpo_reward_correct": max(high, correct)}
    key, default = settings.default_reward, wrong if settings.default_reward == "f_grpo_reward_wrong" else correct
    if not key or abs(seen[key] - default) < 1e-6:
        return
    text = (
        f"rewards of this step are {low:g} to {high:g}, but algorithm.{key} is not set and its default is {default:g}, "
        f"so that the mean reward is no success rate; set +algorithm.{key}={seen[key]:g}, or {default:g} if rewards "
        "beyond it are a penalty or a bonus"
    )
    if stops and len(torch.unique(scores)) == 2:
        raise ValueError(text)
    if key not in run.warned:
        run.warned.add(key)
        logger.warning(text)


def judge_threshold(
    run: Run,
    sources: list[str],
    unequal: NDArray[np.bool_],
    mixed: NDArray[np.bool_],
    span: tuple[float, float],
    settings: FocalConfig,
    stops: bool,
) -> None:
    """Notice a threshold unfit for the rewards: groups with unequal rewards, and yet a success rate of 0 or 1.

    Args:
        run: whose groups are counted.
        sources: (G,) data source of each group, "" where unknown.
        unequal, mixed: (G,) whether a group's rewards differ, and whether 0 < mu < 1.
        span: lowest and highest reward of the step.
        settings: of the focal weight.
        stops: whether it ends the run that none of the first `STOP_AFTER` groups is mixed.

    Raises:
        ValueError: none of at least `STOP_AFTER` groups with unequal rewards of a source is mixed.
    """
    for source in dict.fromkeys(sources):
        here = np.array([name == source for name in sources])
        active, told = run.groups.get(source, (0, 0))
        active, told = active + int((unequal & here).sum()), told + int((unequal & mixed & here).sum())
        run.groups[source] = (active, told)
        of_source = f" of {source}" if source else ""
        told_by = f"threshold {settings.threshold_of(source):g}"
        remedy = (
            "set algorithm.focal_success_threshold between the rewards of wrong and correct rollouts, return acc from "
            "the reward function, or for partial credit set +algorithm.f_grpo_reward_correct and "
            "+algorithm.f_grpo_gamma"
        )
        if settings.rewards is not None:
            told_by = "f_grpo_reward_wrong {:g}, f_grpo_reward_correct {:g}".format(*settings.rewards)
            remedy = "set these two to the rewards of wrong and correct rollouts"
        text = (
            f"{active - told} of {active} groups{of_source} with unequal rewards have a success rate of 0 or 1 "
            f"({told_by}, rewards of this step {span[0]:g} to {span[1]:g}), so the focal weight cannot tell them "
            f"apart; {remedy}"
        )
        if stops and told == 0 and active >= STOP_AFTER:
            raise ValueError(text)
        if active >= WARN_AFTER and 2 * told < active and source not in run.warned:
            run.warned.add(source)
            logger.warning(text)
