"""The vLLM backend's code against a fake engine (no GPU here), and a verl checkpoint merged by verl's own merger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_os import FAULTS, FaultyOs
from test_generation import PROBLEMS, make_model, requests_for

from verl_fgrpo.core import files
from verl_fgrpo.evaluation.backends import TransformersBackend, VllmRayBackend, resolve_model
from verl_fgrpo.evaluation.generation import Decoding


class FakeRows(list[dict[str, Any]]):
    def iter_rows(self) -> FakeRows:
        return self


def fake_engine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> dict[str, Any]:
    """Replaces Ray's cluster and vLLM, not Ray's own configuration class, which checks the arguments.

    The engine reads the columns that Ray's vLLM stage documents (`tokenized_prompt`, `sampling_params`), answers with
    the columns it writes (`generated_text`, `num_generated_tokens`) and returns the rows in reverse order.
    """
    ray_llm = pytest.importorskip("ray.data.llm")
    seen: dict[str, Any] = {"rows": []}

    def build_processor(config: Any, preprocess: Any) -> Any:
        seen["config"] = config

        def processor(dataset: list[dict[str, Any]]) -> FakeRows:
            rows = FakeRows()
            for row in dataset:
                row = preprocess(row)
                seen["rows"].append(row)
                length = row["sampling_params"]["seed"] % row["sampling_params"]["max_tokens"] + 1
                rows.append({**row, "generated_text": f"text {length}", "num_generated_tokens": length})
            return FakeRows(rows[::-1])

        return processor

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"GPU": float(gpus), "CPU": 8.0})
    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr(ray_llm, "build_processor", build_processor)
    return seen


def test_a_template_that_leaves_nothing_of_the_prompt_is_told(tmp_path: Path) -> None:
    backend = TransformersBackend(make_model(tmp_path / "tiny", 0))
    backend.tokenizer.chat_template = "{{ '' }}"
    with pytest.raises(ValueError, match="makes no token of a prompt; mend its chat template"):
        list(backend.generate(requests_for(PROBLEMS[0], 1), Decoding(max_tokens=2)))


def test_vllm_backend_against_a_fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "tiny", 0)
    seen = fake_engine(monkeypatch, gpus=8)
    backend = VllmRayBackend(model, tensor_parallel_size=2, engine_kwargs={"max_model_len": 64})
    requests = requests_for(PROBLEMS[0], 5) + requests_for(PROBLEMS[1], 5)
    decoding = Decoding(temperature=0.7, top_p=0.9, top_k=4, max_tokens=6)
    drawn = {item.key: item for item in backend.generate(requests, decoding)}

    assert seen["config"].concurrency == 4  # 8 GPUs, 2 an engine
    assert seen["config"].engine_kwargs["tensor_parallel_size"] == 2
    assert seen["config"].engine_kwargs["max_model_len"] == 64
    assert seen["config"].model_source == str(model)
    for row, request in zip(seen["rows"], requests, strict=True):
        expected = {"temperature": 0.7, "top_p": 0.9, "top_k": 4, "max_tokens": 6, "seed": request.seed}
        assert row["sampling_params"] == expected
        word = 6 if request.key[1] == "a" else 7  # "so" or "then"
        assert row["tokenized_prompt"] == [1, word, 3]  # <user> so <assistant>
    for request in requests:
        item = drawn[request.key]
        length = request.seed % 6 + 1
        assert (item.seed, item.response, item.num_tokens) == (request.seed, f"text {length}", length)
        assert item.finish_reason == ("length" if length == 6 else "stop")


def test_vllm_backend_without_enough_gpus_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_engine(monkeypatch, gpus=1)
    backend = VllmRayBackend(make_model(tmp_path / "tiny", 0), tensor_parallel_size=2)
    with pytest.raises(RuntimeError, match="1 GPUs, an engine needs 2"):
        list(backend.generate(requests_for(PROBLEMS[0], 1), Decoding()))


SHARDS = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

rank, world, model, actor = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[5]}", rank=rank, world_size=world)
whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
for layer in whole.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(whole, mesh=mesh)
state = whole.state_dict()
assert all(type(value).__name__ == "DTensor" for value in state.values()), "FSDP2 gives DTensors"
torch.save(state, actor / f"model_world_size_{world}_rank_{rank}.pt")
if rank == 0:
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))
dist.barrier()
dist.destroy_process_group()
"""


