"""verl's checkpoints: where they are, which can be resumed, and a callback that keeps what is worth its disk.

RUN/global_step_N/data.pt                            written last; without it the checkpoint is not complete
RUN/global_step_N/actor/*_world_size_W_rank_R.pt     state: parameters, optimiser, scheduler and random streams, fp32
RUN/global_step_N/actor/huggingface/                 weights in Hugging Face's format, fp32
"""

import logging
import shutil
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def step_folders(run: Path) -> dict[int, Path]:
    """verl's checkpoint folders of a run by step, in order."""
    found = {path.name.removeprefix("global_step_"): path for path in run.glob("global_step_*") if path.is_dir()}
    return dict(sorted((int(step), path) for step, path in found.items() if step.isdecimal()))


def weights(folder: Path) -> Path | None:
    """Folder of a checkpoint's weights in Hugging Face's format; None if there are none."""
    found = folder / "actor" / "huggingface"
    return found if any(found.glob("*.safetensors")) else None


def is_complete(folder: Path) -> bool:
    """Whether verl can resume from this checkpoint."""
    return (folder / "data.pt").exists() and world_size(folder) is not None


def world_size(folder: Path) -> int | None:
    """Number of ranks that wrote the state, the only number that can load it; None without a state."""
    for file in (folder / "actor").glob("model_world_size_*_rank_*.pt"):
        return int(file.name.split("_")[3])
    return None


class KeepNewestState:
    """Keeps the newest full state, and the weights of every `trainer.keep_weights_every` steps.

    For `trainer.checkpoint_callback_class` of verl (0.9.1), which calls it in the driver once a checkpoint is complete
    and its pointer written. A full state is four times as large as weights, so frequent checkpoints stay affordable:
    a crash costs the steps since the last one. verl names a base class, but only calls these two methods.

    Args:
        config: verl's whole configuration.

    Raises:
        ValueError: `trainer.keep_weights_every` is no whole number of at least 1.
    """

    def __init__(self, config: Any) -> None:
        every = config.trainer.get("keep_weights_every")
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"trainer.keep_weights_every is {every!r}, but must be a whole number of steps of at least 1; "
                "add +trainer.keep_weights_every=153"
            )
        self.every = every

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any) -> None:
        """Reduce every older checkpoint to its weights, or remove it. One that cannot be removed is told, no more."""
        if async_save:  # the new one may not be complete yet
            return
        for step, folder in step_folders(Path(checkpoint_dir).parent).items():
            if step >= global_step:
                continue
            try:
                if step % self.every == 0:
                    _keep_weights(folder)
                else:
                    shutil.rmtree(folder)
            except OSError as error:
                logger.warning("%s could not be reduced (%s); remove it, or the disk fills", folder, error)


def _keep_weights(folder: Path) -> None:
    if weights(folder) is None:
        logger.warning("%s has no weights in actor/huggingface, so its state is kept", folder)
        return
    (folder / "data.pt").unlink(missing_ok=True)  # first: from here on it is not complete
    for entry in [*folder.iterdir(), *(folder / "actor").iterdir()]:
        if entry.name not in ("actor", "huggingface"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
