"""Reading verl's rollout dumps and graded samples; the danger zone; the command-line tool on top."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from verl_fgrpo.cli import main
from verl_fgrpo.evaluation.grading import Judged
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.samples import Sample, SampleStore, Verdict, VerdictStore
from verl_fgrpo.theory.rollouts import (
    SuccessCounts,
    danger_report,
    danger_zone,
    read_success_counts,
    risk_of_prompts,
)


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def dump_rows(step, scores_of_prompt, with_uid=True):
    """Rows as verl's trainers write them: input, output, gts, score, step and (v1 trainer) uid = uid_session_output."""
    rows = []
    for prompt, scores in scores_of_prompt.items():
        for session, score in enumerate(scores):
            row = {"input": prompt, "output": "…", "gts": f"gold of {prompt}", "score": score, "step": step}
            rows.append(row | ({"uid": f"{step}-{prompt}_{session}_0"} if with_uid else {}))
    return rows


@pytest.fixture
def run(tmp_path):
    """Four steps, groups of four; "easy" goes from 2/4 to 4/4, "hard" from 0/4 to 1/4."""
    folder = tmp_path / "rollouts"
    for step, easy, hard in [(1, [1, 1, 0, 0], [0] * 4), (2, [1, 0, 0, 0], [0] * 4)]:
        write_jsonl(folder / f"{step}.jsonl", dump_rows(step, {"easy": easy, "hard": hard}))
    for step, easy, hard in [(9, [1] * 4, [1, 0, 0, 0]), (10, [1] * 4, [0, 0, 0, 1.0])]:
        write_jsonl(folder / f"{step}.jsonl", dump_rows(step, {"easy": easy, "hard": hard, "new": [1, 0, 1, 0]}))
    return folder


@pytest.mark.parametrize("with_uid", [True, False])
def test_counts_of_a_dump(tmp_path, with_uid):
    rows = dump_rows(3, {"a": [1, 0, 1, 0.4], "b": [0, 0, 0, 1]}, with_uid)
    write_jsonl(tmp_path / "3.jsonl", rows)
    counts = read_success_counts(tmp_path)
    assert [source for source, _ in counts.prompts] == [None, None] and len(set(counts.prompts)) == 2
    assert counts.num_rollouts.tolist() == [4, 4]
    assert counts.num_correct.tolist() == [2, 1]
    assert counts.group_size == 4
    assert read_success_counts(tmp_path, success_threshold=0.3).num_correct.tolist() == [3, 1]


def test_steps_are_numbers_and_pooled_by_prompt(run):
    (run / "notes.jsonl").write_text("not a dump")
    early = read_success_counts(run, steps=[1, 2])
    assert early.num_rollouts.tolist() == [8, 8]
    assert early.num_correct.tolist() == [3, 0]
    assert early.group_size == 4  # not 8: two groups of four
    assert len(read_success_counts(run).prompts) == 3


def test_a_pad_row_is_no_prompt_that_was_never_solved(tmp_path):
    pad = {"input": "", "output": "", "gts": "gold of a", "score": 0.0, "step": 1, "uid": "pad0123456789abcdef_0_0"}
    write_jsonl(tmp_path / "1.jsonl", [*dump_rows(1, {"a": [1, 0]}), pad])
    counts = read_success_counts(tmp_path)
    assert (counts.num_rollouts.tolist(), counts.group_size) == ([2], 2)


def test_same_prompt_with_another_gold_answer_is_another_problem(tmp_path):
    rows = dump_rows(1, {"a": [1, 0]})
    rows += [row | {"gts": "other", "uid": f"x_{i}_0"} for i, row in enumerate(rows)]
    write_jsonl(tmp_path / "1.jsonl", rows)
    assert len(read_success_counts(tmp_path).prompts) == 2


def test_a_session_with_several_outputs_is_one_rollout(tmp_path):
    rows = [
        {"input": "a", "gts": "1", "score": score, "step": 1, "uid": uid}
        for uid, score in [("u_0_0", 0.0), ("u_0_1", 1.0), ("u_1_0", 0.0), ("u_1_10", 1.0), ("u_1_9", 0.0)]
    ]
    write_jsonl(tmp_path / "1.jsonl", rows)
    counts = read_success_counts(tmp_path)
    assert (counts.num_rollouts.tolist(), counts.num_correct.tolist()) == ([2], [2])


@pytest.mark.parametrize(
    "column",
    [{"correct": [True, False, True]}, {"verdict": ["correct", "timeout", "correct"]}, {"score": [1.0, 0.5, 0.9]}],
)
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "store"])
def test_graded_samples(tmp_path, column, kind):
    ((name, values),) = column.items()
    rows = [
        {"benchmark": b, "problem_id": "7", "sample_idx": i, name: value}
        for b in ("amc", "aime")
        for i, value in enumerate(values)
    ]
    path = tmp_path / f"graded.{kind}"
    if kind == "parquet":
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(rows).to_parquet(path)
    elif kind == "jsonl":
        write_jsonl(path, rows)
    else:
        file = path / "parts" / "part-00000.jsonl.gz" if kind == "store" else path
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    counts = read_success_counts(path)
    assert counts.prompts == (("amc", "7"), ("aime", "7"))
    assert (counts.num_rollouts.tolist(), counts.num_correct.tolist()) == ([3, 3], [2, 2])


