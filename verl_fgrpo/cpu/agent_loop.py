"""Agent loop workers that move rollouts in groups: one generate call, one reward process less, one queue write.

verl's worker makes about five remote calls and builds one agent loop object for every single rollout, some 10 ms of CPU
time each; with a tiny model that is most of a step. Here the same code of verl runs, but what its concurrent rollouts
ask for within a few milliseconds is sent in one call.

What it reaches into, all in this process and only where the CPU preset names this manager:

    AgentLoopWorkerTQ.__ray_metadata__    an actor class cannot be subclassed; the class that it decorates can
    agent_loop_tq.tq                      replaced: puts of one moment are one put
    agent_loop_tq.list_of_dict_to_tensordict   replaced: rows are joined when they are put, not one by one before
    AgentLoopWorkerTQ._run_agent_loop, _agent_loop_postprocess    one agent loop object serves all single-turn rollouts
    agent_loop._agent_loop_registry       the class of that object
    LLMServerClient._load_balancer, _acquire_server, _release_server    one call a server for all requests of a moment
    RewardLoopWorker                      runs in this process: one process and one call a rollout less
"""

import asyncio
import copy
from collections import defaultdict
from typing import Any
from uuid import uuid4

import hydra
import ray
import transfer_queue
from verl.experimental.agent_loop import agent_loop as host_agent_loop
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import agent_loop_tq as host
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_fgrpo.core.gather import Gatherer

QUIET_SECONDS = 0.005


