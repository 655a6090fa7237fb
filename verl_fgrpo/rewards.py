"""The math reward's public path: `reward.custom_reward_function.path=pkg://verl_fgrpo.rewards`."""

from verl_fgrpo.runs.reward import compute_score

__all__ = ["compute_score"]
