"""The tokenizer must survive AutoTokenizer beside a qwen2 config.json, and cost a maze nothing but its own tokens."""

import json

import numpy as np
import pytest

from verl_fgrpo.tasks.common.tokenizer import END, WordTokenizer
from verl_fgrpo.tasks.maze.mazes import generate, parse, solve
from verl_fgrpo.tasks.maze.tokenizer import TOKENIZER

encode, END_ID, VOCABULARY, TOKEN_ID = TOKENIZER.encode, TOKENIZER.end_id, TOKENIZER.vocabulary, TOKENIZER.ids


@pytest.fixture(scope="module", params=[None, False, True], ids=["default", "no_remote_code", "remote_code"])
def loaded(request, folder):
    from transformers import AutoTokenizer

    assert json.loads((folder / "start_model" / "config.json").read_text())["model_type"] == "qwen2"
    kwargs = {} if request.param is None else {"trust_remote_code": request.param}
    return AutoTokenizer.from_pretrained(folder / "start_model", **kwargs)


def test_golden_ids(loaded):
    # WALL 0, PATH 1, START 2, GOAL 3, newline 4, UP 5, DOWN 6, LEFT 7, RIGHT 8, <|im_end|> 9
    assert loaded.encode("WALL PATH START GOAL\nUP DOWN LEFT RIGHT<|im_end|>") == list(range(10))
    assert loaded.get_vocab() == TOKEN_ID == dict(zip(VOCABULARY, range(10), strict=True))
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.padding_side) == (END_ID, END_ID, "left")


def test_model_and_tokenizer_have_the_same_size(loaded, folder):
    config = json.loads((folder / "start_model" / "config.json").read_text())
    assert config["vocab_size"] == len(loaded) == len(VOCABULARY)
    assert config["eos_token_id"] == loaded.eos_token_id


def test_chat_template_wastes_no_token(loaded):
    maze = generate(7, np.random.default_rng(0))
    messages = [{"role": "user", "content": maze.text}]
    for generation in (True, False):
        ids = loaded.apply_chat_template(messages, add_generation_prompt=generation, tokenize=True, return_dict=False)
        assert ids == loaded.encode(maze.text) == encode(maze.text)
    assert len(ids) == 7 * 7 + 6
    assert parse(loaded.decode(ids)) == maze
    answer = {"role": "assistant", "content": "UP UP"}
    assert loaded.apply_chat_template([*messages, answer], tokenize=False) == maze.text + "UP UP" + END


def test_actions_survive_decoding_without_special_tokens(loaded):
    answer = " ".join(solve(generate(9, np.random.default_rng(1))))
    assert loaded.decode([*encode(answer), END_ID], skip_special_tokens=True).strip() == answer
    assert loaded.all_special_tokens == [END]  # no other token can vanish when verl decodes


def test_newline_inside_an_answer_stays_visible(loaded):
    assert "\n" in loaded.decode(encode("UP\nUP"), skip_special_tokens=True)


def test_unknown_words_are_errors(loaded):
    with pytest.raises(Exception, match="Missing .UNK. token"):
        loaded.encode("UP JUMP")
    with pytest.raises(ValueError, match="'JUMP' is not in the vocabulary"):
        encode("UP JUMP")


def test_round_trip_equals_the_tokenizer_before_saving(loaded):
    text = generate(9, np.random.default_rng(2)).text + " UP DOWN LEFT" + END
    assert loaded.encode(text) == TOKENIZER.build().encode(text)


def test_verl_loads_it(folder):
    """verl's own loader and its Qwen token builder accept the folder."""
    pytest.importorskip("verl")
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    path = str(folder / "start_model")
    tokenizer = hf_tokenizer(path)
    assert hf_processor(path) is None
    assert tokenizer.encode("\n", add_special_tokens=False) == [4]
    builder = create_continuous_token_builder(
        tokenizer, hf_model_type="qwen2", chat_template_kwargs={}, mm_processor_kwargs={}, processor=None
    )
    maze = generate(7, np.random.default_rng(3))
    rendered = builder._render_tokens([{"role": "user", "content": maze.text}], add_generation_prompt=True)
    assert rendered == encode(maze.text)


@pytest.mark.parametrize("words", [("\n", "A", "A", END), ("A", END), ("\n", "A")])
def test_bad_vocabularies_are_named(words):
    with pytest.raises(ValueError, match="words must differ, one must be the newline, the last must be"):
        WordTokenizer(words)
