"""The nine evaluation benchmarks of the paper in one schema (`evaluation.problems.Problem`), sizes checked.

Source: arXiv 2602.06717, L.4. The paper names the benchmarks, not the files; the hub ids below are the common mirrors
with the right size. A local file (JSON, JSON lines, Parquet) can be given for each instead: the columns of the usual
releases and of verl's own schema are recognised.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.rows import Row, iter_rows, shown, told_with
from verl_fgrpo.evaluation.problems import (
    KINDS,
    Problem,
    graded_problem,
    problem_id_of,
    stored_problem,
    written_answers,
)

BLOCKS = ("math", "ood")  # of benchmarks, over which the paper averages


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark comes from and what it must look like."""

    sizes: tuple[int, ...]  # allowed numbers of problems; empty if the paper gives none
    hub: tuple[str, str | None, str]  # dataset id on the Hugging Face hub, with its configuration and split
    # row -> problem, without the benchmark's name; None to leave the row out
    convert: Callable[[str, Row], Problem | None]
    block: str  # one of `BLOCKS`; "" for benchmarks outside of the paper
    note: str  # for people: why this source, what is special


def block_of(benchmark: str) -> str:
    """The paper's block of a benchmark; "" for one outside of the paper."""
    return BENCHMARKS[benchmark].block if benchmark in BENCHMARKS else ""


def load_benchmark(name: str, path: Path | str | None = None, check_size: bool = True) -> list[Problem]:
    """Problems of a benchmark, from a local file or, without `path`, from the hub (needs `datasets` and a network).

    Raises:
        ValueError: unknown name, wrong number of problems, unknown columns, a problem twice, a missing answer.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark {name!r} is unknown; known: {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    remedy = f"download it elsewhere and give --local {name}=FILE. {benchmark.note}"
    rows = iter_rows(path) if path is not None else hub_rows(*benchmark.hub, remedy)
    problems: dict[str, Problem] = {}
    for row in rows:
        with told_with(row.where):
            problem = stored_problem(row, name) or benchmark.convert(name, row)
        if problem is None:
            continue
        if problem.problem_id in problems:
            raise ValueError(f"{row.where}: {name} problem {shown(problem.problem_id)} occurs twice; remove one")
        problems[problem.problem_id] = problem
    source = str(path) if path is not None else f"hub dataset {benchmark.hub}"
    if not problems:
        raise ValueError(f"{name}: {source} holds no problem; give another file")
    if check_size and benchmark.sizes and len(problems) not in benchmark.sizes:
        wanted = " or ".join(map(str, benchmark.sizes))
        raise ValueError(
            f"{name}: {source} gives {len(problems)} problems, the benchmark has {wanted}. {benchmark.note} Give "
            "another file, or switch the size check off and say so next to your numbers."
        )
    return list(problems.values())


def read_problems(path: Path | str, name: str, kind: str = "math") -> list[Problem]:
    """Distinct problems of any file with the known columns, e.g. a training or validation file in verl's format.

    Those of a problem file keep their own kind.

    Raises:
        ValueError: a kind whose gold answers such a file cannot hold, a row without a prompt or a gold answer, one id
            with two prompts or answers, or no row at all.
    """
    if kind not in (kinds := [one for one in KINDS if one not in ("ifeval", "synlogic")]):
        raise ValueError(f"--kind {kind} must be one of {', '.join(kinds)} here")
    if not name.strip():
        raise ValueError("--name is empty, but problems need the name of a benchmark")
    problems: dict[str, Problem] = {}
    for row in iter_rows(path):
        with told_with(row.where):
            problem = stored_problem(row, name) or _plain_problem(name, row, kind)
        if problems.setdefault(problem.problem_id, problem) != problem:
            raise ValueError(
                f"{row.where}: problem {shown(problem.problem_id)} occurs twice with different prompts or answers; "
                "problem_id must be unique"
            )
    if not problems:
        raise ValueError(f"{path} holds no row; give a file with problems")
    return list(problems.values())


def _plain_problem(name: str, row: Row, kind: str = "math") -> Problem:
    prompt, gold = prompt_of(row), gold_of(row)
    given = row.mapping("extra_info").get("problem_id")
    problem_id = problem_id_of(prompt, written_answers(gold)) if given is None else str(given)
    return graded_problem(name, problem_id, prompt, kind, gold)


def hub_rows(repository: str, configuration: str | None, split: str, remedy: str) -> Iterator[Row]:
    """Rows of a data set of the Hugging Face hub; RuntimeError with the remedy if it cannot be had."""
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, Any]] = load_dataset(repository, configuration, split=split)
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
        raise RuntimeError(f"cannot load {repository} ({told}); without a network, {remedy}") from error
    return (Row(row, f"{repository}, row {number}") for number, row in enumerate(rows))


def prompt_of(row: Row) -> str:
    """The question of a row: a text column, or the one user turn of verl's schema; a `context` stands before it.

    Raises:
        ValueError: none, several user turns, or a turn with images or other parts than text.
    """
    column = row.first("problem", "question", "prompt", "Question")
    prompt = row[column]
    if hasattr(prompt, "tolist"):
        prompt = prompt.tolist()
    if not isinstance(prompt, str):
        prompt = _user_turn(prompt, row.where)
    if not prompt.strip():
        raise row.error(column, "a question, and not empty; drop the row")
    context = row.text("context", "").strip()
    return f"{context}\n\n{prompt}" if context else prompt


def _user_turn(turns: Any, where: str) -> str:
    """verl's schema: a list of turns, each with role and content."""
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError(
            f"{where}: the prompt is {shown(turns)}, but it must be text or a list of turns with role and content"
        )
    users = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    if len(users) != 1:
        raise ValueError(f"{where}: a prompt must have one user turn, found {len(users)}")
    if not isinstance(users[0], str):
        raise ValueError(
            f"{where}: the user turn is {shown(users[0])}, but it must be text: images and other parts are not "
            "supported, and as text they would be another prompt; leave such rows out"
        )
    return users[0]


