"""What a run reads: training and validation files, and the model. Found, complete, and fit for each other."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_fgrpo.core.pretrained import load_pretrained, render_chat


def _files(value: Any) -> list[Path]:
    return [Path(str(file)).expanduser() for file in ([value] if isinstance(value, str) else value)]


def _named_files(config: DictConfig) -> Iterator[tuple[str, list[Path]]]:
    """The files of training and validation by the recipes' name; none where they are not on this machine."""
    for name, value in (("TRAIN_FILE", config.data.train_files), ("VAL_FILE", config.data.val_files)):
        yield name, [] if "://" in str(value) else _files(value)


def rows(value: Any) -> int | None:
    """Rows of the Parquet files, from their headers; None if one is not there or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return sum(int(pq.read_metadata(file).num_rows) for file in _files(value))
    except (OSError, pa.ArrowInvalid):
        return None


def data_problems(config: DictConfig) -> list[str]:
    """Files that are missing, unreadable, lack columns or rows, or hold prompts over the limit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    problems = []
    for name, files in _named_files(config):
        for file in files:
            if re.search(r"[*?]|\[.*\]|::", str(file)):
                problems.append(
                    f"{name} {file}: verl reads *, ?, [...] and :: as a pattern of other files; use another folder"
                )
                continue
            if not file.is_file():
                problems.append(f"{name} {file} is missing: make it with verl-fgrpo data train (see --help)")
                continue
            try:
                columns = set(pq.read_schema(file).names)
            except (OSError, pa.ArrowInvalid) as error:
                problems.append(f"{name} {file} is not a readable parquet file ({error}); make it again")
                continue
            if absent := sorted({"prompt", "data_source", "reward_model"} - columns):
                problems.append(f"{name} {file} lacks the columns {absent}; make it with verl-fgrpo data train")
    if problems:
        return problems
    count = rows(config.data.train_files)
    if count is not None and count < config.data.train_batch_size:
        problems.append(
            f"TRAIN_FILE has {count} rows, fewer than TRAIN_BATCH_SIZE={config.data.train_batch_size}, so there would "
            "be no step; lower TRAIN_BATCH_SIZE or give more data"
        )
    return problems + _overlong(config)


def _overlong(config: DictConfig) -> list[str]:
    """Prompts over the limit: verl's v1 trainer cuts them at the left without a word, whatever data.truncation says."""
    import pyarrow.parquet as pq

    model = local_model(str(config.actor_rollout_ref.model.path))
    if model is None:
        return []
    trusted = bool(config.actor_rollout_ref.model.get("trust_remote_code"))
    tokenizer = load_pretrained("AutoTokenizer", model, trusted)
    if not tokenizer.chat_template:
        return [f"the tokenizer of {model} has no chat template, which verl needs for prompts; use one that has"]
    limit = int(config.data.max_prompt_length)
    template = dict(config.data.apply_chat_template_kwargs)
    problems = []
    for name, files in _named_files(config):
        long = []
        for file in files:
            for messages in pq.read_table(file, columns=["prompt"])["prompt"].to_pylist():
                text = render_chat(tokenizer, messages, tokenize=False, **template)
                if len(text.encode()) > limit:  # a byte-level tokenizer has at most one token a byte
                    long.append(text)
        tokens = [len(ids) for ids in tokenizer(long, add_special_tokens=False).input_ids] if long else []
        if over := sum(count > limit for count in tokens):
            problems.append(
                f"{name} holds {over} prompts over {limit} tokens (the longest {max(tokens)}), which verl would cut at "
                "the left without a word; make the file with verl-fgrpo data train, or raise MAX_PROMPT_LENGTH"
            )
    return problems


def local_model(path: str) -> Path | None:
    """Folder of a model that is on this machine, given as a folder or as a hub id in the cache; None elsewhere."""
    folder = Path(path).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if "://" in path or path.startswith(("/", ".", "~")) or path.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def model_problems(path: str) -> list[str]:
    """A model that is missing, half here, or that the hub does not give."""
    if "://" in path:
        return []
    model = local_model(path)
    if model is not None and (missing := _missing_weights(model)) is None:
        return []
    if model is not None and (Path(path).expanduser().exists() or os.environ.get("HF_HUB_OFFLINE") == "1"):
        return [f"MODEL_PATH {path} lacks {missing}; download the model completely: hf download"]
    if path.startswith(("/", ".", "~")) or path.count("/") != 1 or Path(path).exists():
        return [f"MODEL_PATH {path} has no config.json; give the folder of a Hugging Face model or a hub id"]
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return [
            f"MODEL_PATH {path} is not in the local cache and HF_HUB_OFFLINE=1; download it first: hf download {path}"
        ]
    return _hub_problems(path)


def _missing_weights(model: Path) -> str | None:
    """What of the weights is not there: shards that the index names, or all."""
    index = model / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        absent = [shard for shard in shards if not (model / shard).is_file()]
        return f"{len(absent)} of {len(shards)} weight files ({absent[0]}, ...)" if absent else None
    return None if any(model.glob("*.safetensors")) or any(model.glob("*.bin")) else "weights (*.safetensors)"


def _hub_problems(path: str) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError

    api = HfApi()
    try:
        api.model_info(path, timeout=5)
        api.auth_check(path)
    except GatedRepoError:
        return [
            f"MODEL_PATH {path} is gated and your login may not read it; accept its terms there, then hf auth login"
        ]
    except Exception as error:  # whatever the client raises, the model cannot be had
        return [
            f"MODEL_PATH {path} is not in the local cache and the hub does not give it ({type(error).__name__}); check "
            f"the name, log in for a gated model (hf auth login), or download it elsewhere (hf download {path})"
        ]
    return []


def parameters(path: str) -> float | None:
    """Billions of parameters of a model on this machine, from the headers of its safetensors files; None elsewhere."""
    from math import prod

    from safetensors import safe_open

    model = local_model(path)
    files = sorted(model.glob("*.safetensors")) if model else []
    total = 0
    for file in files:
        with safe_open(file, framework="np") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 - no mapping
    return total / 1e9 if files else None
