"""Preflight: each thing that would stop a run, made up, is told in one sentence with a remedy."""

import json
import os
import shutil
import socket
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from tiny_math import write_data, write_model

from verl_fgrpo.runs import machine
from verl_fgrpo.runs.configuration import compose_config, implausible
from verl_fgrpo.runs.cost import Estimate
from verl_fgrpo.runs.inputs import data_problems, model_problems, parameters
from verl_fgrpo.runs.preflight import _checkpoint_disk, _resumable, findings, main

PLAN = Estimate(1530, 2048, 2, 122.0, 10, 30.5, 0, 0, 0, 0, "")  # Qwen2.5-7B with the recipe's defaults: 549 GB


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(model, data) folders that are in order."""
    folder = tmp_path_factory.mktemp("inputs")
    model = write_model(folder / "model")
    return model, write_data(folder / "data", model, count=8)


@pytest.fixture(scope="module")
def composed(inputs):
    """The configuration of a run on the CPU that may start."""
    model, data = inputs
    return compose_config(
        [
            "+focal=grpo", "+platform=cpu", f"actor_rollout_ref.model.path={model}", "data.train_batch_size=8",
            f"data.train_files={data}/train.parquet", f"data.val_files={data}/val.parquet",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4", "actor_rollout_ref.rollout.n=8",
            "data.max_prompt_length=320", "data.max_response_length=48", "trainer.logger=[console]",
        ]
    )  # fmt: skip


@pytest.fixture
def config(composed, tmp_path):
    """A copy to change, with a run folder of its own."""
    copy = composed.copy()
    OmegaConf.set_struct(copy, False)
    copy.trainer.default_local_dir = str(tmp_path / "run")
    return copy


def test_nothing_is_found_where_all_is_there(config):
    assert implausible(config) == []
    assert findings(config, PLAN_TINY, 0.0001) == []


def test_the_preset_for_one_gpu_is_plausible(inputs):
    model, data = inputs
    config = compose_config(
        [
            "+focal=grpo", "+platform=one_gpu", f"actor_rollout_ref.model.path={model}", "data.train_batch_size=8",
            f"data.train_files={data}/train.parquet", f"data.val_files={data}/val.parquet",
            "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.rollout.n=8",
            "data.max_prompt_length=320", "data.max_response_length=48",
        ]
    )  # fmt: skip
    assert implausible(config) == []
    assert config.actor_rollout_ref.rollout.name == "vllm"
    assert config.actor_rollout_ref.rollout.tensor_model_parallel_size == config.trainer.n_gpus_per_node == 1


PLAN_TINY = Estimate(1, 64, 2, 0.001, 0, 0.001, 0, 0, 0, 0, "")


def test_everything_is_told_at_once(config, monkeypatch):
    config.trainer.device = "cuda"
    config.data.train_files = "/nowhere/train.parquet"
    config.actor_rollout_ref.model.path = "/nowhere/model"
    config.actor_rollout_ref.rollout.name = "vllm"
    monkeypatch.setattr(machine, "gpus", lambda config: ["no GPU"])
    monkeypatch.setattr(machine, "disks", lambda places: [f"{purpose} {gb:.0f} GB" for purpose, _, gb, _ in places])
    found = "\n".join(findings(config, PLAN, 7.62))
    for part in (
        "no GPU",
        "train.parquet is missing",
        "/nowhere/model",
        "vllm is missing",
        "still need 549 GB",
        "shared",
    ):
        assert part in found


# ---- data and model ----


def test_files_that_do_not_serve(config, inputs, tmp_path):
    model, data = inputs
    config.data.train_batch_size = 16
    assert "TRAIN_FILE has 8 rows, fewer than TRAIN_BATCH_SIZE=16" in data_problems(config)[0]
    broken = tmp_path / "val.parquet"
    broken.write_text("not parquet")
    config.data.val_files = str(broken)
    assert "is not a readable parquet file" in data_problems(config)[0]
    config.data.train_files = str(tmp_path / "a[bc]" / "train.parquet")
    assert "verl reads *, ?, [...] and :: as a pattern of other files" in data_problems(config)[0]


def test_prompts_over_the_limit_are_counted_for_verl_cuts_them_without_a_word(config):
    config.data.max_prompt_length = 20
    train, _val = data_problems(config)
    assert train.startswith("TRAIN_FILE holds 8 prompts over 20 tokens (the longest ")


def test_half_a_model(tmp_path, inputs):
    model = tmp_path / "model"
    shutil.copytree(inputs[0], model)
    assert model_problems(str(model)) == [] and parameters(str(model)) == pytest.approx(1e-4, rel=0.5)
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (model / "model.safetensors").rename(model / shards["a"])
    (problem,) = model_problems(str(model))
    assert "lacks 1 of 2 weight files (model-00002-of-00002.safetensors, ...)" in problem


def test_a_gated_model_that_the_login_may_not_read(monkeypatch):
    from huggingface_hub.errors import GatedRepoError

    def refuse(self, name, **_):
        raise GatedRepoError("gated", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, timeout: None)
    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", refuse)
    (problem,) = model_problems("meta-llama/some-gated-model")
    assert "is gated" in problem and "accept its terms" in problem


# ---- the run folder ----


def checkpoint(run, step, ranks=8, gigabytes=122.0):
    """A checkpoint as large as a real one, of holes."""
    actor = run / f"global_step_{step}" / "actor"
    actor.mkdir(parents=True)
    for rank in range(ranks):
        with (actor / f"model_world_size_{ranks}_rank_{rank}.pt").open("wb") as file:
            file.truncate(int(gigabytes * 1e9 / ranks))
    (actor.parent / "data.pt").touch()


def test_a_run_is_not_asked_again_for_disk_that_it_has_filled(tmp_path, monkeypatch):
    """5 of 10 epochs done, all kept in full by an earlier version, 700 GB free: was refused for 1,067 GB."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=700e9))
    assert machine.disks([_checkpoint_disk(tmp_path, PLAN)]) == []
    for step in (153, 306, 459, 612, 765):
        checkpoint(tmp_path, step, gigabytes=30.5)
    checkpoint(tmp_path, 782)
    purpose, folder, needed, remedy = _checkpoint_disk(tmp_path, PLAN)
    assert needed == pytest.approx(549 - 5 * 30.5 - 122)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=200e9))
    (problem,) = machine.disks([(purpose, folder, needed, remedy)])
    assert "has 200 GB free, but the checkpoints still need about 274 GB" in problem
    checkpoint(tmp_path, 799, gigabytes=400.0)
    assert _checkpoint_disk(tmp_path, PLAN)[2] == 122  # the next state is written before an old one goes


