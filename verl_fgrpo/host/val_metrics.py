"""Unbiased pass@k of every validation, among verl's own metrics: `val-passk/DATA_SOURCE/pass@K`.

verl's `best@k` draws k of the n samples with replacement, which is below pass@k in the mean; `mean@n` is pass@1. Here
it is the unbiased estimator (arXiv 2107.03374, eq. 1) for k = 1, 2, 4, ... and n, so that console, TensorBoard and W&B
show it like any other metric. All that verl computes itself stays as it is.
"""

import functools
import inspect
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from verl_fgrpo.core.dumps import is_success
from verl_fgrpo.core.passk import pass_at_k, powers_of_two
from verl_fgrpo.host.import_hooks import when_imported
from verl_fgrpo.methods.settings import FocalConfig

logger = logging.getLogger("verl_fgrpo")

METHOD = "_val_metrics_update"
#: unweighted mean over data sources, where there are several (arXiv 2602.06717, L.3 compares checkpoints by it)
AVERAGE = "average"
TRAINERS = {"verl.trainer.ppo.v1.trainer_base": "PPOTrainer", "verl.trainer.ppo.ray_trainer": "RayPPOTrainer"}


def install() -> None:
    """Extend `_val_metrics_update` of verl's trainers, each right after its module's first import."""

    def extend(module: ModuleType) -> None:
        trainer = getattr(module, TRAINERS[module.__name__])
        if not hasattr(trainer, METHOD):
            logger.error("verl_fgrpo: %s has no %s, so there is no val-passk/... metric", trainer, METHOD)
        elif not hasattr(getattr(trainer, METHOD), "__verl_fgrpo__"):
            setattr(trainer, METHOD, _extended(getattr(trainer, METHOD)))

    for name in TRAINERS:
        when_imported(name, extend)


def _extended(host: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    signature = inspect.signature(host)

    @functools.wraps(host)
    def _val_metrics_update(self: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = host(self, *args, **kwargs)
        try:
            given = signature.bind(self, *args, **kwargs).arguments
            ours = validation_pass_at_k(
                given["data_sources"],
                given["sample_uids"],
                given["reward_extra_infos_dict"],
                given.get("expected_acc_counts"),
                FocalConfig.from_algorithm(self.config.algorithm),
            )
        except Exception:  # somebody else's run must not end for a metric of ours
            logger.exception("verl_fgrpo could not compute pass@k of this validation; verl's own metrics are complete")
            return metrics
        return metrics | ours

    _val_metrics_update.__verl_fgrpo__ = True  # type: ignore[attr-defined]
    return _val_metrics_update


def validation_pass_at_k(
    data_sources: Sequence[str],
    uids: Sequence[str],
    infos: Mapping[str, Sequence[Any]],
    expected: Mapping[tuple[str, str], int] | None = None,
    settings: FocalConfig | None = None,
) -> dict[str, float]:
    """The metrics of one validation.

    A sample is correct by the reward's own `acc`, else if its reward is above the threshold (`core.dumps.is_success`).
    Sessions that failed are in `expected` and count as wrong, as in verl's own `acc`; so does a sample without an `acc`
    where its data source has one.

    Args:
        data_sources, uids: (B,) of every sample that came back.
        infos: (B,) columns: `reward` and, if the reward function reports it, `acc`; None where a sample has none.
        expected: samples asked for, by (data source, uid); verl's v1 trainers tell it.
        settings: thresholds, default 0.5; with the official keys the middle of the two rewards.

    Returns:
        `val-passk/SOURCE/pass@K` for K = 1, 2, 4, ... and n, the smallest number of samples of the source's prompts;
        with several sources also for the source `average`, where all have that K. NaN if a reward is NaN.
    """
    settings = settings or FocalConfig()
    accs = infos.get("acc") or [None] * len(uids)
    sources = [str(source) for source in data_sources]
    with_acc = {source for source, acc in zip(sources, accs, strict=True) if acc is not None}
    values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for source, uid, acc, reward in zip(sources, map(str, uids), accs, infos["reward"], strict=True):
        if math.isnan(reward if acc is None else acc):
            values[source][uid].append(math.nan)
        else:
            failed = acc is None and source in with_acc
            correct = not failed and is_success(acc, float(reward), settings.threshold_of(source))
            values[source][uid].append(float(correct))
    for (source, uid), count in (expected or {}).items():
        prompt = values[str(source)][str(uid)]
        prompt += [0.0] * (count - len(prompt))
    return {
        f"val-passk/{source}/pass@{k}": value
        for source, by_k in pass_at_k_by_source(
            {
                source: ([len(prompt) for prompt in prompts.values()], [sum(prompt) for prompt in prompts.values()])
                for source, prompts in values.items()
            }
        ).items()
        for k, value in by_k.items()
    }


def pass_at_k_by_source(counts: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> dict[str, dict[int, float]]:
    """pass@k of each source, mean over its prompts, for k = 1, 2, 4, ... and the smallest n; and their average.

    Args:
        counts: source -> numbers of samples and of correct samples, each [prompts]; NaN makes the source's values NaN.

    Returns:
        source -> k -> pass@k; `AVERAGE` last, if there are several sources, for each k that all have.
    """
    found: dict[str, dict[int, float]] = {}
    for source, (samples, correct) in counts.items():
        n = min(samples)
        ks = sorted({*powers_of_two(n), n})
        known = not any(map(math.isnan, correct))
        found[source] = {k: float(np.mean(pass_at_k(samples, correct, k))) if known else math.nan for k in ks}
    if len(found) > 1:
        common = set.intersection(*(set(by_k) for by_k in found.values()))
        found[AVERAGE] = {k: float(np.mean([by_k[k] for by_k in found.values()])) for k in sorted(common)}
    return found
