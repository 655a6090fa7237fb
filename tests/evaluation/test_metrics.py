"""Counts of a run and the metrics beside pass@k."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from verl_fgrpo.core.passk import auc_at_k, cover_at_tau, pass_at_k
from verl_fgrpo.evaluation.metrics import common_k, majority_at_k, problem_metrics
from verl_fgrpo.evaluation.report import metric_rows
from verl_fgrpo.evaluation.samples import Sample, Verdict
from verl_fgrpo.evaluation.summary import RunData, collect, verdict_rows

Answers = list[tuple[str, str | None]]


def verdicts_of(answers: Answers, benchmark: str = "aime24", problem: str = "p") -> list[Verdict]:
    return [Verdict(benchmark, problem, index, kind, answer, "") for index, (kind, answer) in enumerate(answers)]


def samples_of(verdicts: list[Verdict], texts: list[str] | None = None) -> list[Sample]:
    return [
        Sample(
            row.benchmark,
            row.problem_id,
            row.sample_idx,
            0,
            texts[number] if texts else f"{row.answer}",
            10 * (row.sample_idx + 1),
            "length" if row.sample_idx == 3 else "stop",
        )
        for number, row in enumerate(verdicts)
    ]


def outcomes(text: str) -> Answers:
    """ "1" right, "0" wrong."""
    return [("correct", "yes") if letter == "1" else ("wrong", "no") for letter in text]


def test_majority_golden() -> None:
    # Votes: right 2 (in two spellings), wrong "7" 2, wrong "8" 1, no answer 1.
    rows: Answers = [("correct", "1/2"), ("correct", "0.5"), ("wrong", "7"), ("wrong", "7"), ("wrong", "8")]
    problem = collect(verdicts_of([*rows, ("unparsed", None)])).problems["aime24", "p"]
    rng = np.random.default_rng(0)
    assert majority_at_k(problem, 6, rng) == 0.5  # a tie of two counts a half
    # k = 1: right with probability 2/6. (Monte Carlo: 4 standard errors.)
    assert majority_at_k(problem, 1, rng, draws=20_000) == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 20_000))


def test_metrics_golden() -> None:
    rows = verdicts_of([("correct", "a"), ("correct", "b"), ("wrong", "c"), ("correct", "a")])
    rows += verdicts_of([("wrong", "x"), ("unparsed", None), ("error", None), ("wrong", "x")], problem="q")
    texts = ["a", "b", "c", "a again", "x", "x", "x", "x"]
    data = collect(rows, samples_of(rows, texts))
    assert common_k([data], "aime24") == (4, 4)
    metrics = problem_metrics(data, "aime24", 4, 2, taus=(0.5, 0.8))
    # n = 4, c = 3: all of 2 right in 3 of 6 pairs; "a" (twice) is missed by 1 of 6 pairs, "b" (once) by 3 of 6.
    assert metrics["pass^2"].values.tolist() == pytest.approx([0.5, 0.0])
    assert metrics["distinct answers@2"].values.tolist() == pytest.approx([5 / 6 + 3 / 6, 0.0])
    assert metrics["distinct texts@2"].values.tolist() == pytest.approx([3 * 3 / 6, 0.0])
    assert metrics["cover@0.5"].values.tolist() == [1.0, 0.0] and metrics["cover@0.8"].values.tolist() == [0.0, 0.0]
    assert metrics["AUC@4"].values.mean() == pytest.approx(auc_at_k([4, 4], [3, 0], 4))
    assert metrics["cover@0.5"].values.mean() == cover_at_tau([4, 4], [3, 0], 0.5)
    assert metrics["cover@0.5"].bias == "plug-in, biased" and metrics["AUC@4"].bias == "unbiased"
    assert "distinct texts@2" not in problem_metrics(collect(rows), "aime24", 4, 2)  # verdicts alone know no texts
    assert verdict_rows({"run": data}) == [
        {
            "run": "run",
            "benchmark": "aime24",
            "correct": 3,
            "wrong": 3,
            "unparsed": 1,
            "timeout": 0,
            "error": 1,
            "refused": 0,
        }
    ]


def test_distinct_answers_are_the_mean_over_all_subsets() -> None:
    answers: Answers = [("correct", "a"), ("correct", "a"), ("correct", "b"), ("wrong", "a"), ("wrong", "z")]
    data = collect(verdicts_of(answers))
    for k in range(1, 6):
        subsets = list(itertools.combinations(answers, k))
        expected = np.mean([len({answer for kind, answer in chosen if kind == "correct"}) for chosen in subsets])
        assert problem_metrics(data, "aime24", 4, k)[f"distinct answers@{k}"].values[0] == pytest.approx(expected)


def sequential_run(texts: dict[str, str], stop: int, cap: int) -> RunData:
    rows = [row for problem, text in texts.items() for row in verdicts_of(outcomes(text), problem=problem)]
    return collect(rows, samples_of(rows), num_samples=cap, stop_after_correct=stop)


def test_a_sequential_run_counts_up_to_its_stop() -> None:
    # a stops at its 2nd correct sample, the 3rd; what was drawn in the same round beyond it is kept and not counted.
    data = sequential_run({"a": "101011", "b": "000100", "c": "110000"}, stop=2, cap=6)
    counts = data.counts()
    assert counts.num_samples.tolist() == [3, 6, 2] and counts.num_correct.tolist() == [2, 1, 2]
    assert counts.largest_k == 6 and not data.shortfall()
    # a: 1 of the first 2; b: 1 of 6; c: 1 of the first 1
    np.testing.assert_allclose(counts.pass_at_k(1), [1 / 2, 1 / 6, 1.0])
    assert common_k([data], "aime24") == (4, 2)
    metrics = problem_metrics(data, "aime24", 4, 2)
    assert metrics["pass^2"].values.tolist() == [0.0, 0.0, 1.0]  # of the first two samples, drawn whatever came out
    assert metrics["majority@2"].values.tolist() == [0.5, 0.0, 1.0]


def test_a_problem_short_of_its_stop_is_named_and_not_counted() -> None:
    data = sequential_run({"a": "101", "b": "0001"}, stop=2, cap=6)
    assert data.shortfall() == ["1 problems are not sampled to their stop and are not counted (aime24/b)"]
    assert data.counts().problem_ids == ("a",)
    gap = collect(
        [row for row in verdicts_of(outcomes("0011")) if row.sample_idx != 1], num_samples=6, stop_after_correct=2
    )
    with pytest.raises(ValueError, match="no problem of the run is sampled to its end"):
        gap.counts()  # index 1 is missing: the stop is not known


def test_fixed_and_sequential_runs_agree_where_nothing_was_stopped() -> None:
    data = sequential_run({"a": "010000", "b": "000000"}, stop=2, cap=6)
    for k in range(1, 7):
        np.testing.assert_allclose(data.counts().pass_at_k(k), pass_at_k(6, [1, 0], k))


def test_shortfall_of_a_fixed_run() -> None:
    rows = verdicts_of(outcomes("1010")) + verdicts_of(outcomes("10"), problem="q")
    data = collect(rows, unsampled=(("aime24", "r"),), num_samples=4)
    assert data.shortfall() == [
        "1 problems have no samples and are not counted (aime24/r)",
        "1 problems have fewer than 4 samples (the fewest: 2)",
    ]
    assert not collect(verdicts_of(outcomes("1010"))).shortfall()


def test_a_problem_whose_prompt_was_refused_is_named_and_not_counted() -> None:
    rows = verdicts_of(outcomes("1010"))
    rows += verdicts_of([("refused", None)] * 4, problem="q") + verdicts_of(
        [("correct", "1"), ("refused", None)], problem="r"
    )
    rows[4] = replace(rows[4], detail="no answer in 6 attempts (HTTP 500: |\n)")
    data = collect(rows)
    assert data.counts().problem_ids == ("p",)
    assert data.shortfall() == [
        "2 problems were refused by the server or never answered, the first with 'no answer in 6 attempts (HTTP 500: "
        "|\\n)', and are not counted (aime24/q, aime24/r)"
    ]
    assert verdict_rows({"run": data})[0]["refused"] == 5


def test_a_benchmark_of_which_nothing_counts_has_no_metrics() -> None:
    rows = verdicts_of(outcomes("1010")) + verdicts_of([("refused", None)] * 4, benchmark="math500")
    found = metric_rows({"run": collect(rows)})
    assert {row["benchmark"] for row in found} == {"aime24"}
    assert {row["metric"]: row["value"] for row in found}["pass^4"] == 0.0  # 2 of 4 are right


def test_verdicts_and_samples_must_belong_together() -> None:
    rows = verdicts_of(outcomes("101"))
    samples = samples_of(rows)
    with pytest.raises(ValueError, match="1 samples of aime24/p are not graded yet"):
        collect(rows[:2], samples)
    with pytest.raises(ValueError, match="1 verdicts on aime24/p belong to samples that are gone"):
        collect(rows, samples[:2])
    with pytest.raises(ValueError, match="3 samples of aime24/q are not graded"):
        collect(rows, [*samples, *samples_of(verdicts_of(outcomes("000"), problem="q"))])
    with pytest.raises(ValueError, match="stored twice"):
        collect([*rows, rows[0]], samples)
    with pytest.raises(ValueError, match="verdict 'maybe' must be one of"):
        collect([Verdict("b", "p", 0, "maybe", None, "")])
