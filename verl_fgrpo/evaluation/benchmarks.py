"""The nine evaluation benchmarks of the paper in one schema (`evaluation.problems.Problem`), sizes checked.

Source: arXiv 2602.06717, L.4. The paper names the benchmarks, not the files; the hub ids below are the common mirrors
with the right size. A local file (JSON, JSON lines, Parquet) can be given for each instead: the columns of the usual
releases and of verl's own schema are recognised.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import read_jsonl
from verl_fgrpo.evaluation.problems import Problem, problem_id_of

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "answers_of",
    "iter_rows",
    "load_benchmark",
    "prompt_of",
    "read_problems",
    "read_rows",
]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark comes from and what it must look like.

    Attributes:
        sizes: allowed numbers of problems; empty if the paper gives none.
        hub: dataset id on the Hugging Face hub, with its configuration and split.
        convert: row -> problem, without the benchmark's name; None to leave the row out.
        block: "math" or "ood", for the paper's averages; "" for benchmarks outside it.
        note: for people: why this source, what is special.
    """

    sizes: tuple[int, ...]
    hub: tuple[str, str | None, str]
    convert: Callable[[str, Row], Problem | None]
    block: str
    note: str


def load_benchmark(name: str, path: Path | str | None = None, check_size: bool = True) -> list[Problem]:
    """Problems of a benchmark, from a local file or, without `path`, from the hub (needs `datasets` and a network).

    Raises:
        ValueError: unknown name, wrong number of problems, unknown columns, a problem twice, a missing answer.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark {name!r} is unknown; known: {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    rows = read_rows(path) if path is not None else _from_hub(name, benchmark)
    problems = [problem for row in rows if (problem := benchmark.convert(name, row)) is not None]
    source = str(path) if path is not None else f"hub dataset {benchmark.hub}"
    if check_size and benchmark.sizes and len(problems) not in benchmark.sizes:
        wanted = " or ".join(map(str, benchmark.sizes))
        raise ValueError(
            f"{name}: {source} gives {len(problems)} problems, the benchmark has {wanted}. {benchmark.note} Give "
            "another file, or switch the size check off and say so next to your numbers."
        )
    seen: dict[str, Problem] = {}
    for problem in problems:
        if problem.problem_id in seen:
            raise ValueError(f"{name}: problem {problem.problem_id} occurs twice in {source}")
        seen[problem.problem_id] = problem
    return problems


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """All rows of a .json (list), .jsonl or .parquet file, see `iter_rows`."""
    return list(iter_rows(path))


def iter_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """Rows of a .json (list), .jsonl or .parquet file, one after another; only .json is held in memory as a whole.

    Raises:
        ValueError: another suffix, or what is not JSON, with the line.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    elif path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError(f"{path} must hold a JSON list of problems, not {type(rows).__name__}")
        yield from rows
    elif path.suffix == ".jsonl":
        yield from read_jsonl(path)
    else:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; use .json, .jsonl or .parquet")


def read_problems(path: Path | str, name: str, kind: str = "math") -> list[Problem]:
    """Distinct problems of any file with the known columns, e.g. a training or validation file in verl's format."""
    problems: dict[str, Problem] = {}
    for row in read_rows(path):
        prompt, answers = prompt_of(row), answers_of(row)
        problem_id = str((row.get("extra_info") or {}).get("problem_id") or problem_id_of(prompt, answers))
        problems[problem_id] = Problem(name, problem_id, prompt, kind, answers)
    return list(problems.values())


def _from_hub(name: str, benchmark: Benchmark) -> Iterable[Row]:
    from datasets import load_dataset

    repository, configuration, split = benchmark.hub
    try:
        rows: Iterable[Row] = load_dataset(repository, configuration, split=split)
    except Exception as error:
        raise RuntimeError(
            f"{name}: cannot load {repository} ({type(error).__name__}: {str(error)[:300]}). {benchmark.note} Without "
            f"a network, download it elsewhere and give --local {name}=FILE."
        ) from error
    return rows