class GroupedLLMClient(LLMServerClient):  # type: ignore[misc]
    """verl's client of the rollout servers, with one call per server for all requests of a moment."""

    def __init__(self, client: LLMServerClient, quiet_seconds: float = QUIET_SECONDS) -> None:
        super().__init__(config=client.config, load_balancer_handle=client._load_balancer)
        self._gatherer = Gatherer(self._generate_group, quiet_seconds)

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Any] | None = None,
        video_data: list[Any] | None = None,
        audio_data: list[Any] | None = None,
        **kwargs: Any,
    ) -> TokenOutput:
        """Generate from one prompt (text only: rollout.name=hf has no other input)."""
        if image_data or video_data or audio_data:
            raise ValueError("rollout.name=hf takes text only: remove images, videos and audio from the data")
        output: TokenOutput = await self._gatherer.submit((list(prompt_ids), sampling_params))
        return output

    async def _generate_group(self, requests: list[tuple[list[int], dict[str, Any]]]) -> list[TokenOutput]:
        servers = len(await self._load_balancer.get_all_servers.remote())
        # Whole prompts stay together, since equal prompts share their prefill.
        size = -(-len(requests) // max(servers, 1))
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        outputs = await asyncio.gather(*[self._generate_part(part) for part in parts])
        return [output for part in outputs for output in part]

    async def _generate_part(self, requests: list[tuple[list[int], dict[str, Any]]]) -> list[TokenOutput]:
        request_id = uuid4().hex
        server_id, server = await self._acquire_server(request_id)
        try:
            outputs: list[TokenOutput] = await server.generate_group.remote(
                [prompt for prompt, _ in requests], [params for _, params in requests]
            )
        finally:
            self._release_server(server_id, request_id=request_id)
        for output in outputs:
            output.extra_fields["min_global_steps"] = output.extra_fields["global_steps"]
            output.extra_fields["max_global_steps"] = output.extra_fields["global_steps"]
        return outputs


class _GroupedTransferQueue:
    """The module transfer_queue with grouped puts; everything else is passed on."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._rows = Gatherer(self._put_rows, quiet_seconds)
        self._tags = Gatherer(self._put_tags, quiet_seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(transfer_queue, name)

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        await self._tags.submit((partition_id, key, tag))

    async def async_kv_batch_put(
        self, keys: list[str], fields: list[dict[str, Any]], tags: list[dict[str, Any]], partition_id: str
    ) -> None:
        await asyncio.gather(
            *[
                self._rows.submit((partition_id, key, row, tag))
                for key, row, tag in zip(keys, fields, tags, strict=True)
            ]
        )

    async def _put_tags(self, items: list[tuple[str, str, dict[str, Any]]]) -> list[None]:
        partitions: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for partition_id, key, tag in items:
            partitions[partition_id][key] = tag
        for partition_id, tags in partitions.items():
            await transfer_queue.async_kv_batch_put(
                keys=list(tags), partition_id=partition_id, tags=list(tags.values())
            )
        return [None] * len(items)

    async def _put_rows(self, items: list[tuple[str, str, dict[str, Any], dict[str, Any]]]) -> list[None]:
        groups: dict[tuple[str, frozenset[str]], list[tuple[str, dict[str, Any], dict[str, Any]]]] = defaultdict(list)
        for partition_id, key, row, tag in items:
            groups[partition_id, frozenset(row)].append((key, row, tag))  # rows of one write have the same fields
        for (partition_id, _), rows in groups.items():
            await transfer_queue.async_kv_batch_put(
                keys=[key for key, _, _ in rows],
                fields=list_of_dict_to_tensordict([row for _, row, _ in rows]),
                tags=[tag for _, _, tag in rows],
                partition_id=partition_id,
            )
        return [None] * len(items)


class _LocalRewardWorker:
    """verl's rule-based reward worker in this process, behind the interface of its Ray handle."""

    def __init__(self, config: Any) -> None:
        self._worker = RewardLoopWorker(config)
        self.compute_score = self  # verl calls handle.compute_score.remote(data)

    async def remote(self, data: DataProto) -> dict[str, Any]:
        # A remote call would copy: reward managers write into extra_info, which all rollouts of a prompt share here.
        data.non_tensor_batch = copy.deepcopy(data.non_tensor_batch)
        result: dict[str, Any] = await self._worker.compute_score(data)
        return result


# What verl decorates with @ray.remote; an actor class cannot be subclassed itself.
_HostWorker: Any = host.AgentLoopWorkerTQ.__ray_metadata__.modified_class.__ray_actor_class__


class GroupedAgentLoopWorker(_HostWorker):  # type: ignore[misc]
    """verl's agent loop worker with grouped calls; agent loops, rewards and what is stored stay verl's own."""

    def __init__(
        self,
        config: Any,
        llm_client: LLMServerClient,
        teacher_client: Any = None,
        reward_loop_worker_handles: Any = None,
    ) -> None:
        if not config.reward.reward_model.enable:
            reward_loop_worker_handles = [_LocalRewardWorker(config)]
        super().__init__(config, GroupedLLMClient(llm_client), teacher_client, reward_loop_worker_handles)
        self._single_turn: Any = None
        # In this process only. verl builds one-row tensors right before the put; grouping needs the rows themselves.
        host.tq = _GroupedTransferQueue()
        host.list_of_dict_to_tensordict = lambda rows: rows

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **kwargs: Any,
    ) -> Any:
        if agent_name != "single_turn_agent" or trace:
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs
            )
        if self._single_turn is None:
            self._single_turn = self._build_agent_loop(agent_name)
        output = await self._single_turn.run(sampling_params, **kwargs)
        return await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)

    # Ray pickles what an actor class inherits with a copy of its globals, which the replacements above do not reach;
    # super() leads to verl's own functions.

    async def _run_prompt(self, *args: Any, **kwargs: Any) -> None:
        await super()._run_prompt(*args, **kwargs)

    async def _agent_loop_postprocess(self, *args: Any, **kwargs: Any) -> None:
        await super()._agent_loop_postprocess(*args, **kwargs)

    def _build_agent_loop(self, agent_name: str) -> Any:
        """The agent loop that verl builds anew for every rollout; the single-turn one keeps no state between them."""
        return hydra.utils.instantiate(
            config=host_agent_loop._agent_loop_registry[agent_name],
            trainer_config=host_agent_loop.DictConfigWrap(config=self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=host_agent_loop.DictConfigWrap(self.config.data),
            tools=host_agent_loop.ToolListWrap(self.tools),
        )


class GroupedAgentLoopManager(host.AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's agent loop manager with `GroupedAgentLoopWorker`, for `rollout.agent.agent_loop_manager_class`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupedAgentLoopWorker)
