"""Samples made elsewhere."""

import json
from pathlib import Path

import pytest

from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.readers import iter_samples
from verl_fgrpo.evaluation.samples import Sample, SampleStore


def read_samples(paths: list[Path], benchmark: str) -> tuple[list[Problem], list[Sample]]:
    pairs = list(iter_samples(paths, benchmark))
    return list({problem.key: problem for problem, _ in pairs}.values()), [sample for _, sample in pairs]


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
    with pytest.raises(ValueError, match=r"40.jsonl, line 1: rows of several training steps \(20, 40\)"):
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
    with pytest.raises(ValueError, match="d.jsonl, line 1: a gold answer is None"):
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
    for bad, rule in (('{"problem_id": "p", "ans', "is no JSON"), ("[1, 2]", "must be a JSON object, not")):
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


def dump(tmp_path: Path, rows: list[tuple[str, str, str]], gts: object = "5", **columns: object) -> Path:
    """A rollout dump of (uid, input, output)."""
    return write_lines(
        tmp_path / "20.jsonl",
        [
            {"input": prompt, "output": output, "gts": gts, "score": 1.0, "step": 20, "uid": uid, **columns}
            for uid, prompt, output in rows
        ],
    )


def test_verl_sessions_padding_mappings_and_sources(tmp_path: Path) -> None:
    rows = [
        ("u_0_0", "2+3?", "calling a tool"),
        ("u_0_1", "2+3? tool: 5", "\\boxed{5}"),
        ("u_1_0", "2+3?", "\\boxed{6}"),
        ("pad0123_0_0", "", ""),
        ("pad0123_1_0", "", ""),
    ]
    path = dump(tmp_path, rows, {"target": ["5"]}, data_source="openai/gsm8k")
    problems, samples = read_samples([path], "imported")
    assert [(one.benchmark, one.prompt, one.answers) for one in problems] == [("openai/gsm8k", "2+3?", ("5",))]
    assert [(one.sample_idx, one.response) for one in samples] == [(0, "\\boxed{5}"), (1, "\\boxed{6}")]
    with pytest.raises(ValueError, match="20.jsonl, line 1: a gold answer is nan"):
        read_samples([dump(tmp_path, rows[:1], float("nan"))], "b")


LM_EVAL = {
    "doc_id": 7,
    "doc": {"question": "1+1?"},
    "target": "2",
    "arguments": {"gen_args_0": {"arg_0": "Q: 1+1?", "arg_1": {"until": ["Q:"], "temperature": 1.0}}},
    "resps": [["\\boxed{2}", "\\boxed{3}"]],
    "filtered_resps": ["\\boxed{2}"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "doc_hash": "0123456789abcdef",
    "prompt_hash": "1",
    "target_hash": "2",
    "exact_match": 1.0,
}


def test_lm_eval_files_of_two_seeds_both_count(tmp_path: Path) -> None:
    files = []
    for second, response in ((0, "\\boxed{5}"), (1, "\\boxed{6}")):
        rows = [{**LM_EVAL, "resps": [[response]], "filter": name} for name in ("strict-match", "flexible-extract")]
        files.append(write_lines(tmp_path / f"samples_gsm8k_2026-01-01T00-00-0{second}.123.jsonl", rows))
    problems, samples = read_samples(files, "imported")
    assert [problem.benchmark for problem in problems] == ["gsm8k"]
    assert [(one.sample_idx, one.response) for one in samples] == [(0, "\\boxed{5}"), (1, "\\boxed{6}")]
    (tmp_path / "samples_copy.jsonl").write_bytes(files[0].read_bytes())
    for again in (files[0], tmp_path / "samples_copy.jsonl"):
        with pytest.raises(ValueError, match="are the same file or a copy"):
            read_samples([*files, again], "imported")


def test_one_id_for_two_prompts_is_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{**PLAIN, "prompt": prompt} for prompt in ("1+1?", "3-1?")])
    with pytest.raises(ValueError, match=r"line 2: prompt is '3-1\?', .*'1\+1\?' as in an earlier row"):
        read_samples([path], "b")