def test_errors_name_the_file_and_the_remedy(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_success_counts(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no dump of steps \[3\]"):
        read_success_counts(run, steps=[1, 3])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither rollout dumps"):
        read_success_counts(tmp_path / "empty")
    for rows, word in [
        ([{"problem_id": "1"}], "none of correct, verdict, score"),
        ([{"correct": True}], "problem_id"),
        ([{"problem_id": "1", "correct": "yes"}], "finite number"),
        ([], "no rollouts"),
    ]:
        write_jsonl(tmp_path / "graded.jsonl", rows)
        with pytest.raises(ValueError, match=word):
            read_success_counts(tmp_path / "graded.jsonl")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "1.jsonl").write_text('{"input": "a", "sco')
    with pytest.raises(ValueError, match="line 1 is no JSON .*: the file ends within it"):
        read_success_counts(tmp_path / "torn")


def test_danger_report_arithmetic():
    counts = SuccessCounts(("a", "b", "c", "d"), np.full(4, 8), np.array([0, 4, 7, 8]), group_size=8)
    report = danger_report(counts, rare_share=0.1)
    # mu 1/2, tau 0.05: 0.95^8 - 0.45^8 - 0.5^8 = 0.66342 - 0.00168 - 0.00391
    # mu 7/8, tau 0.0875: 0.9125^8 - 0.7875^8 - 0.125^8 = 0.48067 - 0.14791 - 0.00000
    np.testing.assert_allclose(
        risk_of_prompts(counts.success_rate, 0.1, 8), [0, 0.66342 - 0.00168 - 0.00391, 0.48067 - 0.14791, 0], atol=2e-5
    )
    assert report.share_in_danger == 0.25
    assert danger_report(counts, rare_share=0.1, danger=0.3).share_in_danger == 0.5
    assert (report.share_never_solved, report.share_always_solved) == (0.25, 0.25)
    assert report.mean_success_rate == pytest.approx(19 / 32)
    assert report.histogram.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 1, 1]
    assert danger_report(counts, rare_share=0.1, group_size=256).share_in_danger == 0.0
    with pytest.raises(ValueError, match="rare_share"):
        danger_report(counts, rare_share=1.5)


def test_danger_zone_has_the_risky_rates_inside():
    low, high = danger_zone(0.1, 8)
    inside, outside = risk_of_prompts([low, high], 0.1, 8), risk_of_prompts([low - 0.001, high + 0.001], 0.1, 8)
    assert np.all(inside > 0.5) and np.all(outside <= 0.5)
    assert danger_zone(0.2, 4096) is None


def test_tool_on_one_prompt(capsys):
    main(["tail-miss", "--success-rate", "0.3", "--rare-share", "0.1", "--group-size", "8"])
    out = capsys.readouterr().out
    # 0.97^8 - 0.27^8 - 0.7^8 = 0.78374 - 0.00003 - 0.05765
    assert "72.61%" in out
    # worst and needed sizes by brute force
    sizes = np.arange(1, 200)
    risk = 0.97**sizes - 0.27**sizes - 0.7**sizes
    worst, needed = sizes[np.argmax(risk)], sizes[risk > 0.1].max() + 1
    assert f"{worst:7d}   (risk {risk.max():.2%})" in out
    assert f"{needed:7d}   or more rollouts" in out


def test_tool_compares_a_run(run, tmp_path, capsys):
    figure = tmp_path / "rates.png"
    main(["tail-miss", "--run", str(run), "--compare-steps", "2", "--figure", str(figure)])
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    table = {label: values for label, *values in cells}
    # first 2 steps: easy 3/8, hard 0/8; last 2: easy 8/8, hard 2/8, new 4/8; starred: only easy and hard
    assert table["prompts"] == ["2", "3", "2", "2"]
    assert table["mean success rate"] == ["0.188", "0.583", "0.188", "0.625"]
    assert table["never solved"] == ["50.0%", "0.0%", "50.0%", "0.0%"]
    assert table["always solved"] == ["0.0%", "33.3%", "0.0%", "50.0%"]
    # N 4: risk of 3/8 is 0.9625^4 - 0.3375^4 - 0.625^4 = 0.693; of 1/4 is 0.975^4 - 0.225^4 - 0.75^4 = 0.585
    assert table["in the danger zone"] == ["50.0%", "66.7%", "50.0%", "50.0%"]
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        ("--group-size 8", "give one of", 2),
        ("--success-rate 0.3", "needs --group-size", 2),
        ("--before a.jsonl --group-size 8", "go together", 2),
        ("--success-rate 1.3 --group-size 8", "mu must be", 1),
        ("--run nowhere", "does not exist", 1),
    ],
)
def test_tool_refuses(arguments, word, code, capsys):
    try:
        returned = main(["tail-miss", *arguments.split()])
    except SystemExit as stop:  # argparse: wrong usage
        returned = stop.code
    assert returned == code and word in capsys.readouterr().err


def test_verdicts_on_responses_that_have_changed_are_refused(tmp_path):
    problem = Problem("b", "p", "q", "math", ("1",))
    save_problems([problem], tmp_path / "problems.jsonl")
    samples = [Sample("b", "p", index, 0, f"\\boxed{{{index}}}", 1, "stop") for index in range(2)]
    with SampleStore(tmp_path / "samples", {"model": "m"}).writer() as writer:
        writer.append(samples[0])
        writer.append(samples[1])
    store = VerdictStore(tmp_path / "verdicts", {"grader": "hand"})
    judged = Judged([problem], store.settings)
    with store.writer() as writer:
        for sample, verdict in zip(samples, ("wrong", "correct"), strict=True):
            writer.append(Verdict("b", "p", sample.sample_idx, verdict, None, "", judged.digest(sample)))
    assert read_success_counts(tmp_path / "verdicts").num_correct.tolist() == [1]
    save_problems([replace(problem, answers=("0",))], tmp_path / "problems.jsonl")
    with pytest.raises(ValueError, match="2 verdicts on b/p are on responses or gold answers that have changed"):
        read_success_counts(tmp_path / "verdicts")
