"""Samples made elsewhere, the numbers of a run, and the comparison of runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.compare import changed_problems, compare_runs, paper_table
from verl_fgrpo.evaluation.readers import read_samples
from verl_fgrpo.evaluation.report import ProblemCounts
from verl_fgrpo.evaluation.samples import Sample, SampleStore, Verdict
from verl_fgrpo.evaluation.significance import paired_subsample_test
from verl_fgrpo.evaluation.summary import benchmark_rows, block_rows, collect, majority_at_k, verdict_rows


def write_lines(path: Path, rows: list[dict]) -> Path:  # type: ignore[type-arg]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_verl_dumps_get_a_problem_id_from_prompt_and_answer(tmp_path: Path) -> None:
    rows = [
        {
            "input": f"user\n{question}",
            "output": f"\\boxed{{{index}}}",
            "gts": gold,
            "score": 1.0,
            "step": 20,
            "uid": uid,
        }
        for index, (question, gold, uid) in enumerate(
            [("1+1?", "2", "a_0_0"), ("1+1?", "2", "a_1_0"), ("1+2?", "3", "b_0_0"), ("1+1?", "2", "c_0_0")]
        )
    ]
    problems, samples = read_samples([write_lines(tmp_path / "20.jsonl", rows)], "val")
    assert [problem.answers for problem in problems] == [("2",), ("3",)]
    first, second = (problem.problem_id for problem in problems)
    # The same prompt in another pass (uid c) is the same problem.
    assert [(one.problem_id, one.sample_idx) for one in samples] == [(first, 0), (first, 1), (second, 0), (first, 2)]
    later = write_lines(tmp_path / "40.jsonl", [{**rows[0], "step": 40}])
    with pytest.raises(ValueError, match=r"several training steps \(\['20', '40'\]\)"):
        read_samples([tmp_path / "20.jsonl", later], "val")


def test_lm_eval_logs_take_each_document_once(tmp_path: Path) -> None:
    row = {
        "doc_id": 7,
        "doc": {"q": "1+1?"},
        "target": "2",
        "arguments": {"gen_args_0": {"arg_0": "Q: 1+1?", "arg_1": {}}},
        "resps": [["\\boxed{2}", "\\boxed{3}"]],
        "doc_hash": "abc",
    }
    path = write_lines(tmp_path / "samples_x.jsonl", [{**row, "filter": "strict"}, {**row, "filter": "flexible"}])
    problems, samples = read_samples([path], "gsm")
    assert (problems[0].prompt, problems[0].answers) == ("Q: 1+1?", ("2",))
    assert [one.response for one in samples] == ["\\boxed{2}", "\\boxed{3}"]


def test_plain_files_and_their_mistakes(tmp_path: Path) -> None:
    rows = [{"problem_id": 1, "response": "x", "answer": ["2", "2.0"], "num_tokens": 5, "finish_reason": "length"}]
    problems, samples = read_samples([write_lines(tmp_path / "a.jsonl", rows)], "b")
    assert problems[0].answers == ("2", "2.0")
    assert (samples[0].num_tokens, samples[0].finish_reason) == (5, "length")
    with pytest.raises(ValueError, match="two answers"):
        read_samples([write_lines(tmp_path / "b.jsonl", [*rows, {**rows[0], "answer": "3"}])], "b")
    with pytest.raises(ValueError, match="cannot tell the format by the columns"):
        read_samples([write_lines(tmp_path / "c.jsonl", [{"text": "x"}])], "b")
    with pytest.raises(ValueError, match="no gold answer"):
        read_samples([write_lines(tmp_path / "d.jsonl", [{**rows[0], "answer": None}])], "b")


def verdicts_of(answers: list[tuple[str, str | None]], benchmark: str = "aime24", problem: str = "p") -> list[Verdict]:
    return [Verdict(benchmark, problem, index, kind, answer, "") for index, (kind, answer) in enumerate(answers)]


def test_majority_golden() -> None:
    # Votes: right 2 (in two spellings), wrong "7" 2, wrong "8" 1, no answer 1.
    rows = [("correct", "1/2"), ("correct", "0.5"), ("wrong", "7"), ("wrong", "7"), ("wrong", "8"), ("unparsed", None)]
    data = collect(verdicts_of(rows))
    result = data.problems["aime24", "p"]
    rng = np.random.default_rng(0)
    assert majority_at_k(result, [6], rng)[0] == 0.5  # a tie of two counts a half
    # k = 1: right with probability 2/6. (Monte Carlo: 4 standard errors.)
    assert majority_at_k(result, [1], rng, draws=20_000)[0] == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 20_000))


def test_summary_golden() -> None:
    rows = verdicts_of([("correct", "a"), ("correct", "b"), ("wrong", "c"), ("timeout", None)])
    rows += verdicts_of([("wrong", "x"), ("unparsed", None), ("error", None), ("wrong", "x")], problem="q")
    samples = [
        Sample(
            "aime24",
            row.problem_id,
            row.sample_idx,
            0,
            "",
            10 * (row.sample_idx + 1),
            "length" if row.sample_idx == 3 else "stop",
        )
        for row in rows
    ]
    data = collect(rows, samples)
    [summary] = benchmark_rows({"run": data})
    assert (
        summary["pass@1"] == pytest.approx(0.25) and summary["unsolved"] == 0.5 and summary["distinct_correct"] == 2.0
    )
    assert summary["mean_tokens"] == 25.0 and summary["truncated"] == 0.25
    assert verdict_rows({"run": data}) == [
        {"run": "run", "benchmark": "aime24", "correct": 2, "wrong": 3, "unparsed": 1, "timeout": 1, "error": 1}
    ]
    assert data.counts().num_correct.tolist() == [2, 0]


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
    changed = changed_problems(base, focal)
    assert [(row["change"], row["problem_id"]) for row in changed] == [("gained", "d"), ("lost", "a")]
    with pytest.raises(ValueError, match="different problems"):
        compare_runs(base, ProblemCounts.of(16, [1], ["a"], "maze"), [1], m=4)


def test_paper_table_underlines_significant_wins_on_the_winning_side() -> None:
    row = {"benchmark": "maze", "k": 1, "base": 0.5, "focal": 0.4, "difference": -0.1, "significant": True}
    other = {**row, "k": 8, "focal": 0.7, "difference": 0.2}
    lines = paper_table("GRPO", {"F-GRPO": [row, other]}, 1, 8).splitlines()
    assert lines[-2] == "| GRPO | <u>50.0</u> / 50.0 |"
    assert lines[-1] == "| F-GRPO | 40.0 / <u>70.0</u> |"


def test_a_line_separator_inside_a_response_does_not_end_the_line(tmp_path: Path) -> None:
    responses = ["one\u2028two", "one\x85two", "one\rtwo", "one\ntwo"]  # only "\n" is escaped by ensure_ascii=False
    rows = [{"problem_id": "p", "answer": "1", "response": response} for response in responses]
    path = tmp_path / "rows.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    _, samples = read_samples([path], "b")
    assert [sample.response for sample in samples] == responses


def test_a_bad_line_is_named_and_nothing_of_its_file_is_stored(tmp_path: Path) -> None:
    row = {"problem_id": "p", "answer": "1", "response": "\\boxed{1}"}
    path = tmp_path / "rows.jsonl"
    arguments = ["grade", "--run", str(tmp_path / "run"), "--input", str(path), "--benchmark", "toy", "--workers", "1"]
    for bad, rule in (('{"problem_id": "p", "ans', "is no JSON"), ("[1, 2]", "must be a JSON object, not list")):
        path.write_text(json.dumps(row) + "\n" + bad)
        with pytest.raises(ValueError, match=rf"rows.jsonl, line 2 {rule}"):
            main(arguments)
        assert not (tmp_path / "run").exists()
    path.write_text(json.dumps(row) + "\n")
    main(arguments)  # the repaired file is not refused as another one
    assert [sample.response for sample in SampleStore(tmp_path / "run" / "samples").read()] == ["\\boxed{1}"]


def test_grade_tells_when_math_verify_is_not_made_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"problem_id": "p", "answer": "1", "response": "\\boxed{1}"}
    path = write_lines(tmp_path / "one.jsonl", [row])
    arguments = ["grade", "--run", str(tmp_path / "run"), "--input", str(path), "--benchmark", "toy", "--workers", "1"]
    main(arguments)
    assert "slow" not in capsys.readouterr().err
    monkeypatch.setattr("verl_fgrpo.evaluation.fast_grading.math_verify_cache.version", lambda package: "99.0")
    main(arguments)
    told = capsys.readouterr().err
    assert "grading will be slow: math-verify 99.0" in told and "made faster are math-verify 0.8.0 or 0.9.0" in told


def test_commands_end_to_end_on_imported_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for run, rate in (("grpo", 0.2), ("fgrpo", 0.6)):
        rows = [
            {
                "problem_id": f"p{problem}",
                "answer": str(problem),
                "response": f"\\boxed{{{problem + 20 * (rng.random() > rate)}}}",
            }
            for problem in range(12)
            for _ in range(16)
        ]
        path = write_lines(tmp_path / f"{run}.jsonl", rows)
        main(["grade", "--run", str(tmp_path / run), "--input", str(path), "--benchmark", "toy", "--workers", "1"])
    named = [f"GRPO={tmp_path / 'grpo'}", f"F-GRPO={tmp_path / 'fgrpo'}"]
    main(["report", "--runs", *named, "--out", str(tmp_path / "report")])
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    first = {row["run"]: row["value"] for row in stored["rows"] if row["k"] == 1}
    assert first["GRPO"] == pytest.approx(0.2, abs=0.1) and first["F-GRPO"] == pytest.approx(0.6, abs=0.12)
    assert sum(row[verdict] for row in stored["verdicts"] for verdict in ("correct", "wrong")) == 2 * 12 * 16
    arguments = ["compare", "--base", named[0], "--focal", named[1], "--out", str(tmp_path / "cmp")]
    main([*arguments, "--ks", "1", "4", "--m", "4", "--iterations", "2000"])
    assert "**+" in (tmp_path / "cmp" / "compare.md").read_text()  # a significant win at this distance
    assert (tmp_path / "cmp" / "pass_at_k.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="k=256 must lie in 1..m=4"):
        main([*arguments, "--m", "4"])
    with pytest.raises(ValueError, match="is not a run folder"):
        main(["report", "--runs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")])
    capsys.readouterr()
