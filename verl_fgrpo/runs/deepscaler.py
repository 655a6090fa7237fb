"""Training file for verl from DeepScaleR: one row per problem, prompts that fit, counts told at every step.

Source: arXiv 2602.06717, L.1: rows over 1,024 tokens and duplicates with conflicting answers are dropped;
39,202 are left.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_json, write_parquet
from verl_fgrpo.core.pretrained import load_pretrained, render_chat
from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.core.rows import Row, iter_rows
from verl_fgrpo.evaluation.benchmarks import gold_of, hub_rows, prompt_of
from verl_fgrpo.evaluation.graders import parse_math, verify_math
from verl_fgrpo.evaluation.problems import Problem, mended, problem_id_of, written_answers
from verl_fgrpo.evaluation.prompts import build_prompt
from verl_fgrpo.runs.cost import PAPER_PROBLEMS

HUB_ID = "agentica-org/DeepScaleR-Preview-Dataset"


@dataclass(frozen=True)
class Counts:
    """Rows left after each step, in the order of the steps."""

    read: int  # rows of the source
    with_answer: int  # with a problem and a gold answer
    consistent: int  # rows whose problem has one answer throughout the source
    unique: int  # one row per problem
    fitting: int  # prompt within the token limit; these are written
    unparsable_gold: int  # of them, those whose gold answer math-verify cannot parse; kept, but they are never rewarded
    fitting_bare: int  # problems that fit if the limit is on the problem alone, without system prompt and chat template
    rows_fitting: int  # rows that fit if repetitions of a problem with the same answer are kept
    rows_fitting_bare: int  # both

    def describe(self) -> str:
        """The counts as text, compared with the paper's."""
        return (
            f"{self.read:,} rows read\n"
            f"{self.with_answer:,} with problem and answer ({self.read - self.with_answer:,} without dropped)\n"
            f"{self.consistent:,} consistent: {self.with_answer - self.consistent:,} rows of problems with conflicting "
            "answers dropped\n"
            f"{self.unique:,} problems ({self.consistent - self.unique:,} repetitions dropped)\n"
            f"{self.fitting:,} with a prompt within the limit ({self.unique - self.fitting:,} longer ones dropped); "
            f"the paper has {PAPER_PROBLEMS:,}, so {self.fitting - PAPER_PROBLEMS:+,}\n"
            f"{self.unparsable_gold:,} of them have a gold answer that math-verify cannot parse: never rewarded, kept\n"
            f"other readings of the paper's sentence: {self.fitting_bare:,} with the limit on the bare problem, "
            f"{self.rows_fitting:,} with repetitions kept, {self.rows_fitting_bare:,} with both"
        )


def select(
    rows: Iterable[Mapping[str, Any]],
    prompt_tokens: Callable[[str], int],
    bare_tokens: Callable[[str], int],
    max_tokens: int,
    equal: Callable[[str, str], bool],
    parsable: Callable[[str], bool],
    progress: bool = True,
) -> tuple[list[tuple[str, str]], Counts]:
    """(problem, gold answer as written) of every row to train on, in the order of first appearance, and the counts.

    Problems are the same if their text is, apart from white space. Their answers conflict if two spellings are not
    `equal`; then all rows of the problem go. Otherwise the first spelling stays.

    Args:
        rows: with the columns of the usual releases (problem, answer) or verl's schema.
        prompt_tokens: tokens of the whole prompt, system prompt and chat template included.
        bare_tokens: tokens of the problem alone.
        max_tokens: longest prompt kept.
        equal: whether two different spellings are the same answer.
        parsable: whether a gold answer can be graded.
    """
    from tqdm import tqdm

    read = 0
    spellings: dict[str, list[str]] = defaultdict(list)
    texts: dict[str, str] = {}
    for row in rows:
        read += 1
        row = Row(row, f"row {read}")
        try:
            problem, answers = prompt_of(row).strip(), written_answers(gold_of(row))
        except ValueError:
            continue
        if len(answers) != 1:
            continue
        key = " ".join(problem.split())
        texts.setdefault(key, problem)
        spellings[key].append(answers[0])
    with_answer = sum(map(len, spellings.values()))

    kept = []
    consistent = 0
    for key, found in spellings.items():
        golds = [mended([answer])[0] for answer in dict.fromkeys(found)]
        if all(equal(golds[0], other) for other in golds[1:]):
            consistent += len(found)
            kept.append((texts[key], found[0]))
    unique = len(kept)
    bare = [problem for problem, _ in kept if bare_tokens(problem) <= max_tokens]
    bar = tqdm(kept, desc="counting tokens", unit="problem", disable=not progress)
    kept = [(problem, answer) for problem, answer in bar if prompt_tokens(problem) <= max_tokens]
    in_rows = [sum(len(spellings[" ".join(one.split())]) for one in group) for group in ([p for p, _ in kept], bare)]
    bar = tqdm(kept, desc="parsing answers", unit="problem", disable=not progress)
    unparsable = sum(not parsable(mended([answer])[0]) for _, answer in bar)
    return kept, Counts(read, with_answer, consistent, unique, len(kept), unparsable, len(bare), *in_rows)


