"""Sequential sampling: every problem until its r-th correct sample or a cap, in rounds of sampling and grading.

What to draw next follows from the stored samples and verdicts alone, so a run that was interrupted anywhere goes on
where it was. How the numbers are estimated: `core.passk.sequential_pass_at_k`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.files import typed
from verl_fgrpo.evaluation.counts import StopRule
from verl_fgrpo.evaluation.generation import Backend, Decoding, sample_run
from verl_fgrpo.evaluation.graders import DEFAULTS, GraderOptions
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.problems import Problem, ProblemKey, load_problems
from verl_fgrpo.evaluation.samples import SampleStore, VerdictStore
from verl_fgrpo.evaluation.summary import ProblemSamples, collect
from verl_fgrpo.evaluation.workers import DEFAULT_LIMITS, Limits


def next_targets(
    graded: Mapping[ProblemKey, ProblemSamples], keys: Sequence[ProblemKey], rule: StopRule
) -> dict[ProblemKey, int]:
    """How many samples each unfinished problem shall have after the next round.

    The first round draws r samples of every problem, the least that any needs. Afterwards a problem with c of n correct
    gets what its rate says it still needs, (r - c) * n / c samples, at least r - c and at most as many as it has: one
    round at most doubles it, so little is drawn beyond the stop. Only samples before the first missing index count.

    Problems that are done have no target.
    """
    r, cap = rule.stop_after_correct or rule.num_samples, rule.num_samples
    targets = {}
    for key in keys:
        correct = _without_gap(graded[key], cap) if key in graded else np.empty(0, bool)
        n, c = len(correct), int(correct.sum())
        if key in graded and graded[key].refused or c >= r or n >= cap:
            continue
        more = n if c == 0 else math.ceil((r - c) * n / c)
        targets[key] = r if n < r else min(cap, n + min(n, max(r - c, more)))
    return targets


def _without_gap(samples: ProblemSamples, cap: int) -> NDArray[np.bool_]:
    """Right or wrong, of samples 0, 1, ... up to the first that is missing (or the cap)."""
    n = int(np.argmin(np.append(samples.indices == np.arange(len(samples)), False)))
    return samples.correct[: min(n, cap)]


def sample_until_correct(
    run: Path,
    problems: Sequence[Problem],
    backend: Backend,
    rule: StopRule,
    decoding: Decoding,
    preset: str,
    num_workers: int = 1,
    progress: bool = True,
    retry_refused: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> SampleStore:
    """Sample and grade in rounds until every problem is at its stop; interrupt it in any way and call it again.

    Grading, by `num_workers` processes, uses the settings of RUN/verdicts if there are verdicts, else the defaults.
    `say` takes a line after every round; the rest as for `generation.sample_run`.
    """
    keys = [problem.key for problem in problems]
    limits, options = _grading(run)
    targets = dict.fromkeys(keys, 0)  # nothing to draw: what an earlier session left ungraded is graded first
    rounds = 0
    while True:
        store = sample_run(run, problems, backend, targets, decoding, preset, progress, retry_refused, say)
        retry_refused = False
        rule.save(run)
        asked = load_problems([run / "problems.jsonl"])
        grade_store(store, run / "verdicts", asked, limits, num_workers, options, progress)
        graded = graded_so_far(run)
        if rounds:
            say(f"round {rounds}: {_progress(graded, keys, rule)}")
        left = next_targets(graded, keys, rule)
        if not left:
            return store
        targets = {key: left.get(key, 0) for key in keys}
        rounds += 1


def _progress(graded: Mapping[ProblemKey, ProblemSamples], keys: Sequence[ProblemKey], rule: StopRule) -> str:
    done = len(keys) - len(next_targets(graded, keys, rule))
    drawn = sum(len(graded[key]) for key in keys if key in graded)
    return f"{done:,} of {len(keys):,} problems done, {drawn:,} samples; {expected_text(graded, keys, rule)}"


def expected_draws(
    graded: Mapping[ProblemKey, ProblemSamples], keys: Sequence[ProblemKey], rule: StopRule
) -> float | None:
    """Samples a problem that the rule is expected to count in the end, from what is graded so far; None before.

    A problem with c of n correct has a success rate from Beta(1/4 + c, 9/10 + n - c), the prior being that of
    `power.World`; its r-th correct sample then comes after a negative binomial number of samples, cut at the cap.
    """
    pilot = [graded[key] for key in keys if key in graded and len(graded[key])]
    r, cap = rule.stop_after_correct, rule.num_samples
    if not pilot or r is None:
        return None
    n, c = (np.array([count(one) for one in pilot])[:, None] for count in (len, lambda one: int(one.correct.sum())))
    rng = np.random.default_rng(0)
    rates = rng.beta(0.25 + c, 0.9 + n - c, (len(pilot), 200))
    return float(np.minimum(cap, r + rng.negative_binomial(r, np.maximum(rates, 1e-9))).mean())


def expected_text(graded: Mapping[ProblemKey, ProblemSamples], keys: Sequence[ProblemKey], rule: StopRule) -> str:
    """The expected saving in one line."""
    expected = expected_draws(graded, keys, rule)
    if expected is None:
        return (
            f"expected saving: unknown before a pilot round; draw and grade one with --num-samples "
            f"{2 * (rule.stop_after_correct or 1)} or so"
        )
    share = expected / rule.num_samples
    return f"expected: {expected:.0f} samples a problem instead of {rule.num_samples} ({share:.0%})"


def graded_so_far(run: Path) -> dict[ProblemKey, ProblemSamples]:
    """Verdicts of a run; empty before there are any."""
    if not (run / "verdicts" / "manifest.json").exists():
        return {}
    return dict(collect(VerdictStore(run / "verdicts").read()).problems)


def _grading(run: Path) -> tuple[Limits, GraderOptions]:
    folder = run / "verdicts"
    if not (folder / "manifest.json").exists():
        return DEFAULT_LIMITS, DEFAULTS
    settings = VerdictStore(folder).settings
    return typed(settings, Limits, folder), typed(settings.get("options", {}), GraderOptions, folder)
