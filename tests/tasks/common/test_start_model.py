"""The start model: the right loss, and an interruption that leaves no trace."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from verl_fgrpo.tasks.common import start_model
from verl_fgrpo.tasks.common.model import PAPER, ModelSize, build_model
from verl_fgrpo.tasks.common.start_model import SftSettings, batch_indices, train_start_model
from verl_fgrpo.tasks.maze.mazes import generate, solve
from verl_fgrpo.tasks.maze.tokenizer import TOKENIZER

TINY = ModelSize(layers=1, hidden=32, mlp=64, heads=2, kv_heads=1)
SETTINGS = SftSettings(steps=7, batch_size=4, model=TINY, seed=5)
MAZES = [generate(5 + 2 * (i % 2), np.random.default_rng(i)) for i in range(10)]  # two sizes: ragged prompts
EXAMPLES = [(maze.text, " ".join(solve(maze))) for maze in MAZES]
encode, END_ID = TOKENIZER.encode, TOKENIZER.end_id


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_identical(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 6])
def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path, monkeypatch, at):
    train_start_model(EXAMPLES, TOKENIZER, tmp_path / "whole", SETTINGS, checkpoint_every=100, progress=False)

    def killer(step, *args):
        if step == at:
            raise Killed
        return batch_indices(step, *args)

    monkeypatch.setattr(start_model, "batch_indices", killer)
    with pytest.raises(Killed):
        train_start_model(EXAMPLES, TOKENIZER, tmp_path / "cut", SETTINGS, checkpoint_every=2, progress=False)
    assert not (tmp_path / "cut").exists()
    steps = []
    monkeypatch.setattr(
        start_model, "batch_indices", lambda step, *args: steps.append(step) or batch_indices(step, *args)
    )
    train_start_model(EXAMPLES, TOKENIZER, tmp_path / "cut", SETTINGS, checkpoint_every=2, progress=False)
    assert steps[0] == at // 2 * 2  # went on from the checkpoint, not from the beginning
    assert_identical(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "cut"}  # no checkpoint or partial file left


def test_checkpoint_of_other_settings_is_refused(tmp_path, monkeypatch):
    def killer(step, *args):
        if step == 4:
            raise Killed
        return batch_indices(step, *args)

    monkeypatch.setattr(start_model, "batch_indices", killer)
    with pytest.raises(Killed):
        train_start_model(EXAMPLES, TOKENIZER, tmp_path / "m", SETTINGS, checkpoint_every=2, progress=False)
    with pytest.raises(ValueError, match="other seed.*same settings or delete"):
        train_start_model(EXAMPLES, TOKENIZER, tmp_path / "m", replace(SETTINGS, seed=6), progress=False)
    with pytest.raises(ValueError, match="other examples"):
        train_start_model(EXAMPLES[1:], TOKENIZER, tmp_path / "m", SETTINGS, progress=False)


def test_first_loss_is_the_mean_over_answer_tokens(tmp_path):
    """The recorded loss, against one maze at a time through the plain model: sum of -log p / answer tokens."""
    settings = replace(SETTINGS, steps=50, batch_size=10)  # the manifest records every 50th loss
    train_start_model(
        EXAMPLES, TOKENIZER, tmp_path / "m", replace(settings, learning_rate=1e-30), progress=False
    )  # weights stay put
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    model = build_model(settings.model, TOKENIZER, settings.seed)
    total, count = 0.0, 0
    for maze in MAZES:
        prompt, answer = encode(maze.text), [*encode(" ".join(solve(maze))), END_ID]
        log_p = model(torch.tensor([prompt + answer])).logits.detach().log_softmax(-1)[0]
        total -= sum(float(log_p[len(prompt) + i - 1, token]) for i, token in enumerate(answer))
        count += len(answer)
    assert manifest["loss"]["50"] == pytest.approx(total / count, abs=1e-4)


def test_autocast_keeps_float32_weights_and_the_losses_to_bfloat16s_precision(tmp_path):
    for name, autocast in (("plain", False), ("cast", True)):
        train_start_model(EXAMPLES, TOKENIZER, tmp_path / name, SETTINGS, progress=False, autocast=autocast)
    plain, cast = weights(tmp_path / "plain"), weights(tmp_path / "cast")
    for name in plain:
        assert cast[name].dtype == torch.float32
        # AdamW moves a weight by about its learning rate a step, whatever the gradient's size
        assert (plain[name] - cast[name]).abs().max() <= 2 * SETTINGS.steps * SETTINGS.learning_rate, name
    assert any(not torch.equal(plain[name], cast[name]) for name in plain)


def test_batches_cover_every_epoch_once():
    taken = np.concatenate([batch_indices(step, 10, 4, seed=1) for step in range(5)])  # 20 = two epochs of 10
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert list(taken[:10]) != list(taken[10:])


def test_seed_decides_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (build_model(TINY, TOKENIZER, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert_identical(first, second)
    assert not torch.equal(first["model.layers.0.mlp.up_proj.weight"], other["model.layers.0.mlp.up_proj.weight"])


def test_paper_model_has_about_three_million_parameters():
    # a layer: q 256*256+256, k and v 2*(256*128+128), o 256*256, MLP 3*256*1024, two norms 512 = 984,064 (approx. 1M);
    # four layers, two embeddings of 10 * 256 and a last norm of 256
    layer = 256 * 256 + 256 + 2 * (256 * 128 + 128) + 256 * 256 + 3 * 256 * 1024 + 512
    assert sum(p.numel() for p in build_model(PAPER, TOKENIZER, 0).parameters()) == 4 * layer + 2 * 10 * 256 + 256


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: SftSettings(steps=0), "steps = 0.*at least 1"),
        (lambda _: SftSettings(learning_rate=0.0), "learning_rate = 0.0.*try 1e-3"),
        (lambda _: ModelSize(hidden=90), "hidden must be a multiple.*try hidden=88"),
        (lambda _: ModelSize(layers=0), "at least 1"),
        (lambda path: train_start_model([], TOKENIZER, path / "m", SETTINGS), "0 examples"),
    ],
)
def test_bad_settings_are_named(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
