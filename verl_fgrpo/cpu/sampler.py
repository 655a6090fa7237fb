"""A replay buffer that polls fast: verl's default of 2 s would be most of a tiny model's step."""

from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

DEFAULT_POLL_INTERVAL = 0.05


class FastPollSampler(ReplayBuffer):  # type: ignore[misc]
    """verl's synchronous replay buffer with a chosen poll interval, for `trainer.v1.sampler.custom_sampler`.

    verl does not hand a custom sampler `algorithm.filter_groups`, so it would switch dynamic sampling off in silence.
    Hence `sampler_kwargs.filter_groups_enable` must repeat that setting (the CPU preset interpolates it), and True
    is refused.

    Args:
        trainer_mode: must be "sync".
        sampler_kwargs: `poll_interval` in seconds (default 0.05) and `filter_groups_enable` (no default).

    Raises:
        ValueError: if group filtering or failed-group refill is on or not stated, the mode is not "sync", or
            `poll_interval` is not positive.
    """

    def __init__(self, trainer_mode: str, *args: Any, sampler_kwargs: DictConfig, **kwargs: Any) -> None:
        remedy = "set trainer.v1.sampler.custom_sampler.path=null for verl's own sampler, which polls every 2 s"
        if trainer_mode != "sync":
            raise ValueError(
                f"trainer.v1.trainer_mode={trainer_mode}: FastPollSampler samples synchronously; set sync, or {remedy}"
            )
        for key, setting in (
            ("filter_groups_enable", "algorithm.filter_groups.enable"),
            ("sync_refill_failed_groups", "trainer.v1.sampler.sync_refill_failed_groups"),
        ):
            value = sampler_kwargs.get(key)
            if value is None:
                raise ValueError(
                    f"trainer.v1.sampler.sampler_kwargs.{key} is missing: verl does not tell a custom sampler "
                    f"{setting}; add +trainer.v1.sampler.sampler_kwargs.{key}='${{{setting}}}', or {remedy}"
                )
            if value:
                raise ValueError(
                    f"{setting}=True: verl does not hand a custom sampler what this needs, so it would be off in "
                    f"silence; set it to False, or {remedy}"
                )
        poll_interval = float(sampler_kwargs.get("poll_interval", DEFAULT_POLL_INTERVAL))
        if not poll_interval > 0:
            raise ValueError(
                f"trainer.v1.sampler.sampler_kwargs.poll_interval={poll_interval} must be positive (seconds, e.g. 0.05)"
            )
        super().__init__(trainer_mode, *args, sampler_kwargs=sampler_kwargs, poll_interval=poll_interval, **kwargs)
