"""The supervised start model: next-token training on right answers, interruptible and resumable.

arXiv 2602.06717, appendix K: 1,500 steps, batch 32, AdamW, learning rate 5e-4, for a model of 3M parameters. The
default here, for a model a seventh of that, is 1e-3 and fewer steps, which leaves what the experiments need: a model
that is often wrong but seldom unable.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.files import new_file, new_folder, write_json
from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.tasks.common.model import ModelSize, build_model, load_model
from verl_fgrpo.tasks.common.tokenizer import WordTokenizer

IGNORED = -100  # label that torch's cross entropy skips

#: a prompt and a right answer, as text
Example = tuple[str, str]


class Tokenizer(Protocol):
    """What the training needs of a tokenizer; `WordTokenizer` is one."""

    @property
    def end_id(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class SftSettings:
    """Everything that decides the result, besides the examples."""

    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    model: ModelSize = field(default_factory=ModelSize)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate = {self.learning_rate}: must lie between 0 and 1; try 1e-3 (paper: 5e-4)")


def fingerprint(examples: Sequence[Example]) -> str:
    """16 hexadecimal digits that identify the list of examples, order included."""
    return hashlib.sha256("\n\n".join(map("\n\t".join, examples)).encode()).hexdigest()[:16]


def batch_indices(step: int, count: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Examples of one step: epochs are seeded permutations laid end to end, so any step stands alone."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count)
        for epoch in range(positions[0] // count, positions[-1] // count + 1)
    }
    return np.array([orders[position // count][position % count] for position in positions])


class _Batches:
    """Examples as padded tensors.

    Padding stands on the right and attention is causal, so no mask is needed: no answer token sees a padding token.
    """

    def __init__(self, examples: Sequence[Example], tokenizer: Tokenizer, device: str) -> None:
        self.end_id, self.device = tokenizer.end_id, device
        self.rows = [
            (tokenizer.encode(prompt), [*tokenizer.encode(answer), self.end_id]) for prompt, answer in examples
        ]

    def batch(self, indices: NDArray[np.int64]) -> tuple[Any, Any]:
        """Input ids (B, T) and, one place to the left, labels (B, T): answer tokens, `IGNORED` elsewhere."""
        import torch

        rows = [self.rows[i] for i in indices]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        tokens = torch.full((len(rows), width), self.end_id)
        labels = torch.full((len(rows), width), IGNORED)
        for i, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            tokens[i, :end] = torch.tensor(prompt + answer)
            labels[i, len(prompt) - 1 : end - 1] = torch.tensor(answer)
        return tokens[:, :-1].to(self.device), labels[:, :-1].to(self.device)


class _Training:
    """Model, optimizer and losses so far, with a checkpoint that takes them up again bit for bit."""

    def __init__(self, settings: SftSettings, model: Any, device: str, autocast: bool) -> None:
        import torch

        self.autocast = autocast
        self.model = model.to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate)
        self.losses: list[float] = []
        self.seconds = 0.0

    def step(self, tokens: Any, labels: Any) -> None:
        """One update on the mean cross entropy over all answer tokens of the batch."""
        import torch
        from torch.nn.functional import cross_entropy

        began = time.perf_counter()
        answer = labels != IGNORED
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.autocast):
            hidden = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden[answer])
        loss = cross_entropy(logits.float(), labels[answer])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        self.seconds += time.perf_counter() - began

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        import torch

        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        with new_file(path) as partial:
            torch.save({"identity": identity, "losses": self.losses, "seconds": self.seconds, **parts}, partial)

    def load(self, path: Path, identity: dict[str, Any], device: str) -> None:
        import torch

        try:
            saved = torch.load(path, map_location=device, weights_only=True)
            found = dict(saved["identity"])
        except Exception as error:  # libraries raise exceptions of their own on damaged files
            raise ValueError(f"{path} is no checkpoint that can be loaded ({error}); delete it") from error
        if found != identity:
            changed = sorted(key for key in identity if found.get(key) != identity[key])
            raise ValueError(f"{path} was made with other {', '.join(changed)}: use the same settings or delete it")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.losses, self.seconds = saved["losses"], saved["seconds"]


def train_start_model(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    out: Path,
    settings: SftSettings,
    device: str = "cpu",
    checkpoint_every: int = 50,
    progress: bool = True,
    pretrained: Path | None = None,
    autocast: bool = False,
) -> None:
    """Trains on right answers and writes a Hugging Face folder with model, tokenizer and `manifest.json` to `out`.

    Loss: mean cross entropy over the answer tokens of the batch, end token included, prompt tokens excluded.
    Killed and called again, it goes on from the last checkpoint (beside `out`, removed at the end) to the identical
    weights, bit for bit on one CPU thread. A folder `out` that is already there is left alone.
    It begins with a random model of `settings.model`, or with that of the Hugging Face folder `pretrained`.
    `autocast`: matrix products in bfloat16, weights in float32; faster on processors that have such products.

    Raises:
        ValueError: no examples, or a checkpoint made with other settings or examples.
    """
    from tqdm import tqdm

    if out.exists():
        return
    if not examples:
        raise ValueError("0 examples: the start model needs at least one right answer to learn from")
    identity = {**asdict(settings), "examples": fingerprint(examples)}
    checkpoint = out.with_name(out.name + ".checkpoint.pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if pretrained is not None:
        model = load_model(pretrained)
    elif isinstance(tokenizer, WordTokenizer):
        model = build_model(settings.model, tokenizer, settings.seed)
    else:
        raise ValueError("a model from scratch has a word tokenizer; name a pretrained one")
    training, batches = _Training(settings, model, device, autocast), _Batches(examples, tokenizer, device)
    if checkpoint.exists():
        training.load(checkpoint, identity, device)
    done = len(training.losses)
    bar = tqdm(range(done, settings.steps), "start model", initial=done, total=settings.steps, disable=not progress)
    for step in bar:
        training.step(*batches.batch(batch_indices(step, len(examples), settings.batch_size, settings.seed)))
        if (step + 1) % 10 == 0:
            bar.set_postfix(loss=f"{np.mean(training.losses[-10:]):.3f}")
        if (step + 1) % checkpoint_every == 0 and step + 1 < settings.steps:
            training.save(checkpoint, identity)
    with new_folder(out) as folder:
        training.model.save_pretrained(folder)
        tokenizer.save(folder)
        manifest = {
            "settings": identity,
            "device": device,
            "parameters": sum(p.numel() for p in training.model.parameters()),
            "seconds": round(training.seconds, 1),
            "loss": {str(i + 1): round(loss, 4) for i, loss in enumerate(training.losses) if (i + 1) % 50 == 0},
            **provenance(),
        }
        write_json(folder / "manifest.json", manifest)
    checkpoint.unlink(missing_ok=True)
