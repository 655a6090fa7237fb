"""Samples made elsewhere: plain JSONL/Parquet, verl's rollout and validation dumps, lm-eval's sample logs.

Each reader gives problems and samples, as if they had been drawn here. Number of tokens and finish reason are not in
such files unless named so: they become -1 and "unknown", as does a finish reason that is none of ours.
"""

import filecmp
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from verl_fgrpo.core import dumps
from verl_fgrpo.core.rows import Row, iter_rows, shown, told_with
from verl_fgrpo.evaluation.problems import Problem, ProblemKey, graded_problem, problem_id_of, written_answers
from verl_fgrpo.evaluation.samples import FINISH_REASONS, Sample

FORMATS = ("plain", "verl", "lm-eval")


def iter_samples(
    paths: Sequence[Path | str], benchmark: str, kind: str = "math", file_format: str = "auto"
) -> Iterator[tuple[Problem, Sample]]:
    """Read files of one format, one row after another: every sample with its problem.

    Formats:
        plain: columns problem_id, response, answer (text or a list of alternatives); optional benchmark, prompt,
            num_tokens, finish_reason.
        verl: files of rollout_data_dir or validation_data_dir, read by `core.dumps`: padding rows do not count, a
            session with several outputs is one sample, its last; `data_source` is the benchmark where the dump has it.
            No problem id is in them: it is derived from prompt and gold answer. One training step only: samples of
            different policies must not be pooled.
        lm-eval: `samples_TASK_TIME.jsonl` of `--log_samples`: doc, target, arguments, resps. A document that occurs
            under several filters counts once; several files of one task, with different seeds, all count. The
            benchmark is the file's TASK, `benchmark` where its name does not tell.

    Args:
        paths: files.
        benchmark: name for rows that carry none.
        kind: how they are graded.
        file_format: plain, verl, lm-eval, or auto to tell each file's by its columns.

    Raises:
        ValueError: unknown columns, a value that a column cannot have, several steps in verl dumps, one file twice, or
            one problem with two different answers (in plain files, or prompts).
    """
    problems: dict[ProblemKey, Problem] = {}
    counter: Counter[ProblemKey] = Counter()
    steps: dict[int, Path] = {}
    for one, other in combinations(paths, 2):
        if filecmp.cmp(one, other, shallow=False):
            raise ValueError(f"{one} and {other} are the same file or a copy; its samples would count twice")
    prompts: dict[tuple[str, str], str] = {}
    for path in map(Path, paths):
        for where, problem, responses, tokens, reason in _file_rows(path, benchmark, kind, file_format, steps, prompts):
            known = problems.setdefault(problem.key, problem)
            if known.answers != problem.answers:
                raise ValueError(
                    f"{where}: problem {shown(problem.key)} has two answers, {shown(known.answers)} and "
                    f"{shown(problem.answers)}: problem_id must be unique"
                )
            for response in responses:
                yield known, Sample(*problem.key, counter[problem.key], None, response, tokens, reason)
                counter[problem.key] += 1
    if not counter:
        raise ValueError(f"no samples in {', '.join(map(str, paths)) or 'no file'}")


def detect_format(row: Mapping[str, Any]) -> str:
    """plain, verl or lm-eval, by the columns."""
    if {"input", "output", "gts"} <= row.keys():
        return "verl"
    if {"doc", "resps", "target"} <= row.keys():
        return "lm-eval"
    if {"problem_id", "response", "answer"} <= row.keys():
        return "plain"
    raise ValueError(
        f"cannot tell the format by the columns {shown(sorted(map(str, row)))}; known: plain (problem_id, response, "
        "answer), verl (input, output, gts), lm-eval (doc, target, resps)"
    )


#: where it stands, problem, responses, tokens, finish reason
_Found = tuple[str, Problem, list[str], int, str]


