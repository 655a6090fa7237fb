"""Samples made elsewhere: plain JSONL/Parquet, verl's rollout and validation dumps, lm-eval's sample logs.

Each reader gives problems and samples, as if they had been drawn here. Number of tokens and finish reason are not in
such files unless named so: they become -1 and "unknown".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.benchmarks import iter_rows
from verl_fgrpo.evaluation.problems import Problem, problem_id_of
from verl_fgrpo.evaluation.samples import Sample

__all__ = ["detect_format", "iter_samples", "read_samples"]

Row = Mapping[str, Any]


def read_samples(
    paths: Sequence[Path | str], benchmark: str, kind: str = "math", file_format: str = "auto"
) -> tuple[list[Problem], list[Sample]]:
    """All problems and samples of `iter_samples`, in memory."""
    pairs = list(iter_samples(paths, benchmark, kind, file_format))
    return list({problem.key: problem for problem, _ in pairs}.values()), [sample for _, sample in pairs]


def iter_samples(
    paths: Sequence[Path | str], benchmark: str, kind: str = "math", file_format: str = "auto"
) -> Iterator[tuple[Problem, Sample]]:
    """Read files of one format, one row after another: every sample with its problem.

    Formats:
        plain: columns problem_id, response, answer (text or a list of alternatives); optional benchmark, prompt,
            num_tokens, finish_reason.
        verl: columns input, output, gts (verl's rollout_data_dir and validation_data_dir). No problem id is in them: it
            is derived from prompt and gold answer, so equal prompts with equal answers are one problem. One training
            step only: samples of different policies must not be pooled.
        lm-eval: lines of `samples_*.jsonl` with doc, target, arguments, resps; the first filter of each document.

    Args:
        paths: files.
        benchmark: name for rows that carry none.
        kind: how they are graded.
        file_format: plain, verl, lm-eval, or auto to tell by the columns.

    Raises:
        ValueError: unknown columns, several steps in verl dumps, one problem with two different answers.
    """
    problems: dict[tuple[str, str], Problem] = {}
    counter: Counter[tuple[str, str]] = Counter()
    steps: set[Any] = set()
    documents: set[tuple[str, Any]] = set()
    for path in paths:
        for row in iter_rows(path):
            found = detect_format(row) if file_format == "auto" else file_format
            if found == "verl":
                steps.add(row.get("step"))
                if len(steps) > 1:
                    raise ValueError(
                        f"{path}: rows of several training steps ({sorted(map(str, steps))}): those are different "
                        "policies, give the file of one step"
                    )
            if found == "lm-eval":
                document = (str(row["doc_hash"]), row["doc_id"])
                if document in documents:
                    continue  # the same responses again, through another filter
                documents.add(document)
            problem, responses = _CONVERTERS[found](row, benchmark, kind)
            known = problems.setdefault(problem.key, problem)
            if known.answers != problem.answers:
                raise ValueError(
                    f"{path}: problem {problem.key} has two answers, {known.answers} and {problem.answers}: problem_id "
                    "must be unique"
                )
            for response in responses:
                tokens, reason = int(row.get("num_tokens", -1)), str(row.get("finish_reason", "unknown"))
                yield known, Sample(*problem.key, counter[problem.key], None, response, tokens, reason)
                counter[problem.key] += 1
    if not counter:
        raise ValueError(f"no samples in {[str(path) for path in paths]}")


def detect_format(row: Row) -> str:
    """plain, verl or lm-eval, by the columns."""
    if {"input", "output", "gts"} <= row.keys():
        return "verl"
    if {"doc", "resps", "target"} <= row.keys():
        return "lm-eval"
    if {"problem_id", "response", "answer"} <= row.keys():
        return "plain"
    raise ValueError(
        f"cannot tell the format by the columns {sorted(row)}; known: plain (problem_id, response, answer), verl "
        "(input, output, gts), lm-eval (doc, target, resps)"
    )


def _plain(row: Row, benchmark: str, kind: str) -> tuple[Problem, list[str]]:
    name = str(row.get("benchmark") or benchmark)
    problem = Problem(name, str(row["problem_id"]), str(row.get("prompt", "")), kind, _texts(row["answer"]))
    return problem, [str(row["response"])]


def _verl(row: Row, benchmark: str, kind: str) -> tuple[Problem, list[str]]:
    prompt, answers = str(row["input"]), _texts(row["gts"])
    return Problem(benchmark, problem_id_of(prompt, answers), prompt, kind, answers), [str(row["output"])]


def _lm_eval(row: Row, benchmark: str, kind: str) -> tuple[Problem, list[str]]:
    arguments = row["arguments"]
    first = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, Mapping) else arguments[0][0]
    answers = _texts(row["target"])
    responses = [str(text) for group in row["resps"] for text in (group if isinstance(group, list) else [group])]
    return Problem(benchmark, f"{row['doc_id']}-{str(row['doc_hash'])[:12]}", str(first), kind, answers), responses


_CONVERTERS = {"plain": _plain, "verl": _verl, "lm-eval": _lm_eval}


def _texts(gold: Any) -> tuple[str, ...]:
    if gold is None:
        raise ValueError("a row has no gold answer; grading needs one")
    return tuple(str(text) for text in gold) if isinstance(gold, (list, tuple)) else (str(gold),)