def test_lm_eval_logs_of_other_versions(tmp_path: Path) -> None:
    old = {key: value for key, value in LM_EVAL.items() if key not in ("doc_hash", "filter")}
    old["arguments"] = [["Q: 1+1?", {"until": ["Q:"]}]]
    problems, samples = read_samples([write_lines(tmp_path / "samples_x.jsonl", [old, {**old, "doc_id": 8}])], "toy")
    assert [problem.benchmark for problem in problems] == ["toy", "toy"] and len(samples) == 4
    assert problems[0].problem_id.startswith("7-") and len({problem.problem_id for problem in problems}) == 2
    likelihoods = {**LM_EVAL, "resps": [[[-1.5, False]], [[-0.5, True]]]}
    with pytest.raises(ValueError, match="line 1: resps is .*tasks that compare likelihoods have none"):
        read_samples([write_lines(tmp_path / "a.jsonl", [likelihoods])], "toy")
    turns = {"gen_args_0": {"arg_0": ['[{"role": "user", "content": "1+1?"}]'], "arg_1": {}}}  # behind a chat API
    [problem], _ = read_samples([write_lines(tmp_path / "a.jsonl", [{**LM_EVAL, "arguments": turns}])], "toy")
    assert problem.prompt == '[{"role": "user", "content": "1+1?"}]'
    with pytest.raises(ValueError, match="line 1: arguments is None"):
        read_samples([write_lines(tmp_path / "a.jsonl", [{**LM_EVAL, "arguments": None}])], "toy")


PLAIN = {"problem_id": "p", "response": "\\boxed{2}", "answer": "2"}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("response", None, 'response is None, but it must be text: null is no response; give "" for an empty one'),
        ("response", 7, "response is 7, but it must be text"),
        ("problem_id", "", "problem_id is '', but it must be text or a whole number"),
        ("problem_id", True, "problem_id is True"),
        ("answer", float("inf"), "a gold answer is inf, but it must be text or a finite number"),
        ("answer", [["2"]], r"a gold answer is \['2'\]"),
        ("answer", {"value": "2"}, "the gold answer is a mapping .*needs `target`"),
        ("answer", [], "the gold answer is .*needs a gold answer"),
        ("answer", True, "a gold answer is True"),
        ("num_tokens", -1, "num_tokens is -1, but it must be a whole number from 0, or null"),
        ("num_tokens", "5", "num_tokens is '5'"),
        ("num_tokens", 2**53, "num_tokens is 9007199254740992, but .* whole number from 0, or null .*, below"),
        ("num_tokens", 1e300, "num_tokens is 1e\\+300"),
        ("problem_id", "\ud800", r"problem_id is '\\ud800', but it must be text .* without half of a surrogate pair"),
        ("finish_reason", 1, "finish_reason is 1, but it must be text"),
        ("benchmark", [], r"benchmark is \[\]"),
    ],
)
def test_a_wrong_value_is_told_with_file_line_column_and_rule(
    tmp_path: Path, column: str, value: object, message: str
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [PLAIN, {**PLAIN, column: value}])
    with pytest.raises(ValueError, match=rf"a.jsonl, line 2: {message}"):
        read_samples([path], "b")


def test_null_where_it_has_a_meaning(tmp_path: Path) -> None:
    row = {**PLAIN, "problem_id": 1, "answer": 2.0, "num_tokens": None, "finish_reason": None, "benchmark": None}
    [problem], [sample] = read_samples([write_lines(tmp_path / "a.jsonl", [row])], "b")
    assert (problem.key, problem.answers) == (("b", "1"), ("2",))
    assert (sample.num_tokens, sample.finish_reason) == (-1, "unknown")
    for given, kept in (("length", "length"), ("eos_token", "unknown")):
        path = write_lines(tmp_path / "b.jsonl", [{**PLAIN, "finish_reason": given}])
        assert read_samples([path], "b")[1][0].finish_reason == kept


def test_hostile_ids_are_data(tmp_path: Path) -> None:
    rows = [{**PLAIN, "problem_id": name} for name in ("$\\frac$", "a|b", "a\nb", "<script>", "../../x", "\x00")]
    problems, _ = read_samples([write_lines(tmp_path / "a.jsonl", rows)], "b")
    assert [problem.problem_id for problem in problems] == [row["problem_id"] for row in rows]
