"""What verl does with our functions and files: tried on verl's own code, since no signature tells it."""

import asyncio
import inspect

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto

from verl_fgrpo.core.sources import PromptSources
from verl_fgrpo.host.contract import RECIPE_HOST_SYMBOLS, broken_symbols
from verl_fgrpo.host.validation import read_counts
from verl_fgrpo.runs.reward import compute_score

VERDICT = {"score": 1.0, "acc": 1.0, "timeout": 0.0, "unparsed": 0.0, "error": 0.0}
OVERLONG = {"max_resp_len": 8, "overlong_buffer_cfg": {"enable": True, "len": 4, "penalty_factor": 1.0, "log": True}}


class Tokenizer:
    def decode(self, ids, skip_special_tokens):
        return " ".join(str(int(i)) for i in ids)


def rollout(length=6, size=8):
    """One response of `length` tokens 0, 1, ... in verl's container."""
    mask = torch.cat([torch.ones(1, 2, dtype=torch.long), (torch.arange(size) < length).long()[None]], dim=1)
    return DataProto.from_dict(
        tensors={"responses": torch.arange(size)[None], "attention_mask": mask},
        non_tensors={
            "data_source": np.array(["aime24"], dtype=object),
            "reward_model": np.array([{"ground_truth": ["7"]}], dtype=object),
            "extra_info": np.array([{"index": 0}], dtype=object),
        },
    )


@pytest.mark.parametrize("name", ["naive", "dapo"])
def test_reward_managers_call_the_reward_by_its_argument_names_and_keep_all_it_says(name):
    from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    calls = []

    def reward(**arguments):
        inspect.signature(compute_score).bind(**arguments)  # TypeError if ours could not be called like this
        calls.append(arguments)
        return dict(VERDICT)

    async def run():
        config = OmegaConf.create({"reward": {"reward_kwargs": OVERLONG if name == "dapo" else {}}})
        manager = {"naive": NaiveRewardManager, "dapo": DAPORewardManager}[name](config, Tokenizer(), reward)
        return await manager.run_single(rollout())

    result = asyncio.run(run())
    (call,) = calls
    assert (call["data_source"], call["solution_str"], call["ground_truth"]) == ("aime24", "0 1 2 3 4 5", ["7"])
    info = result["reward_extra_info"]
    assert {key: info[key] for key in VERDICT} == VERDICT  # `acc` is what validation and group filtering go by
    if name == "naive":
        assert result["reward_score"] == 1.0
    else:  # 6 tokens are 2 into the last 4 of 8: half the penalty, and `acc` is still 1
        assert float(result["reward_score"]) == 0.5


def test_the_trainer_and_the_logger_are_there():
    assert broken_symbols(RECIPE_HOST_SYMBOLS) == []


def test_a_dump_written_by_verl_is_read(tmp_path):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    correct = np.array([True, False, False, True, True, True])  # numpy values, as verl collects them
    PPOTrainer._write_generations(
        inputs=["user\nWhy?\n"] * 3 + ["user\nWhen?\n"] * 3,
        outputs=["so"] * 6,
        gts=[["7"]] * 3 + [np.array(["8"])] * 3,
        scores=correct.astype(np.float32),
        reward_extra_infos_dict={"acc": list(correct), "uid": [f"{u}_{s}_0" for u in "ab" for s in range(3)]},
        dump_path=str(tmp_path),
        global_steps=4,
    )
    rows = [
        {"data_source": name, "prompt": [{"content": text}], "reward_model": {"ground_truth": [gold]}}
        for name, text, gold in (("aime", "Why?", "7"), ("amc", "When?", "8"))
    ]
    counts = read_counts(tmp_path / "4.jsonl", PromptSources(rows))
    assert counts.benchmarks == ("aime", "amc")
    assert (counts.num_samples.tolist(), counts.num_correct.tolist()) == ([3, 3], [1, 3])
