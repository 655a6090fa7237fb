"""FSDP2 engines for the device "cpu": verl's own, minus what needs an accelerator."""

import copy
from typing import Any

import torch
from verl.utils.torch_functional import logprobs_from_logits_naive
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


class CPUFSDPEngineWithLMHead(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's FSDP2 language-model engine on CPU.

    Two differences. No CPUOffloadPolicy, whose pinned memory needs an accelerator and which has nothing to offload to.
    And logits end at the tokenizer's last id: many models pad their vocabulary beyond the tokenizer, such an id cannot
    be decoded, and the rollout never samples it. Cutting both distributions keeps their log-probs equal.
    """

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        original: Any = self.engine_config  # type: ignore[has-type]
        # verl reads both flags here only to choose CPUOffloadPolicy; frozen dataclass, hence object.__setattr__.
        without_offload = copy.copy(original)
        object.__setattr__(without_offload, "forward_only", False)
        object.__setattr__(without_offload, "offload_policy", False)
        self.engine_config = without_offload
        try:
            wrapped: torch.nn.Module = super()._build_fsdp_module(module)
            return wrapped
        finally:
            self.engine_config = original

    def prepare_model_outputs(self, output: Any, *args: Any, **kwargs: Any) -> Any:
        tokenizer = self.model_config.tokenizer
        if tokenizer is not None and output.logits.shape[-1] > len(tokenizer):
            output.logits = output.logits[..., : len(tokenizer)]
        return super().prepare_model_outputs(output, *args, **kwargs)


def logprobs_from_logits(logits: torch.Tensor, labels: torch.Tensor, inplace_backward: bool = True) -> torch.Tensor:
    """verl's own log_softmax and gather, instead of the loop over tokens that it runs without flash attention."""
    result: torch.Tensor = logprobs_from_logits_naive(logits, labels)
    return result


def register_engines() -> None:
    """Register the engine for device "cpu", backend "fsdp2" (FSDP1 and critics do not run on CPU)."""
    transformer_impl.logprobs_from_logits = logprobs_from_logits
    EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(CPUFSDPEngineWithLMHead)
