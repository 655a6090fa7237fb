"""The supervised start model: next-token training on target paths, interruptible and resumable.

arXiv 2602.06717, appendix K: 1,500 steps, batch 32, AdamW, learning rate 5e-4, for a model of 3M parameters. The
default here, for a model a seventh of that, is 1e-3 and fewer steps, which on small mazes leaves what the experiment
needs: a model that is often wrong but seldom unable.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.tasks.maze.dataset import fingerprint
from verl_fgrpo.tasks.maze.manifest import new_file, new_folder, write_json
from verl_fgrpo.tasks.maze.mazes import Maze, solve
from verl_fgrpo.tasks.maze.model import ModelSize, build_model
from verl_fgrpo.tasks.maze.tokenizer import END, END_ID, encode, save_tokenizer

IGNORED = -100  # label that torch's cross entropy skips


@dataclass(frozen=True)
class SftSettings:
    """Everything that decides the result, besides the mazes."""

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


def batch_indices(step: int, count: int, batch_size: int, seed: int) -> np.ndarray:
    """Mazes of one step: epochs are seeded permutations laid end to end, so any step stands alone."""
    order = [
        int(np.random.default_rng([seed, epoch]).permutation(count)[position % count])
        for position in range(step * batch_size, (step + 1) * batch_size)
        for epoch in [position // count]
    ]
    return np.array(order)


def train_start_model(
    mazes: Sequence[Maze],
    out: Path,
    settings: SftSettings,
    device: str = "cpu",
    checkpoint_every: int = 50,
    progress: bool = True,
) -> None:
    """Trains on target paths and writes a Hugging Face folder with model, tokenizer and `manifest.json` to `out`.

    Loss: mean cross entropy over the answer tokens of the batch, end token included, prompt tokens excluded.
    Killed and called again, it goes on from the last checkpoint (beside `out`, removed at the end) to the identical
    weights, bit for bit on one CPU thread. A folder `out` that is already there is left alone.

    Raises:
        ValueError: mazes of several sizes, or a checkpoint made with other settings or mazes.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from tqdm import tqdm

    if out.exists():
        return
    if len(sizes := {maze.size for maze in mazes}) != 1:
        raise ValueError(f"mazes of sizes {sorted(sizes)}: train on one size; filter the list")
    prompts = torch.tensor([encode(maze.text) for maze in mazes])
    answers = [encode(" ".join((*solve(maze), END))) for maze in mazes]
    width = max(map(len, answers))
    inputs = torch.tensor([answer + [END_ID] * (width - len(answer)) for answer in answers])
    labels = torch.tensor([answer + [IGNORED] * (width - len(answer)) for answer in answers])

    identity = {**asdict(settings), "mazes": fingerprint(mazes)}
    checkpoint = out.with_name(out.name + ".checkpoint.pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    model = build_model(settings.model, settings.seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    done, losses, seconds = 0, [], 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if saved["identity"] != identity:
            changed = sorted(key for key in identity if saved["identity"].get(key) != identity[key])
            raise ValueError(
                f"{checkpoint} was made with other {', '.join(changed)}: use the same settings or delete it"
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done, losses, seconds = saved["done"], saved["losses"], saved["seconds"]

    model.train()
    begin = time.perf_counter() - seconds
    bar = tqdm(range(done, settings.steps), "start model", initial=done, total=settings.steps, disable=not progress)
    for step in bar:
        rows = torch.from_numpy(batch_indices(step, len(mazes), settings.batch_size, settings.seed))
        longest = int((labels[rows] != IGNORED).sum(1).max())
        tokens = torch.cat([prompts[rows], inputs[rows, : longest - 1]], dim=1).to(device)
        # Padding stands on the right and attention is causal, so no mask is needed: no answer token sees a padding
        # token.
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, prompts.shape[1] - 1 :]
        loss = cross_entropy(
            model.lm_head(hidden).flatten(0, 1), labels[rows, :longest].flatten().to(device), ignore_index=IGNORED
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 10 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}")
        if (step + 1) % checkpoint_every == 0 and step + 1 < settings.steps:
            state = {
                "identity": identity,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "done": step + 1,
                "losses": losses,
                "seconds": time.perf_counter() - begin,
            }
            with new_file(checkpoint) as partial:
                torch.save(state, partial)

    with new_folder(out) as folder:
        model.save_pretrained(folder)
        save_tokenizer(folder)
        write_json(
            folder / "manifest.json",
            {
                "settings": identity,
                "device": device,
                "parameters": sum(p.numel() for p in model.parameters()),
                "seconds": round(time.perf_counter() - begin, 1),
                "loss": {str(i + 1): round(losses[i], 4) for i in range(len(losses)) if (i + 1) % 50 == 0},
                **provenance(),
            },
        )
    checkpoint.unlink(missing_ok=True)


def load_model(folder: Path, device: str = "cpu") -> Any:
    """The model of a Hugging Face folder, in evaluation mode, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