def _field(row: Row, *names: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise ValueError(f"none of the columns {names} has a value; the row has {sorted(row)}")


def prompt_of(row: Row) -> str:
    """The question of a row: a text column, or the one user turn of verl's schema."""
    prompt = _field(row, "problem", "question", "prompt", "Question")
    if isinstance(prompt, str):
        return prompt
    users = [turn["content"] for turn in prompt if turn["role"] == "user"]  # verl's schema: a list of turns
    if len(users) != 1:
        raise ValueError(f"a prompt must have one user turn, found {len(users)}")
    return str(users[0])


def answers_of(row: Row) -> tuple[str, ...]:
    """Gold answers as text, without duplicates: a list means alternatives; 142.0 is 142."""
    if isinstance(row.get("reward_model"), Mapping):  # verl's schema
        gold = row["reward_model"]["ground_truth"]
        gold = gold["target"] if isinstance(gold, Mapping) else gold
    else:
        gold = _field(row, "answer", "final_answer", "target")
    if isinstance(gold, str) and gold.startswith("['"):  # a list that was written as text
        gold = ast.literal_eval(gold)
    texts = []
    for item in gold if isinstance(gold, (list, tuple)) else [gold]:
        text = str(int(item)) if isinstance(item, float) and item.is_integer() else str(item).strip()
        if text and text not in texts:
            texts.append(text)
    return tuple(texts)


def _math(name: str, row: Row) -> Problem:
    prompt, answers = prompt_of(row), answers_of(row)
    if not answers:
        raise ValueError(f"{name}: the problem {prompt[:60]!r} has no answer")
    return Problem(name, problem_id_of(prompt, answers), prompt, "math", answers)


def _amc23(name: str, row: Row) -> Problem | None:
    """The 40 of 2023; AI-MO's file holds 83 of 2022 and 2023, told apart by the url."""
    url = str(row.get("url") or "")
    return None if re.search(r"20\d\d_AMC", url) and "2023_AMC" not in url else _math(name, row)


def _gsm8k(name: str, row: Row) -> Problem:
    solution = str(row.get("solution") or row.get("answer"))
    if "####" not in solution:
        raise ValueError(f"{name}: no '####' before the answer in {solution[-60:]!r}")
    return _math(name, {**row, "answer": solution.rsplit("####", 1)[1].strip().replace(",", "")})


def _gpqa(name: str, row: Row) -> Problem:
    """Four choices in an order fixed by the question's hash: the same for every run, and the gold one not always A."""
    question = str(_field(row, "Question", "question")).strip()
    gold = str(_field(row, "Correct Answer")).strip()
    choices = [gold, *(str(_field(row, f"Incorrect Answer {number}")).strip() for number in (1, 2, 3))]
    order = sorted(range(4), key=lambda index: hashlib.sha256(f"{question}|{choices[index]}".encode()).digest())
    lines = [f"{letter}) {choices[index]}" for letter, index in zip("ABCD", order, strict=True)]
    prompt = question + "\n\n" + "\n".join(lines) + "\n\nAnswer with the letter of the right choice."
    letter = "ABCD"[order.index(0)]
    return Problem(name, problem_id_of(question, [gold]), prompt, "choice", (letter,))


def _ifeval(name: str, row: Row) -> Problem:
    instructions = list(_field(row, "instruction_id_list"))
    arguments = [{key: value for key, value in entry.items() if value is not None} for entry in _field(row, "kwargs")]
    if len(instructions) != len(arguments):
        raise ValueError(
            f"{name}: {len(instructions)} instructions but {len(arguments)} kwargs in row {row.get('key')}"
        )
    return Problem(
        name,
        str(_field(row, "key")),
        str(_field(row, "prompt")),
        "ifeval",
        extra={"instruction_id_list": instructions, "kwargs": arguments},
    )


def _synlogic(name: str, row: Row) -> Problem:
    prompt = prompt_of(row)
    details = row.get("extra_info") or {}
    extra = {"task": str(_field(row, "data_source")), "game_data_str": str(_field(details, "game_data_str"))}
    return Problem(name, problem_id_of(prompt, [extra["game_data_str"]]), prompt, "synlogic", extra=extra)


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark((30,), ("HuggingFaceH4/aime_2024", None, "train"), _math, "math", "AIME I and II of 2024."),
    "aime25": Benchmark((30,), ("math-ai/aime25", None, "test"), _math, "math", "AIME I and II of 2025."),
    "amc23": Benchmark(
        (40,),
        ("math-ai/amc23", None, "test"),
        _amc23,
        "math",
        "AMC 12A and 12B of 2023 with integer answers; from the file of 83 the 2022 ones are left out.",
    ),
    "math500": Benchmark(
        (500,), ("HuggingFaceH4/MATH-500", None, "test"), _math, "math", "The 500 of arXiv 2305.20050."
    ),
    "minerva": Benchmark(
        (272,),
        ("math-ai/minervamath", None, "test"),
        _math,
        "math",
        "OCW courses, arXiv 2206.14858. Some files list several spellings of an answer: any one counts.",
    ),
    "olympiadbench": Benchmark(
        (674, 675),
        ("math-ai/olympiadbench", None, "test"),
        _math,
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
