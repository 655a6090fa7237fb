"""A word-level tokenizer for a small closed language, in Hugging Face format.

There is no unknown token (a word outside the vocabulary is an error, not a guess). The end token is `<|im_end|>` and
the newline is one token, as verl demands of Qwen tokenizers. Padding uses the end token: a padding token of its own
could be sampled in the middle of an answer, would vanish when verl decodes, and the answer would be rewarded as if it
were not there. verl masks padding by position, never by id. The chat template is the message contents alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

END = "<|im_end|>"
NEWLINE = "\n"

# A finished assistant message is closed by the end token; a generation prompt adds nothing.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}" + END + "{% endif %}{% endfor %}"
)

TOKENIZER_CODE = """from transformers import PreTrainedTokenizerFast


class WordTokenizer(PreTrainedTokenizerFast):
    pass
"""


@dataclass(frozen=True)
class WordTokenizer:
    """Words are separated by blanks; a newline is a word of its own. The last word of `vocabulary` is `END`.

    Raises:
        ValueError: the vocabulary repeats a word, lacks the newline, or does not end with `END`.
    """

    vocabulary: tuple[str, ...]

    def __post_init__(self) -> None:
        words = self.vocabulary
        if len(set(words)) != len(words) or NEWLINE not in words or words[-1:] != (END,):
            raise ValueError(f"vocabulary {words}: words must differ, one must be the newline, the last must be {END}")

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.vocabulary)}

    @property
    def end_id(self) -> int:
        return len(self.vocabulary) - 1

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, the same as the Hugging Face tokenizer gives, without loading it.

        Raises:
            ValueError: a word outside the vocabulary.
        """
        words = text.replace(NEWLINE, f" {NEWLINE} ").split(" ")
        try:
            return [self.ids[word] for word in words if word]
        except KeyError as error:
            raise ValueError(f"word {error} is not in the vocabulary {self.vocabulary}: use its words only") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The words joined by blanks, end tokens left out."""
        return " ".join(self.vocabulary[i] for i in ids if i != self.end_id)

    def build(self) -> Any:
        """The tokenizer as a `PreTrainedTokenizerFast`."""
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel(self.ids, unk_token="<|none|>"))
        words.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(" +"), "removed"), pre_tokenizers.Split(NEWLINE, "isolated")]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=words,
            eos_token=END,
            pad_token=END,
            padding_side="left",
            clean_up_tokenization_spaces=False,
            chat_template=CHAT_TEMPLATE,
        )

    def save(self, folder: Path) -> None:
        """Writes the tokenizer so that `AutoTokenizer` gives it back, also from beside a qwen2 config.json.

        transformers 5 distrusts the tokenizer class named in a folder of model_type qwen2 and builds a Qwen2Tokenizer,
        whose pre-tokenizer does not know our words, unless the folder brings tokenizer code of its own (`auto_map`).
        Then, without `trust_remote_code`, it runs no code of the folder and takes the named class after all. With
        `trust_remote_code=True` it imports the file written here, which names the same class.
        """
        self.build().save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text())
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # understood by transformers 4 and 5
        config["auto_map"] = {"AutoTokenizer": [None, "word_tokenizer.WordTokenizer"]}
        path.write_text(json.dumps(config, indent=2) + "\n")
        (folder / "word_tokenizer.py").write_text(TOKENIZER_CODE)
