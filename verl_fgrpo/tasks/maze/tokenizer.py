"""Word-level maze tokenizer in Hugging Face format.

Ten tokens, no unknown token (a word outside the vocabulary is an error, not a guess). Actions are ordinary tokens,
because verl decodes rollouts without special tokens. The end token is `<|im_end|>` and the newline is one token, as
verl demands of Qwen tokenizers. Padding uses the end token: a padding token of its own could be sampled in the middle
of an answer, would vanish when verl decodes, and the answer would be rewarded as if it were not there. verl masks
padding by position, never by id. The chat template is the message contents alone: a maze costs its own tokens and
nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from verl_fgrpo.tasks.maze.mazes import GOAL, MOVES, PATH, ROW_SEPARATOR, START, WALL

END = "<|im_end|>"
VOCABULARY = (WALL, PATH, START, GOAL, ROW_SEPARATOR, *MOVES, END)
TOKEN_ID = {token: i for i, token in enumerate(VOCABULARY)}
END_ID = TOKEN_ID[END]

# A finished assistant message is closed by the end token; a generation prompt adds nothing.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}" + END + "{% endif %}{% endfor %}"
)

TOKENIZER_CODE = """from transformers import PreTrainedTokenizerFast


class MazeTokenizer(PreTrainedTokenizerFast):
    pass
"""


def build_tokenizer() -> Any:
    """The tokenizer as a `PreTrainedTokenizerFast`."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(TOKEN_ID, unk_token="<|none|>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" +"), "removed"), pre_tokenizers.Split(ROW_SEPARATOR, "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=END,
        pad_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def save_tokenizer(folder: Path) -> None:
    """Writes the tokenizer so that `AutoTokenizer` gives it back, also from beside a qwen2 config.json.

    transformers 5 distrusts the tokenizer class named in a folder of model_type qwen2 and builds a Qwen2Tokenizer,
    whose pre-tokenizer does not know our words, unless the folder brings tokenizer code of its own (`auto_map`).
    Then, without `trust_remote_code`, it runs no code of the folder and takes the named class after all. With
    `trust_remote_code=True` it imports the file written here, which names the same class.
    """
    build_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # understood by transformers 4 and 5
    config["auto_map"] = {"AutoTokenizer": [None, "maze_tokenizer.MazeTokenizer"]}
    path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "maze_tokenizer.py").write_text(TOKENIZER_CODE)


def encode(text: str) -> list[int]:
    """Token ids of maze or action text, the same as the Hugging Face tokenizer gives, without loading it.

    Raises:
        ValueError: a word outside the vocabulary.
    """
    words = text.replace(ROW_SEPARATOR, f" {ROW_SEPARATOR} ").split(" ")
    try:
        return [TOKEN_ID[word] for word in words if word]
    except KeyError as error:
        raise ValueError(
            f"word {error} is not in the maze vocabulary {VOCABULARY}: write mazes with Maze.text"
        ) from None
