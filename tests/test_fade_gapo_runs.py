"""FADE and GAPO in verl's own trainer: advantages, schedule and clip bounds recomputed from the dumped rollouts."""

import json

import numpy as np
import pytest
from test_verl_runs import GROUP, run_verl, success_rates

from verl_fgrpo.methods.fade import FILE

pytestmark = [pytest.mark.full, pytest.mark.verl_start]


def test_fade_trains_and_a_resumed_run_goes_on_with_its_averages(mazes, tmp_path):
    run = tmp_path / "fade"
    logged, _ = run_verl(mazes, run, "+focal=fade", "trainer.total_training_steps=2", "trainer.save_freq=2")
    resumed, _ = run_verl(mazes, run, "+focal=fade", "trainer.total_training_steps=3")
    assert (set(logged), set(resumed)) == ({1, 2}, {3})
    p, h = 0.5, logged[1]["actor/entropy"]
    target = h / 2
    for step, metrics in (logged | resumed).items():
        rates = np.array(list(success_rates(run, step).values()))
        p = 0.98 * p + 0.02 * rates.mean()
        h = 0.98 * h + 0.02 * metrics["actor/entropy"]
        alpha, delta = np.clip(1.5 * (1 - p) / p, 1, 3), np.clip(1 + h - target, 0.3, 1)
        expected = [alpha, delta, p, h]
        assert [metrics[f"fade/{name}"] for name in ("alpha", "delta", "solve_rate", "entropy")] == pytest.approx(
            expected, rel=1e-5
        )
        active = rates[(rates > 0) & (rates < 1)]
        assert len(active), "the start model must solve some mazes sometimes, or nothing is tested"
        weight = (1 - active) ** (alpha - 1)
        assert metrics["critic/advantages/max"] == pytest.approx((weight * (1 - active)).max(), rel=1e-5)
        assert metrics["critic/advantages/min"] == pytest.approx((-weight * active / delta).min(), rel=1e-5)
    assert [json.loads(line)["step"] for line in (run / FILE).read_text().splitlines()] == [1, 2, 3]


def test_gapo_trains_with_the_bounds_of_its_groups(mazes, tmp_path):
    run = tmp_path / "gapo"
    logged, _ = run_verl(mazes, run, "+focal=gapo", "trainer.total_training_steps=2")
    assert set(logged) == {1, 2}
    for step, metrics in logged.items():
        rates = np.array(list(success_rates(run, step).values()))
        active = rates[(rates > 0) & (rates < 1)]
        assert len(active), "the start model must solve some mazes sometimes, or nothing is tested"
        assert metrics["critic/advantages/max"] == pytest.approx((1 - active).max(), rel=1e-5)
        assert metrics["critic/advantages/min"] == pytest.approx(-active.max(), rel=1e-5)
        # a share mu of the rows of an active group is correct and has 3e-3 + 2e-3 (k - c) / (k - 1), the rest 3e-3
        share = (active * (1 - active)).sum() / len(rates) * GROUP / (GROUP - 1)
        # verl averages over micro-batches, which hold about but not exactly equally many rows
        assert metrics["actor/gapo/clip_high"] - 3e-3 == pytest.approx(2e-3 * share, rel=0.1)
