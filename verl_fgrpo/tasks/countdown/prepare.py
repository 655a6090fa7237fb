"""Everything the countdown experiment needs before RL, in one folder and restartable.

supervised.parquet, train.parquet, val.parquet   disjoint problems: for the start model, for RL, held out
base_model/, start_model/                        Hugging Face folders: SmolLM2 before and after the supervised start
settings.json                                    what was asked for, written first
manifest.json                                    lengths and versions, written last: the folder is complete
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import claim, write_parquet
from verl_fgrpo.tasks.common.folder import prepare_folder
from verl_fgrpo.tasks.common.start_model import SftSettings, train_start_model
from verl_fgrpo.tasks.countdown.problems import generate, read_problems, task_settings, to_rows
from verl_fgrpo.tasks.countdown.smollm2 import ChatTokenizer, convert, packaged_file

RESPONSE_LIMIT = 16  # tokens; right answers have at most about 12


@dataclass(frozen=True)
class CountdownSettings:
    """What decides the contents of the folder; counts are problems."""

    supervised: int = 6400
    train: int = 4096
    heldout: int = 128
    seed: int = 1
    sft: SftSettings = field(default_factory=lambda: SftSettings(steps=200, batch_size=32, learning_rate=3e-4))
    task: dict[str, Any] = field(default_factory=task_settings, init=False)


def write_problems(out: Path, settings: CountdownSettings) -> None:
    """The three files of problems, unless they are there: one list without repeats, cut in three.

    Raises:
        ValueError: `out` was begun with other settings.
    """
    claim(out, asdict(settings), remedy="choose another --out, the old settings, or delete the folder")
    sizes = {"val": settings.heldout, "train": settings.train, "supervised": settings.supervised}
    if all((out / f"{name}.parquet").exists() for name in sizes):
        return
    problems = generate(sum(sizes.values()), settings.seed)
    for name, count in sizes.items():
        write_parquet(out / f"{name}.parquet", to_rows(problems[:count], name))
        problems = problems[count:]


def prepare(
    out: Path,
    settings: CountdownSettings,
    model: Path | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes what is missing in `out` and returns the manifest.

    Args:
        out: the folder.
        settings: what decides its contents.
        model: GGUF file of SmolLM2, or a Hugging Face folder to start from instead; None: that of the package.
        device: of the supervised training.
        say: told what happens.

    Raises:
        ValueError: `out` was begun with other settings, or a problem is in two of the files.
    """
    return prepare_folder(out, asdict(settings), partial(_make, out, settings, model, device, say), say)


def _make(
    out: Path, settings: CountdownSettings, model: Path | None, device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    say(f"countdown: {settings.supervised} supervised, {settings.train} training, {settings.heldout} held out")
    write_problems(out, settings)
    splits = {name: read_problems(out / f"{name}.parquet") for name in ("supervised", "train", "val")}
    if len({problem.key for split in splits.values() for problem in split}) < sum(map(len, splits.values())):
        raise ValueError(f"{out}: a problem is in two of the three files, which must be disjoint; build them anew")
    base = model if model is not None and model.is_dir() else out / "base_model"
    if base != model:
        convert(model or packaged_file(), base)
    tokenizer = ChatTokenizer.load(base)
    examples = [(tokenizer.chat(problem.messages), problem.answer) for problem in splits["supervised"]]
    train_start_model(examples, tokenizer, out / "start_model", settings.sft, device, pretrained=base, autocast=True)
    prompts = [tokenizer.chat(problem.messages) for split in splits.values() for problem in split]
    answers = [problem.answer for split in splits.values() for problem in split]
    longest = max(len(tokenizer.encode(answer)) for answer in answers) + 1
    if longest > RESPONSE_LIMIT:
        raise ValueError(f"a right answer has {longest} tokens, but responses may have {RESPONSE_LIMIT}")
    return {
        "device": device,
        "prompt_tokens": max(len(tokenizer.encode(prompt)) for prompt in prompts),
        "response_limit": RESPONSE_LIMIT,
        "longest_answer": longest,
    }