def gold_of(row: Row) -> Any:
    """The gold answer of a row as the file has it: `reward_model.ground_truth` (verl), or a column of its own."""
    if isinstance(row.get("reward_model"), Mapping):
        return row["reward_model"].get("ground_truth")
    return row[row.first("answer", "final_answer", "target")]


def _amc23(name: str, row: Row) -> Problem | None:
    """The 40 of 2023; AI-MO's file holds 83 of 2022 and 2023, told apart by the url."""
    url = row.text("url", "")
    return None if re.search(r"20\d\d_AMC", url) and "2023_AMC" not in url else _plain_problem(name, row)


def _gsm8k(name: str, row: Row) -> Problem:
    solution = row.text(row.first("solution", "answer"))
    if "####" not in solution:
        raise ValueError(f"{name}: no '####' before the answer in {solution[-60:]!r}")
    return _plain_problem(
        name, Row({**row, "answer": solution.rsplit("####", 1)[1].strip().replace(",", "")}, row.where)
    )


def _gpqa(name: str, row: Row) -> Problem:
    """Four choices in an order fixed by the question's hash: the same for every run, and the gold one not always A."""
    question = row.text(row.first("Question", "question")).strip()
    columns = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    choices = [row.name(column).strip() for column in columns]
    order = sorted(range(4), key=lambda index: hashlib.sha256(f"{question}|{choices[index]}".encode()).digest())
    lines = [f"{letter}) {choices[index]}" for letter, index in zip("ABCD", order, strict=True)]
    prompt = question + "\n\n" + "\n".join(lines) + "\n\nAnswer with the letter of the right choice."
    letter = "ABCD"[order.index(0)]
    return Problem(name, problem_id_of(question, choices[:1]), prompt, "choice", (letter,))


def _ifeval(name: str, row: Row) -> Problem:
    instructions, kwargs = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(instructions, list) or not all(isinstance(one, str) for one in instructions) or not instructions:
        raise row.error("instruction_id_list", "a list of instruction ids, e.g. punctuation:no_comma")
    if not isinstance(kwargs, list) or not all(isinstance(one, Mapping) for one in kwargs):
        raise row.error("kwargs", "a list of JSON objects, one for each instruction")
    if len(instructions) != len(kwargs):
        raise ValueError(f"{name}: {len(instructions)} instructions but {len(kwargs)} kwargs in row {row.get('key')}")
    arguments = [{key: value for key, value in entry.items() if value is not None} for entry in kwargs]
    extra = {"instruction_id_list": instructions, "kwargs": arguments}
    return Problem(name, row.name("key"), row.text("prompt"), "ifeval", extra=extra)


def _synlogic(name: str, row: Row) -> Problem:
    prompt = prompt_of(row)
    details = Row(row.mapping("extra_info"), f"{row.where}, extra_info")
    extra = {"task": row.name("data_source"), "game_data_str": details.text("game_data_str")}
    return Problem(name, problem_id_of(prompt, [extra["game_data_str"]]), prompt, "synlogic", extra=extra)


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark(
        (30,), ("HuggingFaceH4/aime_2024", None, "train"), _plain_problem, "math", "AIME I and II of 2024."
    ),
    "aime25": Benchmark((30,), ("math-ai/aime25", None, "test"), _plain_problem, "math", "AIME I and II of 2025."),
    "amc23": Benchmark(
        (40,),
        ("math-ai/amc23", None, "test"),
        _amc23,
        "math",
        "AMC 12A and 12B of 2023 with integer answers; from the file of 83 the 2022 ones are left out.",
    ),
    "math500": Benchmark(
        (500,), ("HuggingFaceH4/MATH-500", None, "test"), _plain_problem, "math", "The 500 of arXiv 2305.20050."
    ),
    "minerva": Benchmark(
        (272,),
        ("math-ai/minervamath", None, "test"),
        _plain_problem,
        "math",
        "OCW courses, arXiv 2206.14858. Some files list several spellings of an answer: any one counts.",
    ),
    "olympiadbench": Benchmark(
        (674, 675),
        ("math-ai/olympiadbench", None, "test"),
        _plain_problem,
        "math",
        "The open-ended, text-only English maths problems of arXiv 2402.14008; mirrors have 674 or 675.",
    ),
    "gpqa": Benchmark(
        (198,),
        ("Idavidrein/gpqa", "gpqa_diamond", "train"),
        _gpqa,
        "ood",
        "GPQA is gated to keep it out of training data: accept its terms on the hub, then log in (`hf auth login`) or "
        "set HF_TOKEN. Do not publish its questions.",
    ),
    "ifeval": Benchmark((541,), ("google/IFEval", None, "train"), _ifeval, "ood", "arXiv 2311.07911."),
    "synlogic": Benchmark(
        (),
        ("MiniMaxAI/SynLogic", "easy", "validation"),
        _synlogic,
        "ood",
        "arXiv 2505.19641. The paper does not say which part; 'easy' is the one trained on at 7B. Grading needs the "
        "verifiers of its repository.",
    ),
    "gsm8k": Benchmark(
        (1319,), ("openai/gsm8k", "main", "test"), _gsm8k, "", "Not in the paper; easy enough for a small model."
    ),
}
