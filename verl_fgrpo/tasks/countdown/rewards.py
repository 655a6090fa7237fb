"""verl's reward function for countdown: 1.0 for an expression of exactly the given numbers with the target's value.

Use it with `reward.custom_reward_function.path=pkg://verl_fgrpo.tasks.countdown.rewards` and `name=compute_score`.
"""

import json
from typing import Any

from verl_fgrpo.tasks.countdown.arithmetic import evaluate


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float]:
    """Binary reward: 1.0 where reasoning-gym's own score is 1.0, else 0.0, also where that gives partial credit.

    reasoning-gym's scorer hands the answer to sympy's parser, which evaluates it as Python. Here the answer is read by
    `arithmetic.evaluate` instead, which knows + - * / and brackets only and computes exactly.

    Args:
        data_source: unused; part of verl's interface.
        solution_str: the decoded response: the expression and nothing else.
        ground_truth: JSON text, e.g. `{"numbers": [3, 7, 12], "target": 33}`.
        extra_info: unused.
        kwargs: unused.

    Returns:
        `score` and `acc` (equal), and `readable`, whether the response is an expression at all: all 0.0 or 1.0.
    """
    problem = json.loads(ground_truth)
    try:
        value, numbers = evaluate(solution_str.strip())
    except ValueError:
        return {"score": 0.0, "acc": 0.0, "readable": 0.0}
    correct = float(value == problem["target"] and sorted(numbers) == sorted(problem["numbers"]))
    return {"score": correct, "acc": correct, "readable": 1.0}
