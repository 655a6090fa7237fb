"""Numbers beside pass@k, each as one value per problem, so that one bootstrap over problems serves them all.

| metric | per problem | as an estimate |
| --- | --- | --- |
| AUC@K | area under pass@k over log2 k, 1..K | unbiased |
| pass^k | C(c, k) / C(n, k) | unbiased |
| majority@k | share of k-subsets whose most frequent answer is right | unbiased (Monte Carlo over subsets) |
| distinct answers@k | sum over right answers a of 1 - C(n-f_a, k) / C(n, k) | unbiased for the number among k samples |
| distinct texts@k | the same over right response texts | unbiased for the number among k samples |
| cover@tau | 1 if the estimated success rate is at least tau | plug-in, biased |
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.passk import area_under_curve, pass_at_k_table, pass_hat_k, powers_of_two
from verl_fgrpo.evaluation.summary import ProblemSamples, RunData

TAUS = (0.1, 0.5, 0.9)
UNBIASED = "unbiased"
SUBSETS = "unbiased for k samples"
PLUG_IN = "plug-in, biased"


class Metric(NamedTuple):
    """`values`: [P] one per problem, in the order of `RunData.counted`; `bias`: what kind of estimate their mean is."""

    values: NDArray[np.float64]
    bias: str
    percent: bool


def check_taus(taus: Sequence[float]) -> None:
    """ValueError unless every tau is a success rate above 0."""
    for tau in taus:
        if not 0 < tau <= 1:
            raise ValueError(f"tau={tau} must lie in (0, 1]: it is a success rate")


def common_k(runs: Sequence[RunData], benchmark: str) -> tuple[int, int]:
    """(K of AUC@K, k of the other metrics): the largest powers of two that all runs can serve.

    The number of samples of a sequential run is shaped by its stop: metrics other than pass@k and AUC@K use the first
    r samples of each problem, which are drawn whatever comes out.
    """
    largest, equal = [], []
    for run in runs:
        part = run.counts().of_benchmark(benchmark)
        largest.append(part.largest_k)
        equal.append(_equal_samples(run) or part.largest_k)
    return powers_of_two(min(largest))[-1], powers_of_two(min(equal))[-1]


def problem_metrics(
    run: RunData, benchmark: str, max_k: int, k: int, taus: Sequence[float] = TAUS, seed: int = 0
) -> dict[str, Metric]:
    """{name: metric} of one benchmark of a run; see the table above.

    Args:
        max_k: K of AUC@K; left out below 2.
        k: of the other metrics, at most the samples of every problem (the first r of a sequential run).
        taus: of cover@tau.
        seed: of the subsets of majority@k.
    """
    check_taus(taus)
    counts = run.counts().of_benchmark(benchmark)
    equal = _equal_samples(run)
    counted = run.counted(benchmark).values()
    problems = [samples if equal is None else samples.first(equal) for samples in counted]
    rng = np.random.default_rng(seed)
    found = {}
    if max_k >= 2:
        found[f"AUC@{max_k}"] = Metric(area_under_curve(counts.pass_at_k_curve(max_k)), UNBIASED, True)
    n, c = (np.array([count(one) for one in problems]) for count in (len, lambda one: int(one.correct.sum())))
    found[f"pass^{k}"] = Metric(pass_hat_k(n, c, k), UNBIASED, True)
    found[f"majority@{k}"] = Metric(np.array([majority_at_k(one, k, rng) for one in problems]), UNBIASED, True)
    answers = np.array([_distinct(one, one.answers, k) for one in problems])
    found[f"distinct answers@{k}"] = Metric(answers, SUBSETS, False)
    if all(len(one.texts) for one in problems):
        texts = np.array([_distinct(one, one.texts, k) for one in problems])
        found[f"distinct texts@{k}"] = Metric(texts, SUBSETS, False)
    rates = counts.pass_at_k(1)
    for tau in taus:
        found[f"cover@{tau:g}"] = Metric((rates >= tau - 1e-12).astype(np.float64), PLUG_IN, True)
    return found


def majority_at_k(samples: ProblemSamples, k: int, rng: np.random.Generator, draws: int = 200) -> float:
    """Probability that the most frequent answer among k samples drawn without replacement is correct.

    Source: arXiv 2203.11171. All correct answers are one candidate, whatever their spelling; wrong answers are told
    apart by their extracted text, so two spellings of a wrong answer split its votes. Samples without an answer do not
    vote. A tie of the correct answer with t - 1 others counts 1/t. Monte Carlo over `draws`; exact for k = n.
    """
    correct, voting = samples.correct, samples.answers >= 0
    right = int(np.count_nonzero(correct & voting))
    _, wrong = np.unique(samples.answers[~correct & voting], return_counts=True)
    votes = np.array([right, *wrong, len(samples) - right - wrong.sum()], dtype=np.int64)
    if right == 0:
        return 0.0
    drawn = rng.multivariate_hypergeometric(votes, k, size=1 if k == len(samples) else draws)[:, :-1]
    top = drawn.max(axis=1)
    wins = (drawn[:, 0] == top) & (top > 0)
    return float(np.mean(wins / np.maximum(1, (drawn == top[:, None]).sum(axis=1))))


def _distinct(samples: ProblemSamples, labels: NDArray[np.int64], k: int) -> float:
    """Expected number of different labels of correct samples among k drawn without replacement."""
    chosen = labels[samples.correct]
    _, times = np.unique(chosen[chosen != -1] if labels is samples.answers else chosen, return_counts=True)
    return float(pass_at_k_table(len(samples), k)[times].sum())


def _equal_samples(run: RunData) -> int | None:
    if run.stop_after_correct is None or run.num_samples is None:
        return None
    return min(run.stop_after_correct, run.num_samples)
