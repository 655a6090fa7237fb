"""A small Qwen2 from scratch, in Hugging Face format.

The paper's model: 4 layers, hidden 256, MLP 1024, 4 heads, 2 key-value heads, about 3M parameters (arXiv 2602.06717,
appendix K; 2602.02710). The default here is smaller so that a CPU can train it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_fgrpo.core.pretrained import load_pretrained
from verl_fgrpo.tasks.common.tokenizer import WordTokenizer


@dataclass(frozen=True)
class ModelSize:
    """Qwen2 dimensions; `hidden` must be a multiple of 2 * `heads`, and `heads` of `kv_heads`."""

    layers: int = 3
    hidden: int = 96
    mlp: int = 384
    heads: int = 4
    kv_heads: int = 2

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.mlp, self.heads, self.kv_heads) < 1:
            raise ValueError(f"{self}: every dimension must be at least 1")
        if self.hidden % self.heads or self.heads % self.kv_heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                f"{self}: hidden must be a multiple of 2 * heads, and heads a multiple of kv_heads; "
                f"try hidden={2 * self.heads * max(1, round(self.hidden / (2 * self.heads)))}, kv_heads=1"
            )


PAPER = ModelSize(layers=4, hidden=256, mlp=1024, heads=4, kv_heads=2)


def build_config(size: ModelSize, tokenizer: WordTokenizer) -> Any:
    """The `Qwen2Config`: the tokenizer's vocabulary, no weight tying, float32, initial std 1 / sqrt(hidden)."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=len(tokenizer.vocabulary),
        num_hidden_layers=size.layers,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        use_sliding_window=False,
        # Qwen2's own 0.02 suits widths in the thousands; at these it slows the first hundreds of steps.
        initializer_range=size.hidden**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.end_id,
        pad_token_id=tokenizer.end_id,
        dtype="float32",
    )


def build_model(size: ModelSize, tokenizer: WordTokenizer, seed: int) -> Any:
    """A randomly initialised `Qwen2ForCausalLM`; the global torch generator is left as it was."""
    import torch
    from transformers import GenerationConfig, Qwen2ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(build_config(size, tokenizer))
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.end_id, pad_token_id=tokenizer.end_id
    )
    return model


def load_model(folder: Path) -> Any:
    """The model of a Hugging Face folder, in evaluation mode, float32."""
    import torch

    return load_pretrained("AutoModelForCausalLM", folder, dtype=torch.float32).eval()