def test_a_run_is_resumed_by_as_many_gpus_as_wrote_it(config, tmp_path):
    run = tmp_path / "run"
    checkpoint(run, 17, ranks=8, gigabytes=0)
    (run / "latest_checkpointed_iteration.txt").write_text("17")
    (problem,) = _resumable(config)
    assert "was trained on 8 GPU(s), whose shards only 8 can load, but NNODES * GPUS_PER_NODE is 1" in problem
    config.trainer.n_gpus_per_node = 8
    assert _resumable(config) == []


# ---- the machine ----


def gpu_report(monkeypatch, tmp_path, driver="580.95.05", cuda="13.0", free=80, error=None, count=8):
    """A fake nvidia-smi, and what torch would say."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\nfor i in $(seq {max(count, 1)}); do echo {driver}; done\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    gpus = [["H100", free * 10**9, 80 * 10**9]] * count
    report = json.dumps({"cuda": cuda, "torch": "2.11.0", "gpus": gpus, "error": error})
    monkeypatch.setattr(machine, "_python", lambda code: (0, report, ""))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, None),
        (
            {"driver": "550.54.15", "count": 0, "error": "RuntimeError: too old"},
            "the GPU driver is 550.54.15, but torch",
        ),
        ({"driver": "550.54.15", "cuda": "12.8"}, None),
        ({"cuda": None, "count": 0}, "is built without CUDA"),
        ({"count": 0}, "nvidia-smi sees GPUs, torch none"),
        ({"count": 4}, "this machine has 4 GPU(s) that torch can use, but GPUS_PER_NODE is 8"),
        ({"count": 3, "error": "AcceleratorError: uncorrectable ECC error"}, "GPU 3 fails at a first small kernel"),
        ({"free": 41}, "GPU 0 (H100) has 41 of 80 GB free: another process uses it"),
    ],
)
def test_gpus(config, monkeypatch, tmp_path, state, message):
    config.trainer.n_gpus_per_node = 8
    gpu_report(monkeypatch, tmp_path, **state)
    found = machine.gpus(config)
    assert not found if message is None else message in found[0]


def test_the_probe_runs_where_there_is_no_gpu(config, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (problem,) = machine.gpus(config)
    assert (
        "this machine has 0 GPU(s) that torch can use" in problem
        or "without CUDA" in problem
        or "torch none" in problem
    )


def test_a_package_that_is_there_and_does_not_import(tmp_path, monkeypatch):
    (tmp_path / "broken_wheel.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = machine.packages({"broken_wheel": "reinstall", "no_such_package": "install", "json": "?"})
    assert found == [
        "the package broken_wheel does not import (ImportError: undefined symbol: _ZN3c10): reinstall",
        "the package no_such_package is missing: install",
    ]


def test_versions_that_verl_does_not_pin(monkeypatch):
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda name: ['numpy==1.0; extra == "vllm"', 'ray; extra == "x"']
    )
    (problem,) = machine.pins("vllm")
    assert "verl pins numpy==1.0 for vllm" in problem
    assert machine.pins("hf") == []


def test_host_memory_of_tied_embeddings(config, monkeypatch):
    """Qwen3-4B on 8 GPUs: 8 x 4.02 billion x 4 bytes = 129 GB, and 16 for everything else."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=128e9))
    config.trainer.n_gpus_per_node = 8
    (problem,) = machine.host_memory(config, 4.02, tied=True)
    assert "128 GB of host memory are free, but about 145 GB are needed" in problem and "fewer GPUs a node" in problem
    assert machine.host_memory(config, 4.02, tied=False) == []


