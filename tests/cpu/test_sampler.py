"""The fast sampler polls fast and refuses what it cannot do."""

from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf

from verl_fgrpo.cpu.sampler import FastPollSampler


def sampler(trainer_mode: str = "sync", **sampler_kwargs: Any) -> FastPollSampler:
    stated = {"filter_groups_enable": False, "sync_refill_failed_groups": False} | sampler_kwargs
    return FastPollSampler(
        trainer_mode=trainer_mode,
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create({k: v for k, v in stated.items() if v is not None}),
        refill_fn=lambda n: n,
    )


def test_poll_interval() -> None:
    assert sampler().poll_interval == 0.05
    assert sampler(poll_interval=0.5).poll_interval == 0.5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"filter_groups_enable": True}, "algorithm.filter_groups.enable=True"),
        ({"filter_groups_enable": None}, "filter_groups_enable is missing"),
        ({"sync_refill_failed_groups": True}, "sync_refill_failed_groups=True"),
        ({"sync_refill_failed_groups": None}, "sync_refill_failed_groups is missing"),
        ({"poll_interval": 0}, "poll_interval=0.0 must be positive"),
        ({"trainer_mode": "colocate_async"}, "trainer_mode=colocate_async"),
    ],
)
def test_refusals_name_the_setting(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**kwargs)


def test_preset_hands_over_what_the_sampler_asks_for() -> None:
    """The preset's interpolations must follow verl's own settings, whatever they are called."""
    config = compose(["algorithm.filter_groups.enable=True"])
    with pytest.raises(ValueError, match="algorithm.filter_groups.enable=True"):
        sampler(**config.trainer.v1.sampler.sampler_kwargs)
    assert sampler(**compose([]).trainer.v1.sampler.sampler_kwargs).poll_interval == 0.05


def compose(overrides: list[str]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return hydra_compose(
            "ppo_trainer", ["hydra.searchpath=[pkg://verl_fgrpo.presets]", "+platform=cpu", *overrides]
        )


@pytest.fixture(autouse=True)
def no_hydra_left_over() -> Iterator[None]:
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()
