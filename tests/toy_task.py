"""A toy task for tests of the CPU platform, with a tiny random model: a word of the parity of the prompt's last one.

A random model is right a third of the time, so that nearly every batch has groups with both outcomes.
"""

import random
from pathlib import Path
from typing import Any

WORDS = [f"w{i}" for i in range(20)]
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "\n", "user", "assistant", "system"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|> ' + message['role'] + ' ' + message['content'] + ' <|im_end|> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
)


def write_model(
    folder: Path, hidden: int = 64, layers: int = 4, extra_vocab: int = 0, seed: int = 0, tie: bool = True
) -> Path:
    """Write tokenizer and random weights in Hugging Face format; `extra_vocab` ids lie beyond the tokenizer."""
    import torch
    from tokenizers import Tokenizer, models
    from tokenizers.pre_tokenizers import Sequence, Split
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    vocab = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Sequence([Split("\n", "isolated"), Split(" ", "removed")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(vocab) + extra_vocab,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=vocab["<|im_end|>"],
        pad_token_id=vocab["<pad>"],
    )
    model = Qwen2ForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    # Next to a config.json of model_type qwen2, transformers 5 reads any tokenizer as Qwen2Tokenizer.
    fast.save_pretrained(folder / "tokenizer")
    return folder


def write_data(file: Path, rows: int, prompt_words: int, seed: int = 0) -> Path:
    """Write verl's parquet file: a prompt of random words, whose last word is the answer."""
    import pandas as pd

    rng = random.Random(seed)
    records: list[dict[str, Any]] = []
    for index in range(rows):
        words = rng.choices(WORDS, k=prompt_words)
        records.append(
            {
                "data_source": "toy",
                "prompt": [{"role": "user", "content": " ".join(words)}],
                "ability": "copy",
                "reward_model": {"style": "rule", "ground_truth": words[-1]},
                "extra_info": {"index": index, "split": "train"},
            }
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(records).to_parquet(file)
    return file


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """1.0 if the answer begins with a word whose number is even or odd as that of the prompt's last word."""
    words = solution_str.split()
    return float(bool(words) and words[0] in WORDS and WORDS.index(words[0]) % 2 == WORDS.index(ground_truth) % 2)
