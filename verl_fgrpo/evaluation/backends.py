"""Engines that draw samples: transformers (CPU or one GPU), vLLM through Ray Data; `openai_backend` asks a server.

All give every sample its own seed. With transformers the text depends on nothing but the seed (up to rounding in
batched arithmetic); servers and vLLM promise that only for equal batches, so there a sample drawn again after a crash
may be another one of the same distribution.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import new_folder
from verl_fgrpo.core.pretrained import load_pretrained, render_chat
from verl_fgrpo.core.processes import ends_with_parent
from verl_fgrpo.evaluation.generation import Decoding, Generated, Request, weights_fingerprint
from verl_fgrpo.evaluation.prompts import Prompt
from verl_fgrpo.evaluation.ray_grading import connect


def resolve_model(model: str, cache: Path, revision: str | None = None, trust_checkpoint: bool = False) -> Path:
    """A folder in Hugging Face format for a hub id (of `revision`), a folder, or a verl checkpoint folder.

    verl's sharded checkpoints (`global_step_N` or its `actor` folder) are merged by verl's own merger, once, into a
    folder merged_model in a folder of `cache` named after the shards' path, sizes and times: another checkpoint there
    is merged anew. `trust_checkpoint` loads shards that hold more than tensors, too, which can run code of whoever
    wrote them.

    Raises:
        ValueError: the folder is neither; RuntimeError: verl's merger fails, or refuses such a shard.
    """
    folder = Path(model)
    if not folder.exists():
        if model.count("/") != 1 or model.startswith("/"):
            raise ValueError(f"--model {model}: no such folder, and not a hub id of the form OWNER/NAME")
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, revision=revision))
    actor = folder / "actor" if (folder / "actor").is_dir() else folder
    shards = sorted(actor.glob("model_world_size_*_rank_*.pt"))
    if not shards:
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} has neither config.json (Hugging Face) nor model_world_size_*.pt (verl)")
        return folder
    if (actor / "huggingface" / "model.safetensors").exists():
        return actor / "huggingface"  # checkpoint saved with save_contents including hf_model
    facts = [(str(shard.resolve()), shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards]
    target = cache / f"merged-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}" / "merged_model"
    if not (target / "config.json").exists():
        _merge(actor, target, trust_checkpoint)
    return target


def _merge(actor: Path, target: Path, trust_checkpoint: bool) -> None:
    """Run verl's merger. It loads pickles; PyTorch's own switch makes it load nothing but tensors and DTensors.

    It runs in the new folder: started by -m, Python would import what lies in the current one, a checkpoint's torch.py.
    """
    with new_folder(target) as partial:
        done = subprocess.run(
            [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
            + ["--local_dir", os.path.abspath(actor), "--target_dir", os.path.abspath(partial)],
            cwd=partial,
            preexec_fn=ends_with_parent(),
            capture_output=True,
            text=True,
            env={**os.environ, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "0" if trust_checkpoint else "1"},
        )
        if "Weights only load failed" in done.stderr or "UnpicklingError" in done.stderr:
            raise RuntimeError(
                f"{actor} holds more than tensors, and loading it could run code of whoever wrote it; nothing was "
                "loaded. If it is your own, give --trust-checkpoint"
            )
        if done.returncode != 0 or not (partial / "config.json").exists():
            told = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            by_hand = f"python -m verl.model_merger merge --backend fsdp --local_dir {actor} --target_dir NEW"
            raise RuntimeError(f"verl's model merger failed on {actor} ({told[-1][:300]}); to see all: {by_hand}")


def prompt_tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Tokens of a prompt by the model's chat template; without a template, the texts joined by blank lines."""
    if tokenizer.chat_template:
        how = {"tokenize": True, "return_dict": True, **prompt.template}
        ids = render_chat(tokenizer, list(prompt.messages), **how)["input_ids"]
    else:
        ids = tokenizer("\n\n".join(turn["content"] for turn in prompt.messages))["input_ids"]
    if not ids:
        raise ValueError(f"{tokenizer.name_or_path} makes no token of a prompt; mend its chat template")
    return [int(token) for token in ids]


