"""Theorems, verl data files and a supervised start model in one restartable folder.

train.parquet, val.parquet   verl's data files; val holds the held-out theorems
heldout.json                 the held-out theorems with their enumerated proofs
theorems.json                all theorems with their proofs, as they were drawn
start_model/                 Hugging Face folder: model, tokenizer, manifest.json
settings.json, manifest.json see tasks/common/folder
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_parquet
from verl_fgrpo.tasks.common.folder import prepare_folder
from verl_fgrpo.tasks.common.model import ModelSize
from verl_fgrpo.tasks.common.start_model import SftSettings, train_start_model
from verl_fgrpo.tasks.proofs.task import TOKENIZER, prompt_of, to_rows
from verl_fgrpo.tasks.proofs.theorems import (
    MAX_PROOF_TOKENS,
    MAX_STATEMENT_TOKENS,
    Theorem,
    load_theorems,
    make_theorems,
    save_theorems,
)

MODEL = ModelSize(layers=3, hidden=128, mlp=512)


@dataclass(frozen=True)
class ProofSettings:
    """What decides the contents of the folder; counts are theorems.

    The start model learns from `supervised` theorems, reinforcement learning from `train` others: on theorems that it
    has learnt by heart a group would be all right.
    """

    supervised: int = 3_000
    train: int = 1_000
    heldout: int = 160
    proofs_each: int = 4
    seed: int = 0
    sft: SftSettings = field(default_factory=lambda: SftSettings(steps=1_500, batch_size=64, model=MODEL))

    def __post_init__(self) -> None:
        for name in ("supervised", "train", "heldout", "proofs_each"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")


def prepare(
    out: Path,
    settings: ProofSettings,
    device: str = "cpu",
    jobs: int = 1,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes what is missing in `out` and returns the manifest; see `folder.prepare_folder`."""
    return prepare_folder(out, asdict(settings), partial(_make, out, settings, device, jobs, progress, say), say)


def _make(
    out: Path, settings: ProofSettings, device: str, jobs: int, progress: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    theorems = _theorems(out / "theorems.json", settings, jobs, progress, say)
    heldout, rest = theorems[: settings.heldout], theorems[settings.heldout :]
    train, supervised = rest[: settings.train], rest[settings.train :]
    write_parquet(out / "train.parquet", to_rows(train, "train"))
    write_parquet(out / "val.parquet", to_rows(heldout, "val"))
    save_theorems(out / "heldout.json", heldout)
    examples = [(prompt_of(t.statement), proof) for t in supervised for proof in t.proofs[: settings.proofs_each]]
    train_start_model(examples, TOKENIZER, out / "start_model", settings.sft, device, progress=progress)
    return {
        "device": device,
        "prompt_tokens": MAX_STATEMENT_TOKENS + 1,
        "response_limit": MAX_PROOF_TOKENS + 4,  # room for proofs a little longer than those enumerated, and the end
        "examples": len(examples),
        "mean_proofs": round(sum(len(theorem.proofs) for theorem in heldout) / len(heldout), 2),
        "incomplete": sum(not theorem.complete for theorem in heldout),
    }


def _theorems(
    path: Path, settings: ProofSettings, jobs: int, progress: bool, say: Callable[[str], None]
) -> list[Theorem]:
    from tqdm import tqdm

    if not path.exists():
        count = settings.supervised + settings.train + settings.heldout
        say(f"theorems: {settings.supervised} supervised, {settings.train} for training, {settings.heldout} held out")
        with tqdm(total=count, desc="theorems with their proofs", disable=not progress) as bar:
            found = make_theorems(count, settings.seed, jobs, lambda done: bar.update(done - bar.n))
        save_theorems(path, found)
    return load_theorems(path)