def make_checkpoint(root: Path, model: Path, ranks: int) -> Path:
    """global_step_3 as verl's FSDP2 workers write it: DTensor shards, made by real processes that talk through gloo."""
    actor = root / "global_step_3" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            (actor / "huggingface" / path.name).write_bytes(path.read_bytes())
    arguments = [str(ranks), str(model), str(actor), str(root / "meet")]
    processes = [
        subprocess.Popen([sys.executable, "-c", SHARDS, str(rank), *arguments], stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    for process in processes:
        _, told = process.communicate(timeout=1200)
        assert process.returncode == 0, told
    return root / "global_step_3"


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.full), 2])
def test_real_shards_are_merged_once_and_others_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    pytest.importorskip("verl")
    from safetensors.torch import load_file

    model = make_model(tmp_path / "whole", 0)
    weights = load_file(model / "model.safetensors")
    step = make_checkpoint(tmp_path, model, ranks)
    (step / "actor" / "torch.py").write_text("raise RuntimeError('code of the checkpoint ran')\n")
    monkeypatch.chdir(step / "actor")
    merged = resolve_model(str(step), tmp_path / "run")
    found = load_file(merged / "model.safetensors")
    assert set(found) == set(weights)
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor.bfloat16())  # verl's merger writes bfloat16
    written = (merged / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(str(step / "actor"), tmp_path / "run") == merged
    assert (merged / "model.safetensors").stat().st_mtime_ns == written
    shard = next((step / "actor").glob("*.pt"))
    os.utime(shard, ns=(1, 1))  # another checkpoint at the same place
    assert resolve_model(str(step), tmp_path / "run") != merged


def test_a_merged_model_is_whole_or_not_there_through_a_fault_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model_world_size_1_rank_0.pt").touch()

    def merger(words: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        for name in ("config.json", "model.safetensors"):
            (cwd / name).write_text(name)
        return subprocess.CompletedProcess(words, 0, stderr="")

    def merged(cache: Path, faulty: FaultyOs) -> list[list[str]]:
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt, OSError):
            patch.setattr("verl_fgrpo.evaluation.backends.subprocess.run", merger)
            patch.setattr(files, "os", faulty)
            resolve_model(str(tmp_path), cache)
        return [sorted(path.name for path in folder.iterdir()) for folder in cache.glob("merged-*/merged_model")]

    undisturbed = FaultyOs(-1, "before", KeyboardInterrupt)
    whole = [["config.json", "model.safetensors"]]
    assert merged(tmp_path / "whole", undisturbed) == whole and len(undisturbed.calls) > 10
    for at in range(1, len(undisturbed.calls) + 1):
        for when in ("before", "after"):
            cache = tmp_path / f"{at}-{when}"
            assert merged(cache, FaultyOs(at, when, FAULTS[at % 2])) in ([], whole), at
            assert merged(cache, FaultyOs(-1, "before", KeyboardInterrupt)) == whole, at


class Crafted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_crafted_checkpoint_runs_no_code_unless_trusted(tmp_path: Path) -> None:
    pytest.importorskip("verl")
    model = make_model(tmp_path / "whole", 0)
    actor = tmp_path / "global_step_1" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            (actor / "huggingface" / path.name).write_bytes(path.read_bytes())
    ran = tmp_path / "code-ran"
    torch.save({"lm_head.weight": torch.zeros(1), "x": Crafted(ran)}, actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    with pytest.raises(RuntimeError, match="holds more than tensors.*give --trust-checkpoint"):
        resolve_model(str(actor.parent), tmp_path / "run")
    assert not ran.exists()
    with pytest.raises(RuntimeError, match="merger failed"):  # trusted, it is loaded, and is no model
        resolve_model(str(actor.parent), tmp_path / "run", trust_checkpoint=True)
    assert ran.exists()
