"""Samples made elsewhere."""

import json
from pathlib import Path

import pytest

from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.readers import read_samples
from verl_fgrpo.evaluation.samples import SampleStore


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


def test_fast_grading_is_refused_for_versions_that_nobody_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verl_fgrpo.evaluation.fast_grading.math_verify_cache.version", lambda package: "99.0")
    with pytest.raises(
        ValueError, match=r"--fast was checked with math-verify 0.8.0 or 0.9.0.*not with math-verify 99"
    ):
        main(["grade", "--run", str(tmp_path / "run"), "--fast"])