def test_limits_compiler_and_cluster(config, monkeypatch, tmp_path):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (1024, 4096))
    assert "ulimit -Hn is 4096" in machine.limits()[0]
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    assert ["no C compiler" in machine.compiler()[0], "Python.h is missing" in machine.compiler()[1]] == [True, True]

    config.trainer.nnodes = 2
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "NNODES is 2, but RAY_ADDRESS names no cluster" in machine.cluster(config)[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
        assert "does not answer" in machine.cluster(config)[0]
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(os.environ["RAY_ADDRESS"])
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert "does not answer" in machine.cluster(config)[0]
        free.listen()
        assert machine.cluster(config) == []
    for address in ("127.0.0.1", "nonsense", "10.0.0.1:port", "10.0.0.1:99999"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert f"RAY_ADDRESS is '{address}', but it must be HOST:PORT" in machine.cluster(config)[0]


# ---- values ----


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("actor_rollout_ref.actor.optim.lr", 0, "optim.lr is 0, but must be a number above 0"),
        ("actor_rollout_ref.actor.optim.lr", "abc", "optim.lr is 'abc'"),
        ("algorithm.focal_gamma", -1, "focal_gamma is -1"),
        ("algorithm.focal_gamma", float("nan"), "focal_gamma is nan"),
        ("algorithm.adv_estimator", "f_gropo", "f_grpo?"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode", "cisp", "did you mean cispo?"),
        ("trainer.logger", ["console", "foo"], "LOGGER) is 'foo', but verl knows"),
        ("actor_rollout_ref.rollout.n", 1, "rollout.n is 1"),
    ],
)
def test_values_that_cannot_be_meant(config, key, value, message):
    OmegaConf.update(config, key, value)
    assert any(message in problem for problem in implausible(config))


def test_a_mini_batch_that_the_gpus_cannot_share(config):
    config.trainer.device, config.trainer.n_gpus_per_node = "cuda", 3
    (problem,) = implausible(config)
    assert "a mini-batch of 4 prompts x 8 rollouts = 32 cannot be shared by 3 GPUs" in problem


def test_compose_tells_and_claims_nothing(tmp_path, capsys):
    given = ["+focal=grpo", "algorithm.adv_estimator=f_gropo", f"trainer.default_local_dir={tmp_path / 'run'}"]
    assert main(["compose", *given]) == 1
    assert "f_grpo?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="verl would not compose this command line"):
        main(["compose", "algorithm.focal_gama=1"])
    assert not (tmp_path / "run").exists()