def verl_row(
    source: str,
    index: int,
    problem: str,
    answers: Sequence[str],
    preset: str,
    split: str,
    problem_id: str | None = None,
) -> dict[str, Any]:
    """One row in verl's schema; the chat template is applied by verl, with the arguments of the recipe.

    The gold answers are mended (`problems.mended`); as they were written they are in `extra_info`.
    """
    prompt = build_prompt(preset, Problem(source, "", problem, "math", tuple(answers)))
    golds = mended(answers)
    return {
        "data_source": source,
        "prompt": list(prompt.messages),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": golds[0] if split == "train" else list(golds)},
        "extra_info": {
            "split": split,
            "index": index,
            "problem_id": problem_id or problem_id_of(problem, list(answers)),
            "original_answers": list(answers),
        },
    }


def prepare(
    out: Path,
    model: str,
    preset: str,
    source: Path | None = None,
    validation: Sequence[Path] = (),
    max_tokens: int = 1024,
    progress: bool = True,
) -> Counts:
    """Write OUT/train.parquet, with `validation` OUT/val.parquet, and OUT/manifest.json with counts and provenance.

    Args:
        model: folder or hub id whose tokenizer and chat template count the tokens.
        preset: prompt preset, see `evaluation.prompts`.
        source: a local .json, .jsonl or .parquet file; DeepScaleR from the hub without one.
        validation: benchmark files of `verl-fgrpo data benchmarks`; problems graded by math-verify are taken.
        max_tokens: longest prompt kept.

    Raises:
        ValueError: no row is left, or a validation file without math problems.
    """
    # an unknown preset is an error before anything is loaded
    arguments = build_prompt(preset, Problem("", "", "?", "math", ("0",))).template
    tokenizer = load_pretrained("AutoTokenizer", model)
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {model} has no chat template, which verl needs for prompts")

    def prompt_tokens(problem: str) -> int:
        messages = build_prompt(preset, Problem("", "", problem, "math", ("0",))).messages
        text = render_chat(tokenizer, list(messages), tokenize=False, **arguments)
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    def bare_tokens(problem: str) -> int:
        return len(tokenizer(problem, add_special_tokens=False).input_ids)

    benchmarks = _validation_rows(validation, preset, prompt_tokens, max_tokens)  # before anything is written
    remedy = "download it elsewhere and give --source FILE"
    found = iter_rows(source) if source is not None else hub_rows(HUB_ID, None, "train", remedy)
    kept, counts = select(found, prompt_tokens, bare_tokens, max_tokens, _equal, _parsable, progress)
    if not kept:
        raise ValueError(f"no problem is left of {source or HUB_ID}:\n{counts.describe()}")
    rows = [verl_row("deepscaler", i, p, [a], preset, "train") for i, (p, a) in enumerate(kept)]
    write_parquet(out / "train.parquet", rows)
    if benchmarks:
        write_parquet(out / "val.parquet", benchmarks)
    manifest = {
        "source": str(source.name) if source is not None else HUB_ID,
        "counts": asdict(counts),
        "paper_rows": PAPER_PROBLEMS,
        "validation_rows": len(benchmarks),
        "model": model,
        "preset": preset,
        "chat_template_arguments": arguments,
        "chat_template_sha256": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest(),
        "max_tokens": max_tokens,
        "provenance": provenance(("transformers", "math-verify", "datasets")),
    }
    write_json(out / "manifest.json", manifest)
    return counts


def _validation_rows(
    files: Sequence[Path], preset: str, prompt_tokens: Callable[[str], int], max_tokens: int
) -> list[dict[str, Any]]:
    from verl_fgrpo.evaluation.problems import load_problems

    problems = [problem for problem in load_problems(files) if problem.kind == "math"] if files else []
    if files and not problems:
        raise ValueError(
            f"none of {', '.join(map(str, files))} holds math problems; see verl-fgrpo data benchmarks --out . --list"
        )
    long = [problem.key for problem in problems if prompt_tokens(problem.prompt) > max_tokens]
    if long:
        raise ValueError(
            f"{len(long)} validation problems have prompts over {max_tokens} tokens (first: {long[0]}), and leaving "
            "them out would change the benchmark; raise --max-tokens and MAX_PROMPT_LENGTH"
        )
    return [
        verl_row(problem.benchmark, index, problem.prompt, problem.answers, preset, "test", problem.problem_id)
        for index, problem in enumerate(problems)
    ]


def _equal(one: str, other: str) -> bool:
    return verify_math(parse_math(f"\\boxed{{{one}}}"), parse_math(f"\\boxed{{{other}}}"))


def _parsable(answer: str) -> bool:
    return bool(parse_math(f"\\boxed{{{answer}}}"))
