"""A tiny random Qwen2 that now and then answers, and real MATH problems it can be right about, for runs without a GPU.

Its tokenizer is byte-level BPE with Qwen's special tokens and prompt format, and has one token for each of
\\boxed{1} to \\boxed{4}: random tokens then hold an answer often enough that groups have right and wrong rollouts.
"""

import json
import os
import random
from pathlib import Path

_FOLDER = os.environ.get("VERL_FGRPO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
#: Real benchmark files; tests that need them are skipped where there are none.
BENCHMARKS = Path(_FOLDER) / "benchmarks"
NO_DATA = f"no benchmark files at {BENCHMARKS}; name their parent folder in VERL_FGRPO_DATA"
DATA = BENCHMARKS / "math_train.parquet"

ANSWERS = "1234"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
#: The format of Qwen2.5's template for messages without tools.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_model(folder: Path, seed: int = 0) -> Path:
    """Tokenizer and random weights (about 0.1 million) in Hugging Face format."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(f"\\boxed{{{digit}}}", normalized=False) for digit in ANSWERS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[2])
    fast.chat_template = CHATML
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def problems(count: int) -> list[dict[str, str]]:
    """Short MATH problems whose answer is one of those digits; sums where the benchmark files are absent."""
    if not DATA.exists():
        rng = random.Random(0)
        pairs = [(rng.randrange(1, 200), int(rng.choice(ANSWERS))) for _ in range(count)]
        return [{"problem": f"What is {a + b} - {a}?", "answer": str(b)} for a, b in pairs]
    import pyarrow.parquet as pq

    rows = pq.read_table(DATA).to_pylist()
    texts = [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"]["target"]) for row in rows]
    short = [(text, gold) for text, gold in texts if gold in list(ANSWERS) and len(text) < 150]
    return [{"problem": text, "answer": gold} for text, gold in short[:count]]


def write_data(folder: Path, model: Path, count: int = 64, held_out: int = 4, max_tokens: int = 320) -> Path:
    """train.parquet and val.parquet, made by scripts/prepare_data.py's own functions."""
    from verl_fgrpo.evaluation.problems import Problem, problem_id_of, save_problems
    from verl_fgrpo.runs.deepscaler import prepare

    rows = problems(count + held_out)
    folder.mkdir(parents=True, exist_ok=True)
    source, validation = folder / "source.jsonl", folder / "math.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows[held_out:]))
    save_problems(
        [
            Problem("math", problem_id_of(row["problem"], [row["answer"]]), row["problem"], "math", (row["answer"],))
            for row in rows[:held_out]
        ],
        validation,
    )
    prepare(folder, str(model), "qwen2.5", source, [validation], max_tokens, progress=False)
    return folder


if __name__ == "__main__":  # SMOKE=1 of recipes/run_fgrpo_qwen1_5b.sh: python tests/tiny_math.py MODEL DATA
    import sys

    model_folder, data_folder = map(Path, sys.argv[1:])
    write_data(data_folder, write_model(model_folder))
