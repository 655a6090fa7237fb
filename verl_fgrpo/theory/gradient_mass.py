"""Positive and negative gradient mass of every method against the success rate, from the estimators themselves.

A group of N rollouts, X of them correct, p = X / N. In expectation the update is

    m+ * E[grad log pi | A > 0] - m- * E[grad log pi | A < 0],   m+ = sum_{A > 0} A / N,   m- = sum_{A < 0} |A| / N

Their ratio is the sign balance of a method, their shape over p its focus on hard prompts (arXiv 2607.01490, which calls
them m_S and m_F). On 0/1 rewards: GRPO without the std p (1 - p) both, with the focal weight p (1 - p)^(1 + gamma).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_fgrpo.core.figures import COLOURS, figure_style, new_figure

FloatArray = NDArray[np.float64]
Figure = Any  # matplotlib ships no types that mypy may follow here

_STD_FREE = {"norm_adv_by_std_in_grpo": False}
#: FADE with its moving averages held where they are
_FADE = _STD_FREE | {"focal_gamma": 0, "fade_ema": 1e-9}
#: title -> estimator, its settings under `algorithm`, FADE's (solve rate, entropy below its target) if it is FADE
METHODS: dict[str, tuple[str, dict[str, Any], tuple[float, float] | None]] = {
    "GRPO": ("f_grpo", {"focal_gamma": 0}, None),
    "F-GRPO, gamma 0.5": ("f_grpo", {"focal_gamma": 0.5}, None),
    "F-GRPO, gamma 1": ("f_grpo", {"focal_gamma": 1.0}, None),
    "GRPO without std": ("f_grpo", {"focal_gamma": 0} | _STD_FREE, None),
    "Power 2: the same, gamma 1": ("f_grpo", {"focal_gamma": 1.0} | _STD_FREE, None),
    "FADE early: alpha 3, delta 1": ("f_fade", _FADE, (0.25, 0.0)),
    "FADE late: alpha 1, delta 0.3": ("f_fade", _FADE, (0.75, 1.0)),
    "RLOO": ("f_rloo", {"focal_gamma": 0}, None),
    "MaxRL": ("f_maxrl", {"focal_gamma": 0}, None),
    "pass@4 training": ("f_passk_training", {"focal_gamma": 0, "passk_k": 4}, None),
    "W-REINFORCE, lambda 0.1": ("f_w_reinforce", {"focal_gamma": 0}, None),
    "unlikeliness (equally likely)": ("f_unlikeliness", {"focal_gamma": 0}, None),
}


def gradient_mass(
    estimator: Callable[..., Any],
    group_size: int,
    settings: Mapping[str, Any],
    fade: tuple[float, float] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """m+ and m- of an estimator for X = 0, 1, ..., N correct rollouts of 0/1 rewards.

    Args:
        estimator: in verl's calling convention.
        group_size: N.
        settings: of `algorithm`.
        fade: where FADE's moving averages stand: solve rate, and how far the entropy is below its target.
    """
    import torch

    from verl_fgrpo.methods.context import EstimatorContext, Run, using_context
    from verl_fgrpo.methods.fade import FadeState

    counts = np.arange(group_size + 1)
    rewards = torch.from_numpy((np.arange(group_size) < counts[:, None]).astype(np.float64)).reshape(-1, 1)
    mask = torch.ones_like(rewards)
    notes = {} if fade is None else {"fade": FadeState(0, fade[0], 0.0, fade[1])}
    context = EstimatorContext(log_probs=-mask, entropy=0.0, step=1, run=Run(notes=notes))
    with using_context(context):
        advantages, _ = estimator(
            token_level_rewards=rewards,
            response_mask=mask,
            index=np.repeat(counts, group_size),
            config=dict(settings),
        )
    groups = advantages.numpy().reshape(group_size + 1, group_size)
    return np.clip(groups, 0, None).mean(axis=1), np.clip(-groups, 0, None).mean(axis=1)


@figure_style()
def gradient_mass_figure() -> Figure:
    """One panel a method, all on one scale: its update on correct rollouts and against wrong ones."""
    from verl_fgrpo.host.registry import registered_estimator

    group_size = 32
    figure, panels = new_figure(11.0, 7.6, rows=3, columns=4, sharex=True, sharey=True)
    p = np.arange(group_size + 1) / group_size
    for axes, (title, (name, settings, fade)) in zip(panels, METHODS.items(), strict=True):
        positive, negative = gradient_mass(registered_estimator(name), group_size, settings, fade)
        axes.plot(p, positive, color=COLOURS[0], label="m+: towards correct rollouts")
        axes.plot(p, negative, color=COLOURS[1], linestyle="--", label="m-: away from wrong rollouts")
        axes.set(title=title, xlim=(0, 1), ylim=(0, 1.02))
    for axes in panels[-4:]:
        axes.set_xlabel("success rate of the prompt")
    for axes in panels[::4]:
        axes.set_ylabel("mass per rollout")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"Where a group of {group_size} rollouts pushes, and how hard (0/1 rewards)")
    return figure
