"""Power by simulation, and what every interval of a report covers."""

from collections.abc import Iterator

import numpy as np
import pytest

from verl_fgrpo.core.passk import area_under_curve, pass_at_k, pass_at_k_curve, pass_at_k_table, sequential_pass_at_k
from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.power import World, power_rows
from verl_fgrpo.evaluation.significance import bootstrap_columns, paired_subsample_test


def test_without_a_difference_the_test_over_problems_errs_in_five_percent() -> None:
    world = World(spread=1.0)
    rows = power_rows(300, 0.0, 4, [16], simulations=400, world=world)
    # 4 standard errors of 400 simulations
    assert rows[0]["power"] == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))
    assert rows[0]["paper_power"] is not None and rows[0]["m"] == 4


def test_power_grows_with_samples_and_with_the_effect() -> None:
    small = power_rows(400, 0.02, 8, [8, 128], simulations=40)
    large = power_rows(400, 0.06, 8, [8, 128], simulations=40)
    assert small[0]["sd"] > small[1]["sd"] and small[0]["smallest"] > small[1]["smallest"]
    assert large[1]["power"] > small[1]["power"] + 0.15
    assert small[0]["paper_power"] is None  # no m between k and n / 4


def test_the_shift_has_the_effect_asked_for() -> None:
    world = World()
    base, other = world.draw(world.shift_of(0.03, 16, seed=0), (400_000,), np.random.default_rng(5))
    gain = (1 - base) ** 16 - (1 - other) ** 16
    assert gain.mean() == pytest.approx(0.03, abs=4 * gain.std() * np.sqrt(1 / 400_000 + 1 / 200_000))
    with pytest.raises(ValueError, match="is out of reach"):
        world.shift_of(0.9, 1)


