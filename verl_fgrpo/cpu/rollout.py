"""The rollout "hf": generation with transformers in a Ray server, weights sent by the trainer after every step."""

import asyncio
import concurrent.futures
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from verl_fgrpo.core.token_sampling import Generation, SamplingParams, generate

logger = logging.getLogger(__name__)

DEFAULT_QUIET_SECONDS = 0.01
DEFAULT_SYNC_TIMEOUT_SECONDS = 600.0


def server_name(replica_rank: int, suffix: str = "") -> str:
    """Ray name of a replica's server, by which the training side finds it."""
    return f"hf_server_{replica_rank}{suffix}"


def hf_option(config: RolloutConfig, name: str, default: float) -> float:
    """Read `rollout.engine_kwargs.hf.<name>`, a number."""
    return float((config.engine_kwargs.get("hf") or {}).get(name, default))


class HFServerAdapter(BaseRollout):  # type: ignore[misc]
    """Training side of the rollout: sends the weights to the replica that this rank leads."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        rank = int(os.environ["RANK"])
        ranks_per_replica = (
            self.config.tensor_model_parallel_size
            * self.config.data_parallel_size
            * self.config.pipeline_model_parallel_size
        )
        self.replica_rank = rank // ranks_per_replica if replica_rank == -1 else replica_rank
        self.leads_replica = rank % ranks_per_replica == 0
        self.bucket_bytes = self.config.checkpoint_engine.update_weights_bucket_megabytes << 20
        self.timeout = hf_option(self.config, "sync_timeout_seconds", DEFAULT_SYNC_TIMEOUT_SECONDS)
        self._server: Any = None
        truncated = self.config.top_p < 1 or self.config.top_k > 0
        if truncated and hf_option(self.config, "bypass_mode", False):
            raise ValueError(
                f"algorithm.rollout_correction.bypass_mode=True with rollout.top_p={self.config.top_p}, "
                f"top_k={self.config.top_k}: the log-probs of the truncated distribution are not the actor's; "
                "set bypass_mode=False, or top_p=1 and top_k=-1"
            )

    async def _call(self, method: str, *args: Any) -> Any:
        if self._server is None:
            self._server = ray.get_actor(server_name(self.replica_rank))
        try:
            return await asyncio.wait_for(getattr(self._server, method).remote(*args), self.timeout)
        except asyncio.TimeoutError as error:
            raise RuntimeError(
                f"rollout server {server_name(self.replica_rank)} did not answer {method} within {self.timeout:g} s; "
                "see its log, or raise actor_rollout_ref.rollout.engine_kwargs.hf.sync_timeout_seconds"
            ) from error

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """Weights and cache stay: there is no device memory to free."""

    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        global_steps: int | None = None,
        wire_format: str = "named_tensors",
        **kwargs: Any,
    ) -> None:
        """Send all tensors in buckets, then make the server check that none is missing.

        Every rank must walk through `weights` (gathering a shard is a collective); only the replica's leader sends.
        """
        if wire_format != "named_tensors":
            raise ValueError(f"wire_format={wire_format!r}: rollout.name=hf takes named_tensors only")
        bucket: dict[str, torch.Tensor] = {}
        size = 0
        for name, tensor in weights:
            if not self.leads_replica:
                continue
            bucket[name] = tensor.detach().cpu()
            size += tensor.numel() * tensor.element_size()
            if size >= self.bucket_bytes:
                await self._call("load_weights", bucket)
                bucket, size = {}, 0
        if self.leads_replica:
            await self._call("load_weights", bucket)
            await self._call("finish_weight_update", global_steps)


@dataclass
class _Request:
    prompt_ids: list[int]
    params: SamplingParams
    future: "asyncio.Future[Generation]"


class HFServer:
    """Ray actor that holds the model and generates for all waiting requests in one batch.

    A batch starts when no request has arrived for `engine_kwargs.hf.quiet_seconds` or `max_num_seqs` are waiting.
    """

    def __init__(self, config: Any, model_config: Any, replica_rank: int) -> None:
        from transformers import AutoModelForCausalLM
        from verl.utils.torch_dtypes import PrecisionType

        self.config: RolloutConfig = omega_conf_to_dataclass(config)
        self.model_config: HFModelConfig = omega_conf_to_dataclass(model_config, HFModelConfig)
        self.replica_rank = replica_rank
        if self.config.logprobs_mode != "processed_logprobs":
            raise ValueError(
                f"actor_rollout_ref.rollout.logprobs_mode={self.config.logprobs_mode}: rollout.name=hf returns the "
                "log-probs that were sampled from; set processed_logprobs"
            )
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        dtype = PrecisionType.to_dtype(self.config.dtype)
        if self.config.load_format == "dummy":
            self.model = AutoModelForCausalLM.from_config(self.model_config.hf_config, dtype=dtype)
            self._missing: set[str] | None = set(self.model.state_dict())
        else:
            self.model = AutoModelForCausalLM.from_pretrained(
                self.model_config.local_path, config=self.model_config.hf_config, dtype=dtype
            )
            self._missing = None
        self.model.eval()
        self.vocab_size = len(self.model_config.tokenizer)
        self.stop_token_ids = self._stop_token_ids()
        self.global_steps: int | None = None
        self.generator = torch.Generator()
        self._seed_generator()

        self.quiet_seconds = hf_option(self.config, "quiet_seconds", DEFAULT_QUIET_SECONDS)
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._reject = False
        self._abort = False
        self._executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._loop_task: asyncio.Task[None] | None = None

    def _stop_token_ids(self) -> frozenset[int]:
        ids = {self.model_config.tokenizer.eos_token_id}
        configured = getattr(self.model_config.generation_config, "eos_token_id", None)
        ids.update(configured if isinstance(configured, list) else [configured])
        return frozenset(i for i in ids if i is not None)

    def _seed_generator(self) -> None:
        # One stream per weight version, so that a resumed run does not repeat the random numbers of step 1.
        step = -1 if self.global_steps is None else self.global_steps
        self.generator.manual_seed(hash((self.config.seed, self.replica_rank, step)) % 2**63)

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str = "", **kwargs: Any
    ) -> TokenOutput:
        """Continue one prompt; returns when its batch has finished."""
        media = [name for name in ("image_data", "video_data", "audio_data") if kwargs.get(name)]
        if media:
            raise ValueError(f"{', '.join(media)}: rollout.name=hf takes text only")
        return (await self.generate_group([list(prompt_ids)], [sampling_params]))[0]

    async def generate_group(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[TokenOutput]:
        """Continue several prompts; returns when their batches have finished."""
        if self._missing:
            raise RuntimeError(
                f"rollout server {self.replica_rank} was asked to generate before its weights arrived "
                f"({len(self._missing)} tensors missing)"
            )
        requests = [
            _Request(prompt, self._sampling_params(prompt, wanted), asyncio.get_running_loop().create_future())
            for prompt, wanted in zip(prompts, params, strict=True)
        ]
        if not self._open.is_set():
            if self._reject:
                raise RuntimeError(f"rollout server {self.replica_rank} does not accept requests while it is paused")
            await self._open.wait()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._serve())
        self._waiting.extend(requests)
        self._arrived.set()
        generations = await asyncio.gather(*[request.future for request in requests])
        return [self._token_output(generation) for generation in generations]

    def _sampling_params(self, prompt: list[int], params: dict[str, Any]) -> SamplingParams:
        budget = self.config.prompt_length + self.config.response_length - len(prompt)
        if self.config.max_model_len is not None:
            budget = min(budget, self.config.max_model_len - len(prompt))
        limit = self.config.response_length if budget > self.config.response_length else budget
        return SamplingParams.from_request(params, limit, self.stop_token_ids, self.config.ignore_eos)

    def _token_output(self, generation: Generation) -> TokenOutput:
        return TokenOutput(
            token_ids=generation.token_ids,
            log_probs=generation.log_probs,
            stop_reason=generation.stop_reason,
            extra_fields={"global_steps": self.global_steps},
        )

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            waiting = -1
            while waiting != len(self._waiting) < self.config.max_num_seqs:
                waiting = len(self._waiting)
                await asyncio.sleep(self.quiet_seconds)
            # Equal lengths side by side: little padding, and equal prompts share their prefill.
            self._waiting.sort(key=lambda request: (len(request.prompt_ids), request.prompt_ids))
            batch, self._waiting = (
                self._waiting[: self.config.max_num_seqs],
                self._waiting[self.config.max_num_seqs :],
            )
            if not self._waiting:
                self._arrived.clear()
            await self._run(batch)

    async def _run(self, batch: list[_Request]) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._generate, batch)
            for request, generation in zip(batch, results, strict=True):
                if not request.future.done():
                    request.future.set_result(generation)
        except Exception as error:  # every waiting caller must learn of it, else verl waits forever
            logger.exception("generation failed for a batch of %d requests", len(batch))
            for request in batch:
                if not request.future.done():
                    request.future.set_exception(error)

    def _generate(self, batch: list[_Request]) -> list[Generation]:
        return generate(
            self.model,
            [request.prompt_ids for request in batch],
            [request.params for request in batch],
            self.generator,
            vocab_size=self.vocab_size,
            aborted=lambda: self._abort,
        )

    # ---- weights -------------------------------------------------------------------------------------------------

    async def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Copy a bucket of tensors into the model; an unknown name or another shape is an error."""
        if self._missing is None:
            self._missing = set(self.model.state_dict())
        unexpected = self.model.load_state_dict(weights, strict=False).unexpected_keys
        if unexpected:
            raise RuntimeError(f"weight sync: the rollout model has no tensor named {sorted(unexpected)[:5]}")
        self._missing -= set(weights)

    async def finish_weight_update(self, global_steps: int | None) -> None:
        """Check that every tensor arrived, and start this weight version's random stream."""
        tied = set(getattr(self.model, "_tied_weights_keys", None) or ())
        missing = (self._missing or set()) - (tied if self.model.config.tie_word_embeddings else set())
        if missing:
            raise RuntimeError(f"weight sync: {len(missing)} tensors did not arrive, e.g. {sorted(missing)[:5]}")
        self._missing = None
        if global_steps is not None:
            self.global_steps = global_steps
        self._seed_generator()

    # ---- calls of verl's replica -----------------------------------------------------------------------------------

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        """End running rows with what they have, and hold (or reject) new requests until resume_generation."""
        self._open.clear()
        self._reject = reject_request
        self._abort = True
        dropped, self._waiting = self._waiting, []
        for request in dropped:
            request.future.set_result(Generation())
        return {"aborted_count": len(dropped)}

    async def resume_generation(self) -> None:
        """Accept requests again."""
        self._abort = False
        self._reject = False
        self._open.set()

    async def ready(self) -> str:
        """Address under which verl lists this server; there is no HTTP endpoint behind it."""
        return f"hf-server-{self.replica_rank}:0"

    async def wake_up(self, *args: Any, **kwargs: Any) -> None:
        """Nothing sleeps: there is no device memory to free."""

    sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = start_profile = stop_profile = wake_up


class HFReplica(RolloutReplica):  # type: ignore[misc]
    """One server, in one process, for the training ranks of this replica."""

    async def launch_servers(self) -> None:
        """Start the server where the replica's first worker runs, and wait until its model is built."""
        if self.is_reward_model or self.is_teacher_model:
            raise NotImplementedError("rollout.name=hf serves the actor only, not reward or teacher models")
        node_id = ray.get_runtime_context().get_node_id()
        if self.workers:
            node_id = await self.workers[0].__ray_call__.remote(lambda worker: ray.get_runtime_context().get_node_id())
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        server = (
            ray.remote(HFServer)
            .options(
                name=server_name(self.replica_rank, self.name_suffix),
                scheduling_strategy=strategy,
                max_concurrency=self.max_concurrency,
                num_cpus=0,
            )
            .remote(config=self.config, model_config=self.model_config, replica_rank=self.replica_rank)
        )
        self.servers = [server]
        self._server_handle = server
        self._server_address = await server.ready.remote()
