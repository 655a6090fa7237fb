"""Prompt presets by model family.

Source: arXiv 2602.06717, Tables 8-9. Math and GPQA use the system prompt below; IFEval and SynLogic "You are a helpful
assistant." (Qwen2.5) or none (Qwen3, with thinking off for IFEval and on for the rest). Llama's own chat template puts
its date header before the system prompt; the date is pinned to the default of the template, which would otherwise write
the date of the day, so that a prompt would change from one day to the next.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from verl_fgrpo.evaluation.problems import Problem

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
HELPFUL = "You are a helpful assistant."


@dataclass(frozen=True)
class Preset:
    """System prompt and chat-template arguments by kind of problem; kinds not named use `system`."""

    system: str | None  # the system prompt; None for none
    systems: dict[str, str | None] = field(default_factory=dict)  # exceptions by kind
    # value of `enable_thinking` for the chat template by kind; absent for templates without it
    thinking: dict[str, bool] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)  # further arguments of the chat template, for every kind


@dataclass(frozen=True)
class Prompt:
    """Chat turns and the arguments of the chat template."""

    messages: tuple[dict[str, str], ...]
    template: dict[str, Any]


PRESETS = {
    "qwen2.5": Preset(BOXED, {"ifeval": HELPFUL, "synlogic": HELPFUL}),
    "qwen3": Preset(
        BOXED,
        {"ifeval": None, "synlogic": None},
        {"math": True, "choice": True, "synlogic": True, "ifeval": False},
    ),
    "llama3": Preset(BOXED, {"ifeval": None, "synlogic": None}, template={"date_string": "26 Jul 2024"}),
    "boxed": Preset(BOXED),
    "none": Preset(None),
}


def build_prompt(preset: str, problem: Problem) -> Prompt:
    """The chat for one problem. Raises ValueError for an unknown preset."""
    if preset not in PRESETS:
        raise ValueError(f"prompt preset {preset!r} is unknown; known: {', '.join(PRESETS)}")
    chosen = PRESETS[preset]
    system = chosen.systems.get(problem.kind, chosen.system)
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": problem.prompt})
    template = {"enable_thinking": chosen.thinking[problem.kind]} if problem.kind in chosen.thinking else {}
    return Prompt(tuple(messages), template | chosen.template)


def prompt_hash(preset: str, problem_kinds: Iterable[str]) -> str:
    """Identifies the preset's texts for these kinds: a store refuses samples of another prompt."""
    texts = []
    for kind in sorted(set(problem_kinds)):
        prompt = build_prompt(preset, Problem("", "", "{prompt}", kind, ("A",)))
        texts.append([kind, list(prompt.messages), prompt.template])
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