def test_a_sequential_plan_draws_fewer_samples_for_the_same_answer() -> None:
    fixed, sequential = (
        power_rows(200, 0.05, 64, [256], simulations=40, stop_after_correct=stop)[0] for stop in (None, 8)
    )
    assert fixed["drawn"] == 256 and 100 < sequential["drawn"] < 170
    assert sequential["paper_power"] is None  # the subsampling test needs a fixed number
    assert sequential["smallest"] == pytest.approx(fixed["smallest"], rel=0.15)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["power", "--problems", "100", "--effect", "5", "--k", "4", "--num-samples", "16", "--simulations", "20"])
    told = capsys.readouterr().out
    assert "100 problems, pass@4, a true difference of 5 points" in told and "| 16 | 16 |" in told
    for arguments, message in (
        (["--effect", "1", "--k", "64", "--num-samples", "32"], "num_samples=32 is below k=64"),
        (["--effect", "1", "--k", "4", "--unsolved", "1"], r"unsolved=1.0 must lie in \[0, 1\)"),
        (["--effect", "1", "--k", "4", "--spread", "-1"], "spread=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            main(["power", *arguments])


def coverage(values: Iterator[np.ndarray], truth: float, paired: Iterator[np.ndarray] | None = None) -> float:
    """Share of simulated runs, columns of [P, runs], whose bootstrap interval holds the truth."""
    columns = np.stack(list(values), axis=1)
    others = None if paired is None else np.stack(list(paired), axis=1)
    bands = bootstrap_columns(columns, others, iterations=1000, rng=1)
    return float(np.mean([band.interval[0] <= truth <= band.interval[1] for band in bands]))


@pytest.mark.full
def test_intervals_over_problems_cover_other_problems() -> None:
    """Target: the mean over all problems of the kind. 2,000 runs of 200 problems x 64 samples: error of 0.5 points."""
    world, runs, size, n = World(), 2000, 200, 64
    rng = np.random.default_rng(0)
    base, other = world.draw(0.3, (runs, size), rng)
    counts, more = rng.binomial(n, base), rng.binomial(n, other)
    everyone, everyone_else = world.draw(0.3, (4_000_000,), np.random.default_rng(9))
    found = {}
    for k in (1, 8, 64):
        table = pass_at_k_table(n, k)
        truth = 1 - (1 - everyone) ** k
        found[f"pass@{k}"] = coverage(map(table.take, counts), truth.mean())
        gain = (1 - everyone) ** k - (1 - everyone_else) ** k
        found[f"difference of pass@{k}"] = coverage(map(table.take, counts), gain.mean(), map(table.take, more))
    curve = area_under_curve(pass_at_k_curve(n, np.arange(n + 1), n))
    rates = np.linspace(0, 1, 20_001)
    area = area_under_curve(1 - (1 - rates[:, None]) ** np.arange(1, n + 1))
    found["AUC@64"] = coverage(map(curve.take, counts), np.interp(everyone, rates, area).mean())
    # r = 4, cap 64
    order = rng.geometric(np.maximum(base, 1e-12)[..., None], (runs, size, 4)).clip(max=n + 1).cumsum(axis=-1)
    reached = (order <= n).sum(axis=-1)
    drawn = np.where(reached == 4, order[..., 3], n)
    for k in (1, 64):
        values = sequential_pass_at_k(drawn, reached, 4, n, k)
        found[f"sequential pass@{k}"] = coverage(iter(values), (1 - (1 - everyone) ** k).mean())
    print({name: f"{100 * share:.1f}%" for name, share in found.items()})
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


@pytest.mark.full
def test_what_the_other_intervals_cover() -> None:
    """cover@tau is biased: its interval covers what n samples show of other problems, not the true share.

    Distinct answers: 6 right answers a problem with shares 1/2, 1/4, ...; the target is the mean among k samples.
    """
    world, runs, size, n, k = World(), 2000, 200, 64, 8
    rng = np.random.default_rng(0)
    rates, _ = world.draw(0.0, (runs, size), rng)
    everyone, _ = world.draw(0.0, (4_000_000,), np.random.default_rng(9))
    shares = np.array([1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]) / 2
    counts = rng.binomial(n, rates)
    shown = np.random.default_rng(8).binomial(n, everyone)
    found = {}
    for tau in (0.1, 0.5, 0.9):
        values = (counts / n >= tau).astype(float)
        found[f"cover@{tau}, what 64 samples show"] = coverage(iter(values), float(np.mean(shown / n >= tau)))
        found[f"cover@{tau}, the true share"] = coverage(iter(values), float(np.mean(everyone >= tau)))
    table = pass_at_k_table(n, k)
    times = rng.multinomial(counts, shares)
    truth = sum(np.mean(1 - (1 - everyone * share) ** k) for share in shares)
    found["distinct answers@8"] = coverage(iter(table[times].sum(axis=-1)), float(truth))
    print({name: f"{100 * share:.1f}%" for name, share in found.items()})
    assert 0.93 <= found["distinct answers@8"] <= 0.97
    # 92% at tau = 0.9: a share of 6% of 200 problems rests on a dozen of them
    assert all(0.91 <= share <= 0.97 for name, share in found.items() if "show" in name), found


@pytest.mark.full
def test_the_subsampling_interval_covers_other_samples_of_the_same_problems() -> None:
    """Target: the true difference on these very problems. m = n / 4: too wide by design (sqrt(3) at k = 1)."""
    world, n, size, k = World(), 256, 200, 8
    rng = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {"these problems, m = n/4": [], "these problems, m = n/2": [], "other problems": []}
    everyone, everyone_else = world.draw(0.3, (4_000_000,), np.random.default_rng(9))
    population = float(np.mean((1 - everyone) ** k - (1 - everyone_else) ** k))
    for _ in range(300):
        base, other = world.draw(0.3, (size,), rng)
        truth = float(np.mean((1 - base) ** k - (1 - other) ** k))
        counts = rng.binomial(n, base), rng.binomial(n, other)
        for m, name in ((64, "these problems, m = n/4"), (128, "these problems, m = n/2")):
            low, high = paired_subsample_test(*counts, n, k, m=m, iterations=1000, rng=1).interval
            hits[name].append(low <= truth <= high)
        hits["other problems"].append(low <= population <= high)
    print({name: f"{100 * np.mean(kept):.1f}%" for name, kept in hits.items()})
    assert np.mean(hits["these problems, m = n/4"]) > 0.985
    assert 0.9 < np.mean(hits["these problems, m = n/2"]) <= 1.0
    assert np.mean(hits["other problems"]) < 0.9  # it is not meant for those


def test_pass_at_k_of_the_mean_is_not_the_mean_of_pass_at_k() -> None:
    # why per-problem values are averaged: one easy and one hard problem, 4 samples each
    assert pass_at_k([4, 4], [4, 0], 2).mean() == 0.5 and float(pass_at_k(8, 4, 2)) > 0.7


@pytest.mark.parametrize(
    ("cap", "samples", "shares"), [(1024, 0.50, [0.50, 0.53, 0.55]), (256, 0.62, [0.62, 0.65, 0.67])]
)
def test_tokens_of_sequential_sampling_where_wrong_answers_are_longer(
    cap: int, samples: float, shares: list[float]
) -> None:
    """docs/evaluation.md: share of the tokens of fixed sampling, wrong answers 1, 1.5 and 2 times as long."""
    rng = np.random.default_rng(0)
    rates, _ = World().draw(0.0, (20_000,), rng)
    drawn, tokens = np.zeros(2), np.zeros((3, 2))
    for some in np.split(rates, 20):
        correct = rng.random((len(some), cap)) < some[:, None]
        counted = np.cumsum(correct, axis=1) - correct < 8  # fewer than 8 correct before it
        drawn += counted.sum(), counted.size
        for number, length in enumerate((1.0, 1.5, 2.0)):
            lengths = np.where(correct, 1.0, length)
            tokens[number] += lengths[counted].sum(), lengths.sum()
    assert drawn[0] / drawn[1] == pytest.approx(samples, abs=0.015)
    assert tokens[:, 0] / tokens[:, 1] == pytest.approx(shares, abs=0.015)
