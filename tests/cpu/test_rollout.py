"""The rollout server in this process: weights must be complete, requests are batched, a silent server is an error."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_task as toy

from verl_fgrpo.cpu.rollout import HFServer, HFServerAdapter

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    from transformers import AutoModelForCausalLM
    from verl.workers.config import HFModelConfig, RolloutConfig

    folder: Path = toy.write_model(tmp_path_factory.mktemp("toy") / "model", hidden=32, layers=2, extra_vocab=37)
    model_config = HFModelConfig(
        path=str(folder),
        tokenizer_path=str(folder / "tokenizer"),
        override_config={"attn_implementation": "sdpa"},
    )
    rollout = RolloutConfig(name="hf", dtype="float32", prompt_length=16, response_length=6, load_format="dummy")
    return rollout, model_config, AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_server_generates_only_with_complete_weights(configs: tuple[Any, Any, dict[str, torch.Tensor]]) -> None:
    rollout, model_config, weights = configs

    async def main() -> None:
        server = HFServer(rollout, model_config, replica_rank=0)
        with pytest.raises(RuntimeError, match="before its weights arrived"):
            await server.generate([5, 6], {})
        names = list(weights)
        await server.load_weights({name: weights[name] for name in names[:3]})
        with pytest.raises(RuntimeError, match="did not arrive"):
            await server.finish_weight_update(1)
        with pytest.raises(RuntimeError, match="no tensor named"):
            await server.load_weights({"model.nothing.weight": torch.zeros(1)})
        await server.load_weights({name: weights[name] for name in names[3:]})
        await server.finish_weight_update(1)

        rows = await server.generate_group([[5, 6], [5, 6], [7, 8, 9]], [{"seed": 1}, {"seed": 1}, {"seed": 2}])
        single = await server.generate([7, 8, 9], {"seed": 2})
        assert rows[0].token_ids == rows[1].token_ids
        assert rows[2].token_ids == single.token_ids
        assert single.extra_fields == {"global_steps": 1}
        assert all(token < len(toy.SPECIAL) + len(toy.WORDS) for row in rows for token in row.token_ids)

        await server.abort_all_requests(reject_request=True)
        with pytest.raises(RuntimeError, match="paused"):
            await server.generate([5], {})
        await server.resume_generation()
        assert len((await server.generate([5], {"ignore_eos": True})).token_ids) == 6
        with pytest.raises(ValueError, match="text only"):
            await server.generate([5], {}, image_data=["x"])

    asyncio.run(main())


def test_a_silent_server_is_an_error_not_a_hang() -> None:
    class Silent:
        class load_weights:
            @staticmethod
            async def remote(*args: Any) -> None:
                await asyncio.sleep(60)

    adapter: Any = HFServerAdapter.__new__(HFServerAdapter)
    adapter._server, adapter.timeout, adapter.replica_rank = Silent, 0.05, 3
    adapter.leads_replica, adapter.bucket_bytes = True, 1 << 20
    with pytest.raises(RuntimeError, match="hf_server_3 did not answer load_weights within 0.05 s"):
        asyncio.run(adapter.update_weights([("w", torch.zeros(2))]))
