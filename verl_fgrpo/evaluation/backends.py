"""Engines that draw samples: transformers (CPU or one GPU), an OpenAI-compatible server, vLLM through Ray Data.

All give every sample its own seed. With transformers the text depends on nothing but the seed (up to rounding in
batched arithmetic); servers and vLLM promise that only for equal batches, so there a sample drawn again after a crash
may be another one of the same distribution.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.generation import Decoding, Generated, Request, weights_fingerprint
from verl_fgrpo.evaluation.prompts import Prompt

__all__ = ["OpenAIBackend", "TransformersBackend", "VllmRayBackend", "resolve_model"]


def resolve_model(model: str, cache: Path, revision: str | None = None) -> Path:
    """A folder in Hugging Face format for a hub id, a folder, or a verl checkpoint folder.

    verl's sharded checkpoints (`global_step_N` or its `actor` folder) are merged by verl's own merger, once, into a
    folder merged_model in a folder of `cache` named after the shards' path, sizes and times: another checkpoint there
    is merged anew.

    Raises:
        ValueError: the folder is neither; RuntimeError: verl's merger fails.
    """
    folder = Path(model)
    if not folder.exists():
        if model.count("/") != 1:
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
    merged = cache / f"merged-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"
    target = merged / "merged_model"
    if not (target / "config.json").exists():
        import shutil

        partial = merged / "merged_model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
        done = subprocess.run(
            [*command, "--local_dir", str(actor), "--target_dir", str(partial)], capture_output=True, text=True
        )
        if done.returncode != 0 or not (partial / "config.json").exists():
            raise RuntimeError(f"verl's model merger failed on {actor}:\n{done.stderr[-2000:]}")
        partial.rename(target)
    return target


class TransformersBackend:
    """`transformers` generation, batched within one problem (equal prompts: no padding).

    Token t of a sample is the inverse of the cumulative distribution at u[t], u from a generator seeded with the
    sample's seed. So a sample depends neither on its batch neighbours nor on what was drawn before.

    Args:
        folder: model folder.
        batch_size: samples generated together.
        device: e.g. "cpu" or "cuda".
        dtype: of the weights; float32 or bfloat16.
    """

    def __init__(self, folder: Path, batch_size: int = 32, device: str = "cpu", dtype: str = "float32") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder = folder
        self.batch_size = batch_size
        self.dtype = dtype
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
        self._end_ids = self._find_end_ids()

    def identity(self) -> dict[str, Any]:
        return {
            "backend": "transformers",
            "dtype": self.dtype,
            "model": self.folder.name,
            "weights": weights_fingerprint(self.folder),
        }

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        for _, same_problem in groupby(requests, key=lambda request: request.key[:2]):
            group = list(same_problem)
            prompt_ids = self.encode(group[0].prompt)
            for start in range(0, len(group), self.batch_size):
                yield from self._generate_batch(group[start : start + self.batch_size], prompt_ids, decoding)

    def encode(self, prompt: Prompt) -> list[int]:
        """Prompt tokens by the model's chat template; without a template, the texts joined by blank lines."""
        if self.tokenizer.chat_template:
            ids = self.tokenizer.apply_chat_template(
                list(prompt.messages), add_generation_prompt=True, tokenize=True, return_dict=True, **prompt.template
            )["input_ids"]
        else:
            ids = self.tokenizer("\n\n".join(turn["content"] for turn in prompt.messages))["input_ids"]
        return [int(token) for token in ids]

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
                eos_token_id=self._end_ids,
                pad_token_id=self._end_ids[0],
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
            )
        ends = set(self._end_ids)
        for request, row in zip(batch, output[:, len(prompt_ids) :].tolist(), strict=True):
            stop = next((index for index, token in enumerate(row) if token in ends), None)
            tokens = row if stop is None else row[:stop]
            text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            yield Generated(
                request.key,
                request.seed,
                text,
                len(tokens) + (stop is not None),
                "length" if stop is None else "stop",
            )

    @property
    def end_id(self) -> int:
        """The token that ends a response."""
        return self._end_ids[0]

    def _find_end_ids(self) -> list[int]:
        """End tokens of the generation config and the tokenizer, and the end of a chat turn if there is such a one."""
        ends: list[int] = []
        configured = self.model.generation_config.eos_token_id
        candidates = configured if isinstance(configured, list) else [configured]
        candidates = [*candidates, self.tokenizer.eos_token_id]
        vocabulary = self.tokenizer.get_vocab()
        candidates += [vocabulary.get(name) for name in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>")]
        for token in candidates:
            if token is not None and token not in ends:
                ends.append(int(token))
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


class OpenAIBackend:
    """Any OpenAI-compatible server (vllm serve, sglang, ...) through /v1/chat/completions, one request per sample.

    Args:
        url: such as http://localhost:8000/v1.
        model: name the server knows it by.
        concurrency: requests in flight.
        api_key: sent as bearer token if given; never stored.
        retries: attempts per request, with doubling pauses from one second, for connection errors, 429 and 5xx.
        extra_body: JSON values sent with every request, e.g. {"top_k": -1}; they go into the manifest.
    """

    def __init__(
        self,
        url: str,
        model: str,
        concurrency: int = 64,
        api_key: str | None = None,
        retries: int = 6,
        timeout: float = 3600.0,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        import httpx

        self.url = url.rstrip("/")
        self.model = model
        self.concurrency = concurrency
        self.retries = retries
        self.extra_body = extra_body or {}
        self._client = httpx.Client(
            timeout=timeout,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            limits=httpx.Limits(max_connections=concurrency),
        )
        models = self._get("/models")
        known = [str(entry["id"]) for entry in models["data"]]
        if known and model not in known:  # a server that loads models on demand may list none
            raise ValueError(f"the server at {url} has no model {model!r}; it has {known}")
        self._root = next((entry.get("root") for entry in models["data"] if entry["id"] == model), None)

    def identity(self) -> dict[str, Any]:
        # A server does not tell a hash of its weights: the name it serves them under has to do.
        return {"backend": "openai", "model": self.model, "server_root": self._root, "extra_body": self.extra_body}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        queue = iter(requests)
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            running: set[Future[Generated]] = set()
            while True:
                for request in queue:
                    running.add(pool.submit(self._complete, request, decoding))
                    if len(running) >= 2 * self.concurrency:
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, request: Request, decoding: Decoding) -> Generated:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(request.prompt.messages),
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_tokens,
            "seed": request.seed,
            "n": 1,
            **self.extra_body,
        }
        if decoding.top_k != -1:
            body["top_k"] = decoding.top_k
        if request.prompt.template:
            body["chat_template_kwargs"] = request.prompt.template
        answer = self._post("/chat/completions", body)
        choice = answer["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        if message.get("reasoning_content"):  # a server with a reasoning parser splits what the model wrote
            text = f"<think>{message['reasoning_content']}</think>{text}"
        reason = "length" if choice.get("finish_reason") == "length" else "stop"
        return Generated(request.key, request.seed, text, int(answer["usage"]["completion_tokens"]), reason)

    def _get(self, path: str) -> Any:
        return self._send("GET", path, None)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        import httpx

        for attempt in range(self.retries):
            try:
                response = self._client.request(method, self.url + path, json=body)
                if response.status_code == 429 or response.status_code >= 500:
                    raise httpx.HTTPStatusError("busy", request=response.request, response=response)
                if response.status_code >= 400:
                    raise ValueError(f"{self.url}{path}: HTTP {response.status_code}: {response.text[:500]}")
                return response.json()
            except (httpx.TransportError, httpx.HTTPStatusError, json.JSONDecodeError) as error:
                if attempt + 1 == self.retries:
                    raise RuntimeError(f"{self.url}{path} failed {self.retries} times: {error}") from error
                time.sleep(2.0**attempt)
        raise AssertionError("unreachable")


class VllmRayBackend:
    """vLLM offline on all GPUs of a machine or a Ray cluster, distributed by Ray Data's LLM batch inference.

    Untried: no GPU was at hand when this was written. Written against Ray 2.60's `ray.data.llm`
    (`vLLMEngineProcessorConfig`, `build_processor`); see the recipe notes before relying on it.

    Args:
        folder: model folder, on a path that all nodes can read.
        tensor_parallel_size: GPUs per engine.
        concurrency: engines (data parallel); default: all GPUs of the cluster / tensor_parallel_size.
        batch_size: requests Ray Data hands to an engine at a time.
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
        from transformers import AutoTokenizer

        self.folder = folder
        self.tensor_parallel_size = tensor_parallel_size
        self.concurrency = concurrency
        self.batch_size = batch_size
        self.engine_kwargs = engine_kwargs or {}
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def identity(self) -> dict[str, Any]:
        return {
            "backend": "vllm",
            "model": self.folder.name,
            "weights": weights_fingerprint(self.folder),
            "engine_kwargs": self.engine_kwargs,
        }

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        import ray
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        if not ray.is_initialized():
            ray.init()
        gpus = int(ray.cluster_resources().get("GPU", 0))
        engines = self.concurrency or gpus // self.tensor_parallel_size
        if engines < 1:
            raise RuntimeError(
                f"the Ray cluster has {gpus} GPUs, an engine needs {self.tensor_parallel_size}: use --backend openai "
                "with a server elsewhere, or --backend transformers"
            )
        config = vLLMEngineProcessorConfig(
            model_source=str(self.folder),
            engine_kwargs={
                "tensor_parallel_size": self.tensor_parallel_size,
                "enable_prefix_caching": True,
                **self.engine_kwargs,
            },
            concurrency=engines,
            batch_size=self.batch_size,
            chat_template_stage=False,  # prompts are tokenized here: the template's arguments differ between problems
            tokenize_stage=False,
        )
        processor = build_processor(
            config,
            preprocess=lambda row: {
                **row,
                "sampling_params": {
                    "temperature": decoding.temperature,
                    "top_p": decoding.top_p,
                    "top_k": decoding.top_k,
                    "max_tokens": decoding.max_tokens,
                    "seed": int(row["seed"]),
                },
            },
        )
        rows = []
        for _, same_problem in groupby(requests, key=lambda request: request.key[:2]):
            group = list(same_problem)
            ids = self.tokenizer.apply_chat_template(
                list(group[0].prompt.messages),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                **group[0].prompt.template,
            )["input_ids"]
            rows += [
                {"key": json.dumps(request.key), "seed": request.seed, "prompt": "", "tokenized_prompt": list(ids)}
                for request in group
            ]
        for row in processor(ray.data.from_items(rows)).iter_rows():
            num_tokens = int(row["num_generated_tokens"])
            benchmark, problem_id, index = json.loads(row["key"])
            yield Generated(
                (benchmark, problem_id, index),
                int(row["seed"]),
                str(row["generated_text"]),
                num_tokens,
                "length" if num_tokens >= decoding.max_tokens else "stop",  # Ray Data does not pass the reason on
            )
