"""Sequential runs: what is drawn, what is counted, and that nothing can interrupt them."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from coin_run import PROBLEMS, RATES, Coins, answer, run, undisturbed

from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.counts import StopRule
from verl_fgrpo.evaluation.generation import Decoding, sample_run
from verl_fgrpo.evaluation.grading import grade_store
from verl_fgrpo.evaluation.problems import save_problems
from verl_fgrpo.evaluation.samples import SampleStore, Verdict
from verl_fgrpo.evaluation.sequential import expected_draws, expected_text, next_targets
from verl_fgrpo.evaluation.summary import collect, load_run

CAP, STOP = 100, 4


def graded(**outcomes: str) -> dict[tuple[str, str], object]:
    rows = [
        Verdict("b", name, index, "correct" if letter == "1" else "wrong", letter, "")
        for name, letters in outcomes.items()
        for index, letter in enumerate(letters)
        if letter in "01"
    ]
    return dict(collect(rows).problems)


def test_rounds_grow_with_what_a_problem_still_needs() -> None:
    rule = StopRule(64, 4)
    found = graded(done="1111", near="1110", far="0001", never="0000", gap="11.1", end="0" * 64, last="0" * 63)
    names = ["new", *("done", "near", "far", "never", "gap", "end", "last")]
    targets = next_targets(found, [("b", name) for name in names], rule)  # type: ignore[arg-type]
    assert {key[1]: target for key, target in targets.items()} == {
        "new": 4,  # the first round: r samples
        "near": 6,  # 1 missing at a rate of 3/4: 4/3 more, rounded up
        "far": 8,  # 3 missing at 1/4 would be 12 more: at most doubled
        "never": 8,
        "gap": 4,  # index 2 is missing: the two before it count
        "last": 64,  # never above the cap
    }


def check(folder: Path, cap: int = CAP, stop: int = STOP) -> None:
    """Counted samples are those of an undisturbed run, and every stored one is what its seed gives, once."""
    data = load_run(folder)
    counts = data.counts()
    found = dict(zip(counts.problem_ids, zip(counts.num_samples, counts.num_correct, strict=True), strict=True))
    assert found == undisturbed(cap, stop) and not data.shortfall()
    stored = list(SampleStore(folder / "samples").read())
    assert len({(row.problem_id, row.sample_idx) for row in stored}) == len(stored)
    assert all(row.response == answer(row.seed, row.problem_id) for row in stored)  # type: ignore[arg-type]
    assert all(row.sample_idx < cap for row in stored)


def test_a_run_counts_what_an_endless_one_would(tmp_path: Path) -> None:
    told: list[str] = []
    backend = Coins()
    run(tmp_path / "run", CAP, STOP, backend, told.append)
    check(tmp_path / "run")
    counted = sum(n for n, _ in undisturbed(CAP, STOP).values())
    assert counted <= backend.drawn <= 1.25 * counted and backend.drawn < 0.7 * len(RATES) * CAP
    assert told[0].startswith("round 1: 1 of 6 problems done, 24 samples; expected: ")
    assert told[-1].split(":")[1].startswith(" 6 of 6 problems done")
    run(tmp_path / "run", CAP, STOP, again := Coins())
    assert again.drawn == 0  # finished


def test_an_engine_that_dies_at_any_sample_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for fail_after in (0, 5, 24, 3, 1, 40, 7):
        with pytest.raises(RuntimeError, match="the engine died"):
            run(folder, CAP, STOP, Coins(fail_after=fail_after))
    run(folder, CAP, STOP, Coins())
    check(folder)


def test_a_larger_cap_or_stop_tops_up(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, 30, 2, Coins())
    check(folder, 30, 2)
    run(folder, CAP, 2, Coins())
    check(folder, CAP, 2)
    run(folder, CAP, STOP, Coins())
    check(folder)


def test_a_fixed_run_of_the_same_folder_counts_a_fixed_number(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, CAP, STOP, Coins())
    store = sample_run(folder, PROBLEMS, Coins(), 8, Decoding(max_tokens=16), "none", progress=False)
    grade_store(store, folder / "verdicts", PROBLEMS, progress=False)
    data = load_run(folder)
    assert data.counts().num_samples.tolist() == [8] * 6  # not what the stop left behind
    assert data.counts().stop_after_correct is None and not data.shortfall()


def test_merged_runs_keep_their_stop(tmp_path: Path) -> None:
    halves = (PROBLEMS[:3], PROBLEMS[3:])
    for name, half in zip("ab", halves, strict=True):
        run(tmp_path / name, CAP, STOP, Coins(), problems=half)
    main(["merge", "--sources", str(tmp_path / "a"), str(tmp_path / "b"), "--run", str(tmp_path / "both")])
    grade_store(SampleStore(tmp_path / "both" / "samples"), tmp_path / "both" / "verdicts", PROBLEMS, progress=False)
    check(tmp_path / "both")
    run(tmp_path / "c", CAP, STOP + 1, Coins(), problems=halves[1])
    with pytest.raises(ValueError, match="end their problems by different rules"):
        main(["merge", "--sources", str(tmp_path / "a"), str(tmp_path / "c"), "--run", str(tmp_path / "no")])
    assert not (tmp_path / "no" / "samples").exists()


def test_an_interrupted_fixed_run_is_no_finished_one(tmp_path: Path) -> None:
    # every problem with samples has equally many: only what was asked for tells that more is to come
    arguments = (Decoding(max_tokens=16), "none", False)
    with pytest.raises(RuntimeError, match="the engine died"):
        sample_run(tmp_path / "run", PROBLEMS[:1], Coins(fail_after=5), 8, *arguments)
    store = SampleStore(tmp_path / "run" / "samples")
    grade_store(store, tmp_path / "run" / "verdicts", PROBLEMS, progress=False)
    assert load_run(tmp_path / "run").shortfall() == ["1 problems have fewer than 8 samples (the fewest: 5)"]


def test_expected_draws_of_a_pilot() -> None:
    rng = np.random.default_rng(0)
    rates = np.where(rng.random(400) < 0.2, 0.0, rng.beta(0.25, 0.9, 400))
    rows = {f"p{index}": "".join("01"[int(rng.random() < rate)] for _ in range(16)) for index, rate in enumerate(rates)}
    keys = [("b", name) for name in rows]
    rule = StopRule(1024, 8)
    expected = expected_draws(graded(**rows), keys, rule)  # type: ignore[arg-type]
    truth = np.mean([min(1024, 8 + rng.negative_binomial(8, max(rate, 1e-9))) for rate in rates for _ in range(5)])
    assert expected == pytest.approx(truth, rel=0.1)
    assert expected_draws({}, keys, rule) is None
    assert "pilot round" in expected_text({}, keys, rule)


def test_a_rule_must_make_sense() -> None:
    for arguments in ((0,), (8, 9), (8, 0), (2**24 + 1,)):
        with pytest.raises(ValueError, match="both must be at least 1"):
            StopRule(*arguments)


def test_dry_run_tells_the_expected_saving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_problems(PROBLEMS, tmp_path / "problems.jsonl")
    arguments = ["sample", "--run", str(tmp_path / "run"), "--model", "m", "--backend", "openai", "--dry-run"]
    arguments += ["--problems", str(tmp_path / "problems.jsonl"), "--num-samples", "100", "--stop-after-correct", "4"]
    main(arguments)
    assert "expected saving: unknown before a pilot round" in capsys.readouterr().out
    run(tmp_path / "run", 8, 4, Coins())
    main(arguments)
    assert "samples a problem instead of 100" in capsys.readouterr().out


def kill_test(parent: Path, kills: int, seed: int) -> int:
    """kill -9 at random moments, start-up, sampling and grading included; an ended run is checked, then a new one."""
    rng = random.Random(seed)
    script = Path(__file__).with_name("coin_run.py")
    killed = number = 0
    while True:
        folder = parent / f"run{number}"
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder), str(CAP), str(STOP), "0.002"], start_new_session=True
        )
        if killed < kills:
            if rng.random() < 0.7:  # not before it has begun to work
                parts = len(list(folder.glob("*/parts/*")))
                while process.poll() is None and len(list(folder.glob("*/parts/*"))) == parts:
                    time.sleep(0.01)
            time.sleep(rng.random() * 0.5)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                continue
        assert process.wait() == 0
        check(folder)
        if killed == kills:
            return number + 1
        number += 1


def test_killed_at_any_moment(tmp_path: Path) -> None:
    kill_test(tmp_path, 4, 0)


@pytest.mark.full
def test_fifty_kills(tmp_path: Path) -> None:
    print(f"50 kills in {kill_test(tmp_path, 50, 1)} runs")
