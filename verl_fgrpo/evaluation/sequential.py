"""Sequential sampling: every problem until its r-th correct sample or a cap, in rounds of sampling and grading.

What to draw next follows from the stored samples and verdicts alone, so a run that was interrupted anywhere goes on
where it was. How the numbers are estimated: `core.passk.sequential_pass_at_k`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.files import write_json
from verl_fgrpo.evaluation.generation import Backend, Decoding, sample_run
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.samples import SampleStore, VerdictStore
from verl_fgrpo.evaluation.summary import ProblemSamples, collect
from verl_fgrpo.evaluation.workers import Limits

__all__ = ["StopRule", "expected_draws", "next_targets", "sample_until_correct"]

Key = tuple[str, str]


@dataclass(frozen=True)
class StopRule:
    """Sample until `stop_after_correct` correct samples of a problem, at most `num_samples`; None: always all."""

    num_samples: int
    stop_after_correct: int | None = None

    def __post_init__(self) -> None:
        r = self.stop_after_correct
        if self.num_samples < 1 or (r is not None and not 1 <= r <= self.num_samples):
            raise ValueError(
                f"num_samples={self.num_samples} and stop_after_correct={r}: the second must lie between 1 and the first"
            )

    def save(self, run: Path) -> None:
        """Keep the rule in RUN/plan.json: how the samples are counted depends on it."""
        write_json(run / "plan.json", asdict(self))


def next_targets(graded: Mapping[Key, ProblemSamples], keys: Sequence[Key], rule: StopRule) -> dict[Key, int]:
    """How many samples each unfinished problem shall have after the next round.

    The first round draws r samples of every problem, the least that any needs. Afterwards a problem with c of n correct
    gets what its rate says it still needs, (r - c) * n / c samples, at least r - c and at most as many as it has: one
    round at most doubles it, so little is drawn beyond the stop.

    Args:
        graded: samples with their verdicts.
        keys: problems of the run.
        rule: with `stop_after_correct`.

    Returns:
        Targets of the problems that need more; empty when all are done.
    """
    r, cap = rule.stop_after_correct or rule.num_samples, rule.num_samples
    targets = {}
    for key in keys:
        samples = graded.get(key)
        n = 0 if samples is None else len(samples.first(cap))
        if samples is None or n < r:
            targets[key] = r
            continue
        c = int(samples.first(cap).correct.sum())
        if samples.refused or c >= r or n >= cap:
            continue
        more = n if c == 0 else int(np.ceil((r - c) * n / c))
        targets[key] = min(cap, n + min(n, max(r - c, more)))
    return targets


def sample_until_correct(
    run: Path,
    problems: Sequence[Problem],
    backend: Backend,
    rule: StopRule,
    decoding: Decoding,
    preset: str,
    num_workers: int = 1,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
    **sampling: Any,
) -> SampleStore:
    """Sample and grade in rounds until every problem is at its stop; interrupt it in any way and call it again.

    Grading uses the settings of RUN/verdicts if there are verdicts, else the defaults.

    Args:
        run, problems, backend, decoding, preset: see `generation.sample_run`.
        rule: with `stop_after_correct`.
        num_workers: grading processes.
        progress: show bars.
        say: takes a line after every round.
        sampling: more of `sample_run`.
    """
    say = say or (lambda line: None)
    keys = [problem.key for problem in problems]
    by_key = dict(zip(keys, problems, strict=True))
    rule.save(run)
    limits, options = _grading(run)
    graded = _graded(run)
    rounds = 0
    while True:
        targets = next_targets(graded, keys, rule)
        if not targets:
            return SampleStore(run / "samples")
        chosen = [by_key[key] for key in targets]
        store = sample_run(run, chosen, backend, targets, decoding, preset, progress, say=say, **sampling)
        grade_store(store, run / "verdicts", problems, limits, num_workers, options, progress)
        graded, before = _graded(run), targets
        rounds += 1
        drawn = sum(len(graded[key]) for key in keys if key in graded)
        left = next_targets(graded, keys, rule)
        if left == before:
            raise RuntimeError(f"a round changed nothing for {len(left)} problems; run the same command again")
        say(
            f"round {rounds}: {len(keys) - len(left):,} of {len(keys):,} problems done, {drawn:,} samples; "
            + expected_text(graded, keys, rule)
        )


def expected_draws(
    graded: Mapping[Key, ProblemSamples], keys: Sequence[Key], rule: StopRule, seed: int = 0, draws: int = 200
) -> float | None:
    """Samples a problem that the rule is expected to count in the end, from what is graded so far; None before.

    A problem with c of n correct has a success rate from Beta(1/4 + c, 9/10 + n - c), the prior being that of
    `power.World`; its r-th correct sample then comes after a negative binomial number of samples, cut at the cap.
    """
    pilot = [graded[key] for key in keys if key in graded and len(graded[key])]
    r, cap = rule.stop_after_correct, rule.num_samples
    if not pilot or r is None:
        return None
    n = np.array([len(one) for one in pilot])[:, None]
    c = np.array([int(one.correct.sum()) for one in pilot])[:, None]
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.25 + c, 0.9 + n - c, (len(pilot), draws))
    return float(np.minimum(cap, r + rng.negative_binomial(r, np.maximum(rates, 1e-9))).mean())


def expected_text(graded: Mapping[Key, ProblemSamples], keys: Sequence[Key], rule: StopRule) -> str:
    """The expected saving in one line."""
    expected = expected_draws(graded, keys, rule)
    if expected is None:
        return (
            f"expected saving: unknown before a pilot round; draw and grade one with --num-samples "
            f"{2 * (rule.stop_after_correct or 1)} or so"
        )
    share = expected / rule.num_samples
    return f"expected: {expected:.0f} samples a problem instead of {rule.num_samples} ({share:.0%})"


def graded_so_far(run: Path) -> dict[Key, ProblemSamples]:
    """Verdicts of a run; empty before there are any."""
    return _graded(run)


def _graded(run: Path) -> dict[Key, ProblemSamples]:
    if not (run / "verdicts" / "manifest.json").exists():
        return {}
    return collect(VerdictStore(run / "verdicts").read()).problems


def _grading(run: Path) -> tuple[Limits, str]:
    import json

    if not (run / "verdicts" / "manifest.json").exists():
        return Limits(), "{}"
    settings = VerdictStore(run / "verdicts").settings
    return Limits(settings["seconds"], settings["memory_mib"]), json.dumps(settings["options"])
