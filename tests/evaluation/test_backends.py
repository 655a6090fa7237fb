"""The vLLM backend's code against a fake engine (no GPU here), and a verl checkpoint merged by verl's own merger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_generation import PROBLEMS, make_model, requests_for

from verl_fgrpo.evaluation.backends import VllmRayBackend, resolve_model
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


@pytest.mark.full
def test_a_verl_checkpoint_is_merged_once_and_another_one_anew(tmp_path: Path) -> None:
    """One shard, as verl writes it on one device (DTensor shards need a process group to be made)."""
    pytest.importorskip("verl")
    from safetensors.torch import load_file

    for seed in (0, 1):
        model = make_model(tmp_path / "whole", seed)
        actor = tmp_path / "global_step_3" / "actor"
        (actor / "huggingface").mkdir(parents=True, exist_ok=True)
        for path in model.iterdir():
            if path.suffix != ".safetensors":
                (actor / "huggingface" / path.name).write_bytes(path.read_bytes())
        weights = load_file(model / "model.safetensors")
        torch.save(weights, actor / "model_world_size_1_rank_0.pt")
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))

        merged = resolve_model(str(tmp_path / "global_step_3"), tmp_path / "run")
        found = load_file(merged / "model.safetensors")
        assert set(found) == set(weights)
        for name, tensor in weights.items():
            assert torch.equal(found[name], tensor.bfloat16())  # verl's merger writes bfloat16
        written = (merged / "model.safetensors").stat().st_mtime_ns
        assert resolve_model(str(actor), tmp_path / "run") == merged
        assert (merged / "model.safetensors").stat().st_mtime_ns == written