class TransformersBackend:
    """`transformers` generation, batched within one problem (equal prompts: no padding).

    Token t of a sample is the inverse of the cumulative distribution at u[t], u from a generator seeded with the
    sample's seed. So a sample depends neither on its batch neighbours nor on what was drawn before. `dtype` is that of
    the weights, float32 or bfloat16.
    """

    def __init__(self, folder: Path, batch_size: int = 32, device: str = "cpu", dtype: str = "float32") -> None:
        import torch

        self.folder = folder
        self.batch_size = batch_size
        self.dtype = dtype
        self.tokenizer = load_pretrained("AutoTokenizer", folder)
        self.model = load_pretrained("AutoModelForCausalLM", folder, dtype=getattr(torch, dtype)).to(device).eval()
        self.end_ids = self._find_end_ids()

    def identity(self) -> dict[str, Any]:
        weights = weights_fingerprint(self.folder)
        return {"backend": "transformers", "dtype": self.dtype, "model": self.folder.name, "weights": weights}

    def generate(self, requests: Iterable[Request], decoding: Decoding) -> Iterator[Generated]:
        for _, same_problem in groupby(requests, key=lambda request: request.key[:2]):
            group = list(same_problem)
            prompt_ids = prompt_tokens(self.tokenizer, group[0].prompt)
            for start in range(0, len(group), self.batch_size):
                yield from self._generate_batch(group[start : start + self.batch_size], prompt_ids, decoding)

    def _generate_batch(
        self, batch: Sequence[Request], prompt_ids: Sequence[int], decoding: Decoding
    ) -> Iterator[Generated]:
        import numpy as np
        import torch
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        uniforms = np.stack([np.random.default_rng(request.seed).random(decoding.max_tokens) for request in batch])
        processors = LogitsProcessorList([TemperatureLogitsWarper(decoding.temperature)])
        if decoding.top_k > 0:
            processors.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            processors.append(TopPLogitsWarper(decoding.top_p))
        processors.append(_InverseCdf(torch.from_numpy(uniforms).to(self.model.device), len(prompt_ids)))
        inputs = torch.tensor([list(prompt_ids)] * len(batch), device=self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=False,  # the processor has already drawn: one token is left
                logits_processor=processors,
                max_new_tokens=decoding.max_tokens,
                eos_token_id=self.end_ids,
                pad_token_id=self.end_ids[0],
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
            )
        ends = set(self.end_ids)
        for request, row in zip(batch, output[:, len(prompt_ids) :].tolist(), strict=True):
            stop = next((index for index, token in enumerate(row) if token in ends), None)
            text = self.tokenizer.decode(row[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            length, reason = (len(row), "length") if stop is None else (stop + 1, "stop")
            yield Generated(request.key, request.seed, text, length, reason)

    def _find_end_ids(self) -> list[int]:
        """End tokens of the generation config and the tokenizer, and the end of a chat turn if there is such a one."""
        configured, vocabulary = self.model.generation_config.eos_token_id, self.tokenizer.get_vocab()
        candidates = [*(configured if isinstance(configured, list) else [configured]), self.tokenizer.eos_token_id]
        candidates += [vocabulary.get(name) for name in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>")]
        ends = list(dict.fromkeys(int(token) for token in candidates if token is not None))
        if not ends:
            raise ValueError(f"{self.folder}: the model names no end token; every response would run to the limit")
        return ends


class _InverseCdf:
    """Logits processor that leaves one token per row: the inverse of the cumulative distribution at a given uniform."""

    def __init__(self, uniforms: Any, prompt_length: int) -> None:
        self._uniforms = uniforms
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        from verl_fgrpo.core.token_sampling import draw_tokens

        step = input_ids.shape[1] - self._prompt_length
        token = draw_tokens(scores.double().log_softmax(-1), self._uniforms[:, step])
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


class VllmRayBackend:
    """vLLM offline on all GPUs of a machine or a Ray cluster, distributed by Ray Data's LLM batch inference.

    Untried: no GPU was at hand when this was written. Written against Ray 2.60's `ray.data.llm`
    (`vLLMEngineProcessorConfig`, `build_processor`); see the recipe notes before relying on it.

    Args:
        folder: on a path that all nodes can read.
        tensor_parallel_size: GPUs per engine.
        concurrency: engines (data parallel); default: all GPUs of the cluster / tensor_parallel_size.
        batch_size: requests that Ray Data hands to an engine at a time.
        engine_kwargs: more arguments of vLLM's engine; they go into the manifest.
    """

    def __init__(
        self,
        folder: Path,
        tensor_parallel_size: int = 1,
        concurrency: int | None = None,
        batch_size: int = 256,
        engine_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.tensor_parallel_size = tensor_parallel_size
        self.concurrency = concurrency
        self.batch_size = batch_size
        self.engine_kwargs = engine_kwargs or {}
        self.tokenizer = load_pretrained("AutoTokenizer", folder)

    def identity(self) -> dict[str, Any]:
        weights = weights_fingerprint(self.folder)
        return {
            "backend": "vllm",
            "model": self.folder.name,
            "weights": weights,
            "engine_kwargs": self.engine_kwargs,
        }

    def generate(self, requests: Iterable[Request], decoding: Decoding) -> Iterator[Generated]:
        import ray
        from ray.data.llm import build_processor

        sampling = asdict(decoding)
        processor = build_processor(
            self._config(),
            preprocess=lambda row: {**row, "sampling_params": {**sampling, "seed": int(row["seed"])}},
        )
        for row in processor(ray.data.from_items(self._rows(requests))).iter_rows():
            num_tokens = int(row["num_generated_tokens"])
            benchmark, problem_id, index = json.loads(row["key"])
            yield Generated(
                (benchmark, problem_id, index),
                int(row["seed"]),
                str(row["generated_text"]),
                num_tokens,
                "length" if num_tokens >= decoding.max_tokens else "stop",  # Ray Data does not pass the reason on
            )

    def _config(self) -> Any:
        import ray
        from ray.data.llm import vLLMEngineProcessorConfig

        if not ray.is_initialized():
            connect()
        gpus = int(ray.cluster_resources().get("GPU", 0))
        engines = self.concurrency or gpus // self.tensor_parallel_size
        if engines < 1:
            raise RuntimeError(
                f"the Ray cluster has {gpus} GPUs, an engine needs {self.tensor_parallel_size}: use --backend openai "
                "with a server elsewhere, or --backend transformers"
            )
        return vLLMEngineProcessorConfig(
            model_source=str(self.folder),
            engine_kwargs={"tensor_parallel_size": self.tensor_parallel_size, "enable_prefix_caching": True}
            | self.engine_kwargs,
            concurrency=engines,
            batch_size=self.batch_size,
            chat_template_stage=False,  # prompts are tokenized here: the template's arguments differ between problems
            tokenize_stage=False,
        )

    def _rows(self, requests: Iterable[Request]) -> list[dict[str, Any]]:
        rows = []
        for _, same_problem in groupby(requests, key=lambda request: request.key[:2]):
            group = list(same_problem)
            ids = prompt_tokens(self.tokenizer, group[0].prompt)
            rows += [
                {"key": json.dumps(request.key), "seed": request.seed, "prompt": "", "tokenized_prompt": ids}
                for request in group
            ]
        return rows
