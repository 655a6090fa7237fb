"""FADE and GAPO in verl's whole configuration: their presets fit, what they cannot train is refused before a run."""

import re

import pytest
import verl  # noqa: F401  (loads the plugin, and with it the presets)

from verl_fgrpo.host.configuration import find_problems

WITHOUT_WEIGHT = ("~algorithm.focal_gamma", "~algorithm.focal_success_threshold")


def problems(*overrides):
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return find_problems(compose("ppo_trainer", overrides=list(overrides)))


@pytest.mark.parametrize("preset", ["fade", "gapo"])
@pytest.mark.parametrize("more", [(), ("actor_rollout_ref.rollout.n=16",)])
def test_the_presets_fit(preset, more):
    assert problems(f"+focal={preset}", *more) == []


def test_what_else_fits():
    assert problems("+focal=fade", "algorithm.focal_gamma=1.0") == []
    assert problems("+focal=fade", "algorithm.adv_estimator=fade", "~algorithm.focal_gamma") == []
    assert problems("+focal=gapo", "algorithm.adv_estimator=grpo", *WITHOUT_WEIGHT) == []
    token = ("actor_rollout_ref.actor.policy_loss.loss_mode=gapo_token", "actor_rollout_ref.actor.clip_ratio_high=0.28")
    assert problems("+focal=gapo", *token) == []


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["+focal=fade", "algorithm.norm_adv_by_std_in_grpo=True"], "norm_adv_by_std_in_grpo is True"),
        (
            ["+focal=fade", "algorithm.rollout_correction.bypass_mode=True"],
            "bypass_mode is True, but adv_estimator=fade",
        ),
        (["+focal=fade", "trainer.use_v1=False"], "trainer.use_v1 is False, but adv_estimator=fade needs True"),
        (["+focal=fade", "algorithm.fade_ema=0"], r"algorithm.fade_ema is 0, but it must be a number above 0"),
        (["+focal=fade", "+algorithm.fade_alphamax=2"], "the nearest one is algorithm.fade_alpha_max"),
        (["+focal=gapo", "algorithm.focal_gamma=1.0"], "adv_estimator=f_grpo, gamma 1"),
        (["+focal=gapo", "algorithm.norm_adv_by_std_in_grpo=True"], "norm_adv_by_std_in_grpo=True"),
        (["+focal=gapo", "algorithm.use_kl_in_reward=True"], "use_kl_in_reward=True"),
        (["+focal=gapo", "algorithm.adv_estimator=rloo", *WITHOUT_WEIGHT], "adv_estimator=rloo"),
        (["actor_rollout_ref.actor.policy_loss.loss_mode=gapo_tokens"], "loss_mode=gapo_token?"),
        (["algorithm.adv_estimator=fades"], "adv_estimator=fade?"),
    ],
)
def test_what_does_not_fit_is_told(overrides, told):
    found = problems(*overrides)
    assert any(re.search(told, problem) for problem in found), found
