"""FSDP2 engines for the device "cpu": verl's own, minus what needs an accelerator."""

import copy
from typing import Any

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


class CPUFSDPEngineWithLMHead(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's FSDP2 language-model engine on CPU.

    Two differences. No CPUOffloadPolicy, whose pinned memory needs an accelerator and which has nothing to offload to.
    And logits end at the tokenizer's last id: many models pad their vocabulary beyond the tokenizer, such an id cannot
    be decoded, and the rollout never samples it. Cutting both distributions keeps their log-probs equal.
    """

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        original = self.engine_config
        # verl reads both flags here only to choose CPUOffloadPolicy; frozen dataclass, hence object.__setattr__.
        without_offload = copy.copy(original)
        object.__setattr__(without_offload, "forward_only", False)
        object.__setattr__(without_offload, "offload_policy", False)
        self.engine_config = without_offload
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = original

    def prepare_model_outputs(self, output: Any, *args: Any, **kwargs: Any) -> Any:
        tokenizer = self.model_config.tokenizer
        if tokenizer is not None and output.logits.shape[-1] > len(tokenizer):
            output.logits = output.logits[..., : len(tokenizer)]
        return super().prepare_model_outputs(output, *args, **kwargs)


def register_engines() -> None:
    """Register the engine for device "cpu", backend "fsdp2" (FSDP1 and critics do not run on CPU)."""
    EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(CPUFSDPEngineWithLMHead)
