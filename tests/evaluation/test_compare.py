"""Runs against each other, and both commands from graded folders to files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graded_runs import SAMPLING, make_run

from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.compare import (
    changed_problems,
    compare_metrics,
    compare_runs,
    paper_cells,
    refuse_different_settings,
    settings_rows,
)
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.evaluation.report import block_rows
from verl_fgrpo.evaluation.report_command import named_runs
from verl_fgrpo.evaluation.samples import Sample, SampleStore, Verdict, VerdictStore
from verl_fgrpo.evaluation.significance import paired_subsample_test
from verl_fgrpo.evaluation.summary import load_run

HOSTILE = "<script>alert(1)</script> | `x` $\\frac$ [y](javascript:z)\nnext"


def two_runs(folder: Path, **changes: dict[str, object]) -> list[str]:
    rng = np.random.default_rng(0)
    named = []
    for name, rate in (("GRPO", 0.2), ("F-GRPO", 0.6)):
        outcomes = {f"p{problem}": "".join("01"[rng.random() < rate] for _ in range(16)) for problem in range(12)}
        more = changes if name == "F-GRPO" else {}
        named.append(f"{name}={make_run(folder / name, outcomes, **more)}")  # type: ignore[arg-type]
    return named


def test_block_average_is_the_plain_mean_over_benchmarks() -> None:
    rows = [
        {"run": "r", "benchmark": name, "k": 1, "value": value, "problems": problems, "samples": 4}
        for name, value, problems in (
            ("aime24", 0.2, 30),
            ("math500", 0.8, 500),
            ("ifeval", 0.5, 541),
            ("mine", 0.9, 1),
        )
    ]
    [block] = block_rows(rows)
    assert (block["benchmark"], block["value"]) == ("avg math of aime24, math500", pytest.approx(0.5))


def test_compare_runs_aligns_problems_and_uses_the_paired_test() -> None:
    base = ProblemCounts.of(16, [1, 5, 9, 0], ["a", "b", "c", "d"], "maze")
    focal = ProblemCounts.of(16, [3, 0, 10, 7], ["d", "a", "c", "b"], "maze")  # another order
    rows = compare_runs(base, focal, [1, 4], m=4, iterations=500, bootstrap_iterations=100)
    expected = paired_subsample_test([1, 5, 9, 0], [0, 7, 10, 3], 16, 4, m=4, iterations=500, rng=0)
    assert (rows[1]["difference"], rows[1]["p"]) == (expected.difference, expected.p_value)
    assert rows[1]["base"] == pytest.approx(expected.base) and rows[1]["focal"] == pytest.approx(expected.focal)
    changed = changed_problems(base, focal)
    assert [(row["change"], row["problem_id"]) for row in changed] == [("gained", "d"), ("lost", "a")]
    with pytest.raises(ValueError, match="different problems"):
        compare_runs(base, ProblemCounts.of(16, [1], ["a"], "maze"), [1], m=4)


def test_a_sequential_run_gets_the_bootstrap_alone() -> None:
    fixed = ProblemCounts.of(16, [1, 5, 9, 0], ["a", "b", "c", "d"])
    sequential = ProblemCounts.of([4, 16, 2, 9], [2, 1, 2, 2], ["a", "b", "c", "d"], "all", 2, 16)
    for pair in ((fixed, sequential), (sequential, fixed), (sequential, sequential)):
        rows = compare_runs(*pair, [1, 16], m=4, bootstrap_iterations=200)
        assert all(row["p"] is None and row["low"] is None for row in rows)
        difference = pair[1].pass_at_k(16).mean() - pair[0].pass_at_k(16).mean()
        assert rows[1]["difference"] == pytest.approx(difference)
        assert rows[1]["boot_low"] <= difference <= rows[1]["boot_high"]


def test_paper_table_marks_significant_wins_on_the_winning_side() -> None:
    row = {"benchmark": "maze", "k": 1, "base": 0.5, "focal": 0.4, "difference": -0.1, "significant": True}
    other = {**row, "k": 8, "focal": 0.7, "difference": 0.2}
    _, lines, _ = paper_cells("GRPO", {"F-GRPO": [row, other]}, 1, 8)
    assert lines == [["GRPO", "**50.0** / 50.0"], ["F-GRPO", "40.0 / **70.0**"]]


def test_metrics_are_compared_problem_by_problem(tmp_path: Path) -> None:
    base = load_run(make_run(tmp_path / "a", {"p": "1111", "q": "0000", "r": "1010"}))
    focal = load_run(make_run(tmp_path / "b", {"r": "1011", "q": "0001", "p": "1111"}))
    rows = {row["metric"]: row for row in compare_metrics(base, focal, taus=(0.75,), iterations=200)}
    assert rows["cover@0.75"]["base"] == pytest.approx(1 / 3) and rows["cover@0.75"]["focal"] == pytest.approx(2 / 3)
    assert rows["cover@0.75"]["difference"] == pytest.approx(1 / 3)
    assert rows["distinct answers@4"]["difference"] == pytest.approx(1 / 3)
    assert rows["majority@4"]["base"] == pytest.approx((1 + 0 + 0.5) / 3)


def test_commands_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = two_runs(tmp_path)
    main(["report", "--runs", *named, "--out", str(tmp_path / "report")])
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    first = {row["run"]: row["value"] for row in stored["rows"] if row["k"] == 1}
    assert first["GRPO"] == pytest.approx(0.2, abs=0.1) and first["F-GRPO"] == pytest.approx(0.6, abs=0.12)
    assert sum(row[verdict] for row in stored["verdicts"] for verdict in ("correct", "wrong")) == 2 * 12 * 16
    assert {"AUC@16", "pass^16", "majority@16", "distinct answers@16", "distinct texts@16", "cover@0.5"} <= {
        row["metric"] for row in stored["metrics"]
    }
    assert stored["details"][0]["truncated"] == 0.0 and stored["details"][0]["mean_tokens"] == 7.0
    assert (tmp_path / "report" / "report.md").read_text().startswith("# pass@k")  # nothing is missing
    arguments = ["compare", "--base", named[0], "--focal", named[1], "--out", str(tmp_path / "cmp")]
    main([*arguments, "--ks", "1", "4", "--m", "4", "--iterations", "2000"])
    text = (tmp_path / "cmp" / "compare.md").read_text()
    assert "**+" in text  # a significant win at this distance
    assert "| sampling | temperature | 1.0 | 1.0 |" in text and "| grading | seconds | 10.0 | 10.0 |" in text
    assert (tmp_path / "cmp" / "pass_at_k.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="k=256 must lie in 1..m=4"):
        main([*arguments, "--m", "4"])
    with pytest.raises(ValueError, match="is not a run folder"):
        main(["report", "--runs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")])
    capsys.readouterr()


def test_problems_as_parquet(tmp_path: Path) -> None:
    import pandas

    runs = [f"a={make_run(tmp_path / 'a', {'p': '1010', 'q': '0000'})}"]
    runs.append(f"b={make_run(tmp_path / 'b', {'p': '10', 'q': '00'})}")
    main(["report", "--runs", *runs, "--out", str(tmp_path / "report")])
    frame = pandas.read_parquet(tmp_path / "report" / "problems.parquet")
    assert frame[["run", "problem_id", "num_correct"]].values.tolist() == [
        ["a", "p", 2],
        ["a", "q", 0],
        ["b", "p", 1],
        ["b", "q", 0],
    ]
    assert frame["pass@2"].tolist() == pytest.approx([1 - 1 / 6, 0, 1, 0])
    assert frame["pass@4"].isna().tolist() == [False, False, True, True]
    assert frame["distinct_correct_texts"].tolist() == [1, 0, 1, 0]


def test_an_unfinished_run_says_so_in_its_first_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"p": "1111"}, unsampled=("q",))
    main(["report", "--runs", f"R={run}", "--out", str(tmp_path / "report")])
    first = (tmp_path / "report" / "report.md").read_text().splitlines()[0]
    assert first == "> **Not finished.** R: 1 problems have no samples and are not counted (toy/q)."


def test_verdicts_that_are_bound_to_nothing_are_told_in_the_first_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"p": "1111"})
    verdicts = VerdictStore(run / "verdicts")
    with VerdictStore.emptied(run / "verdicts", verdicts.settings).writer() as writer:
        for index in range(4):
            writer.append(Verdict("toy", "p", index, "correct", "1", ""))
    main(["report", "--runs", f"R={run}", "--out", str(tmp_path / "report")])
    first = (tmp_path / "report" / "report.md").read_text().splitlines()[0]
    assert "R: 4 verdicts, of a version before 0.2, do not say on which response they are" in first


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sampling": {**SAMPLING, "temperature": 0.6}}, r"sampling temperature: GRPO has 1.0, F-GRPO has 0.6"),
        ({"sampling": {**SAMPLING, "max_tokens": 32}}, "sampling max_tokens"),
        ({"grading": {"seconds": 10.0, "versions": {"sympy": "1.0"}}}, "grading versions.sympy: GRPO has unknown"),
        ({"sampling": {"imported": ["a.jsonl"]}}, "sampling max_tokens: GRPO has 64, F-GRPO has unknown"),
    ],
)
def test_runs_made_in_different_ways_are_refused(
    tmp_path: Path, changes: dict[str, dict[str, object]], told: str
) -> None:
    named = two_runs(tmp_path, **changes)
    arguments = ["compare", "--base", named[0], "--focal", named[1], "--out", str(tmp_path / "cmp"), "--ks", "1"]
    with pytest.raises(ValueError, match=rf"{told}.*--allow-different-settings"):
        main([*arguments, "--m", "4"])
    assert not (tmp_path / "cmp").exists()
    main([*arguments, "--m", "4", "--iterations", "100", "--allow-different-settings"])
    assert "| **" in (tmp_path / "cmp" / "compare.md").read_text().split("## Settings")[1]


def test_another_model_is_what_a_comparison_is_for(tmp_path: Path) -> None:
    named = two_runs(tmp_path, sampling={**SAMPLING, "model": "other", "weights": "x"})
    main(["compare", "--base", named[0], "--focal", named[1], "--out", str(tmp_path / "c"), "--ks", "1", "--m", "4"])


def test_sequential_and_fixed_runs_in_one_comparison(tmp_path: Path) -> None:
    fixed = make_run(tmp_path / "fixed", {"p": "10100000", "q": "00000000"})
    plan = {"num_samples": 8, "stop_after_correct": 2}
    sequential = make_run(tmp_path / "seq", {"p": "1101", "q": "00010000"}, plan=plan)
    arguments = ["compare", "--base", f"a={fixed}", "--focal", f"b={sequential}", "--out", str(tmp_path / "c")]
    main([*arguments, "--ks", "1", "8", "--m", "4"])
    text = (tmp_path / "c" / "compare.md").read_text()
    assert "needs a number of samples fixed in advance" in text
    assert "| sampling | samples per problem | unknown | until 2 correct, at most 8 |" in text
    # pass@1: fixed 2/8 and 0; sequential 1 (of the one sample before the stop) and 1/8
    assert "| toy | 1 | 12.5 | 56.2 | **+43.8** | - | - |" in text


def test_hostile_names_break_nothing(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, {HOSTILE: letters, "_q": "11"}, HOSTILE)
        for name, letters in (("a", "10"), ("b", "00"))
    ]
    named = [f"{HOSTILE}={runs[0]}", f"_{HOSTILE}={runs[1]}"]
    main(["report", "--runs", *named, "--out", str(tmp_path / "report"), "--title", HOSTILE])
    main(["compare", "--base", named[0], "--focal", named[1], "--out", str(tmp_path / "c"), "--ks", "1", "--m", "1"])
    for path in (tmp_path / "report" / "report.md", tmp_path / "c" / "compare.md"):
        text = path.read_text()
        assert "<script" not in text and "](javascript" not in text and "\nnext" not in text
        for table in text.split("\n\n"):
            widths = {line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}
            assert len(widths) <= 1, table
    svg = (tmp_path / "report" / "pass_at_k.svg").read_text()
    assert "<script" not in svg and "&lt;script&gt;" in svg and "\\frac" in svg


def test_names_of_runs(tmp_path: Path) -> None:
    odd = make_run(tmp_path / "lr=1e-6" / "run", {"p": "1"})
    assert named_runs([f"NAME={odd}"]) == {"NAME": odd}
    assert named_runs([str(odd)]) == {"run": odd}
    assert named_runs([f"lr=1e-6={odd}"]) == {"lr=1e-6": odd}
    with pytest.raises(ValueError, match=r"'\\udcff' is given twice, or no text"):
        main(["report", "--runs", f"\udcff={tmp_path}", "--out", str(tmp_path / "x")])
    with pytest.raises(ValueError, match="'run' is given twice"):
        named_runs([str(odd), f"run={odd}"])
    with pytest.raises(ValueError, match="has no name"):
        named_runs([f"={odd}"])
    with pytest.raises(ValueError, match="is not graded yet"):
        SampleStore(tmp_path / "new" / "samples", {})
        named_runs([f"x={tmp_path / 'new'}"])


def test_every_report_says_how_answers_were_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"p": "110"}, grading={"options": {"reading": "extended-4"}})
    verdicts = VerdictStore(run / "verdicts")
    with verdicts.writer() as judge:
        judge.append(Verdict("toy", "p", 3, "correct", "1", "default reading: wrong"))
    with SampleStore(run / "samples").writer() as writer:
        writer.append(Sample("toy", "p", 3, 3, "x", 7, "stop"))
    other = make_run(tmp_path / "other", {"p": "1100"})
    main(["report", "--runs", f"A={run}", f"B={other}", "--out", str(tmp_path / "r")])
    told = (tmp_path / "r" / "report.md").read_text()
    assert "A: reading extended-4: 1 of 4 verdicts differ from the default reading's (1 correct here only, 0" in told
    assert "B: reading default (math-verify unchanged)" in told
    with pytest.raises(ValueError, match="grading options.reading"):
        main(["compare", "--base", f"A={run}", "--focal", f"B={other}", "--out", str(tmp_path / "c")])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--ks", "1", "0"], "--ks: 0 must be a whole number from 1"),
        (["--m", "0"], "--m: 0 must be"),
        (["--iterations", "-1"], "--iterations: -1 must be"),
        (["--iterations", "10000000000000"], "must be a whole number from 1, below 100000000"),
        (["--seed", "-1"], "--seed: -1 must be a whole number from 0"),
        (["--taus", "nan"], "--taus: nan must be a finite number"),
        (["--out", ""], "--out: '' is no path"),
    ],
)
def test_options_are_checked_before_anything_is_read(
    tmp_path: Path, option: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", "--base", "a=nowhere", "--focal", "b=nowhere", "--out", str(tmp_path / "c")]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, *option])
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    with pytest.raises(ValueError, match=r"tau=1.5 must lie in \(0, 1\]"):
        main([*arguments, "--taus", "1.5"])


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"a": "10"}, plan={"num_samples": 2})
    (run / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="plan.json does not hold what it must .*num_samples"):
        load_run(run)


def test_verdicts_without_samples_do_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"a": "10"})
    for part in (run / "samples" / "parts").iterdir():
        part.unlink()
    with pytest.raises(ValueError, match="2 verdicts on toy/a belong to samples that are gone"):
        load_run(run)


@pytest.mark.parametrize("change", [{"prompt": "another question"}, {"answers": ("2",)}])
def test_other_problems_under_the_same_ids_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    runs = {name: make_run(tmp_path / name, {"a": "10", "b": "10"}) for name in ("base", "other")}
    loaded = {name: load_run(run) for name, run in runs.items()}
    asked = loaded["other"].asked
    loaded["other"] = replace(loaded["other"], asked={**asked, ("toy", "a"): replace(asked["toy", "a"], **change)})
    with pytest.raises(ValueError, match="problems: base has these ids, other has 1 of them with .* answer .toy/a"):
        refuse_different_settings(settings_rows(loaded), list(loaded))
