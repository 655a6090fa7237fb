"""Checkpoint folders of verl, and what the callback keeps of them."""

import pytest
from omegaconf import OmegaConf

from verl_fgrpo.runs.checkpoints import KeepNewestState, is_complete, step_folders, world_size


def write(run, step, ranks=2, weights=True):
    actor = run / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    for rank in range(ranks):
        for kind in ("model", "optim", "extra_state"):
            (actor / f"{kind}_world_size_{ranks}_rank_{rank}.pt").write_bytes(b"x")
    if weights:
        (actor / "huggingface" / "model.safetensors").write_bytes(b"w")
    (run / f"global_step_{step}" / "data.pt").touch()
    (run / f"global_step_{step}" / "transfer_queue").mkdir()
    return run / f"global_step_{step}"


def callback(every=4):
    return KeepNewestState(OmegaConf.create({"trainer": {"keep_weights_every": every}}))


def test_the_newest_state_and_the_weights_of_every_fourth_step_stay(tmp_path):
    for step in (2, 4, 6, 8, 10):
        callback().on_save(None, step, str(write(tmp_path, step)), async_save=False)
    assert list(step_folders(tmp_path)) == [4, 8, 10]
    for step in (4, 8):
        left = sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / f"global_step_{step}").rglob("*.*"))
        assert left == [f"global_step_{step}/actor/huggingface/model.safetensors"]
        assert not is_complete(tmp_path / f"global_step_{step}")
    assert is_complete(tmp_path / "global_step_10") and world_size(tmp_path / "global_step_10") == 2


def test_nothing_is_removed_while_a_checkpoint_is_still_being_written(tmp_path):
    write(tmp_path, 2)
    callback().on_save(None, 4, str(write(tmp_path, 4)), async_save=True)
    assert is_complete(tmp_path / "global_step_2")


def test_a_later_step_and_other_folders_are_left_alone(tmp_path):
    write(tmp_path, 12)
    (tmp_path / "global_step_best").mkdir()
    callback().on_save(None, 10, str(write(tmp_path, 10)))
    assert list(step_folders(tmp_path)) == [10, 12] and is_complete(tmp_path / "global_step_12")


def test_a_state_without_weights_is_kept_for_nothing_else_is_left_of_it(tmp_path):
    write(tmp_path, 4, weights=False)
    callback().on_save(None, 6, str(write(tmp_path, 6)))
    assert is_complete(tmp_path / "global_step_4")


def test_a_folder_that_cannot_be_removed_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    write(tmp_path, 2)

    def refuse(path):
        raise OSError("busy")

    monkeypatch.setattr("shutil.rmtree", refuse)
    callback().on_save(None, 6, str(write(tmp_path, 6)))
    assert "global_step_2 could not be reduced (busy)" in caplog.text


def test_verl_makes_the_callback_from_its_configuration():
    from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback

    trainer = {"checkpoint_callback_class": "verl_fgrpo.runs.checkpoints.KeepNewestState", "keep_weights_every": 153}
    made = build_checkpoint_callback(OmegaConf.create({"trainer": trainer}))
    assert isinstance(made, KeepNewestState) and made.every == 153
    with pytest.raises(ValueError, match=r"keep_weights_every is None.*add \+trainer"):
        build_checkpoint_callback(OmegaConf.create({"trainer": {**trainer, "keep_weights_every": None}}))