def _file_rows(
    path: Path,
    benchmark: str,
    kind: str,
    file_format: str,
    steps: dict[int, Path],
    prompts: dict[tuple[str, str], str],
) -> Iterator[_Found]:
    found = file_format
    if file_format == "auto":
        first = next(iter_rows(path), None)
        if first is None:
            return
        with told_with(first.where):
            found = detect_format(first)
    if found == "verl":
        yield from _verl_rows(path, benchmark, kind, steps)
        return
    convert = partial(_plain, prompts) if found == "plain" else _LmEval(path, benchmark)
    for row in iter_rows(path):
        with told_with(row.where):
            converted = convert(row, benchmark, kind)
        if converted is not None:
            yield row.where, *converted, row.count("num_tokens", -1), _finish_reason(row)


def _finish_reason(row: Row) -> str:
    reason = row.text("finish_reason", "unknown")
    return reason if reason in FINISH_REASONS else "unknown"


def _plain(prompts: dict[tuple[str, str], str], row: Row, benchmark: str, kind: str) -> tuple[Problem, list[str]]:
    name = row.name("benchmark", benchmark)
    problem = graded_problem(name, row.name("problem_id"), row.text("prompt", ""), kind, row.get("answer"))
    if (known := prompts.setdefault(problem.key, problem.prompt)) != problem.prompt:
        raise row.error("prompt", f"{shown(known)} as in an earlier row; give each problem an id of its own")
    if row.get("response") is None:
        raise row.error("response", 'text: null is no response; give "" for an empty one, or leave the row out')
    return problem, [row.text("response")]


def _verl_rows(path: Path, benchmark: str, kind: str, steps: dict[int, Path]) -> Iterator[_Found]:
    for row in dumps.final_rows(path):
        steps.setdefault(row.step, path)
        with told_with(row.where):
            if len(steps) > 1:
                raise ValueError(
                    f"rows of several training steps ({', '.join(map(str, sorted(steps)))}): those are different "
                    "policies, give the file of one step"
                )
            problem = graded_problem(row.data_source or benchmark, row.problem_id, row.input, kind, row.gts)
        yield row.where, problem, [row.output], -1, "unknown"


class _LmEval:
    """Converts the lines of one file of lm-eval; knows which documents it has seen, under another filter."""

    def __init__(self, path: Path, benchmark: str) -> None:
        task = re.fullmatch(r"samples_(.+)_\d{4}-\d\d-\d\dT[\d.:-]+", path.stem)
        self.benchmark = task[1] if task else benchmark
        self.seen: dict[str, str] = {}

    def __call__(self, row: Row, benchmark: str, kind: str) -> tuple[Problem, list[str]] | None:
        document, name = row.name("doc_id"), row.text("filter", "none")
        first = self.seen.setdefault(document, name)
        if first != name:
            return None  # the same responses again, through another filter
        prompt, gold = _lm_eval_prompt(row), row.get("target")
        digest = row.get("doc_hash") or problem_id_of(prompt, written_answers(gold))
        problem = graded_problem(self.benchmark, f"{document}-{str(digest)[:12]}", prompt, kind, gold)
        return problem, _lm_eval_responses(row)


def _lm_eval_prompt(row: Row) -> str:
    """The prompt: `arguments` is {"gen_args_0": {"arg_0": prompt, ...}}, in older versions [[prompt, ...]]."""
    arguments: Any = row.get("arguments")
    try:
        prompt = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, Mapping) else arguments[0][0]
    except (TypeError, LookupError):
        prompt = None
    if isinstance(prompt, list) and len(prompt) == 1:  # turns as one JSON text, of models behind a chat API
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise row.error(
            "arguments", "those of a generation task: a prompt under gen_args_0, arg_0, or as [[prompt, ...]]"
        )
    return prompt


def _lm_eval_responses(row: Row) -> list[str]:
    """The texts of `resps`: a list for each request, of as many texts as the task repeats."""
    groups = row.get("resps")
    texts = [
        text
        for group in (groups if isinstance(groups, list) else [])
        for text in (group if isinstance(group, list) else [group])
    ]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise row.error("resps", "lists of generated texts; tasks that compare likelihoods have none to grade")
    return texts
