"""Contradictions in the configuration, by the command lines that people type; and where the check runs."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from verl_fgrpo.host.configuration import check, find_problems
from verl_fgrpo.host.explain import compose
from verl_fgrpo.host.explain import main as explain
from verl_fgrpo.host.state import registration

LOSS = "actor_rollout_ref.actor.policy_loss"
F_LOSS = [
    f"{LOSS}.loss_mode=f_vanilla",
    f"{LOSS}._target_=verl_fgrpo.config.FocalPolicyLossConfig",
]
PRESETS = ["grpo", "dapo", "cispo", "unlikeliness", "ds_grpo", "maxrl", "w_reinforce", "passk_training"]

GOOD = [
    [],
    ["algorithm.adv_estimator=grpo"],
    ["algorithm.adv_estimator=f_grpo"],
    *([f"+focal={preset}"] for preset in (*PRESETS, "grpo_loss", "dapo_loss", "cispo_loss")),
    ["+focal=grpo_loss", "algorithm.focal_gamma=0"],
    ["+focal=grpo", "+algorithm.focal_normalize=True"],
    ["algorithm.adv_estimator=grpo", "+algorithm.focal_normalize=False"],
    ["+focal=grpo", "trainer.v1.trainer_mode=focal_sync", "algorithm.use_kl_in_reward=True"],
    ["algorithm.adv_estimator=grpo", "trainer.v1.trainer_mode=focal_sync", "+algorithm.focal_success_threshold=0.0"],
    ["algorithm.adv_estimator=f_grpo", "+algorithm.f_grpo_gamma=1.0"],
    ["algorithm.adv_estimator=f_grpo", "+algorithm.fgrpo_gamma=1.0"],
    ["algorithm.adv_estimator=f_grpo", "+algorithm.focal_gamma=1.0", "+algorithm.f_grpo_gamma=1.0"],
    ["algorithm.adv_estimator=f_grpo", "+algorithm.f_grpo_gamma=1.0", "+algorithm.f_grpo_reward_wrong=-1.0"],
    ["algorithm.adv_estimator=f_grpo", "+algorithm.focal_success_threshold_by_source={openai/gsm8k:0.5,code:0.99}"],
    ["algorithm.adv_estimator=f_grpo", "+algorithm.focal_success_threshold_by_source={my_focal_set:0.5}"],
    ["algorithm.adv_estimator=grpo", *F_LOSS, f"+{LOSS}.focal_gamma=1.0"],
    ["algorithm.adv_estimator=maxrl", "+algorithm.focal_success_threshold=0.0"],
    ["+focal=grpo", "algorithm.gamma=0.99"],
    ["+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FGRPO_TRACEBACK=1"],
    ["algorithm.adv_estimator=grpo", "+algorithm.normalize=True", "+gamma=1"],  # somebody else's
    ["algorithm.adv_estimator=grpo", "algorithm.norm_adv_by_std_in_grpo='False'"],
]

#: command line, what one problem must say
BAD = [
    (
        ["algorithm.adv_estimator=f_grpo", "+algorithm.focal_gama=1.0"],
        r"focal_gama=1\.0 is no key.*algorithm\.focal_gamma",
    ),
    (["algorithm.adv_estimator=f_grpo", "+algorithm.f_grpo_gama=1.0"], r"nearest one is algorithm\.f_grpo_gamma"),
    (["+focal=maxrl", "+algorithm.unlikelines_beta=0.5"], r"nearest one is algorithm\.unlikeliness_beta"),
    (["algorithm.adv_estimator=f_grpo", "+algorithm.Focal-Gamma=1.0"], r"nearest one is algorithm\.focal_gamma"),
    (["algorithm.adv_estimator=f_grpo", "+actor_rollout_ref.actor.focal_gamma=1.0"], r"no key.*algorithm\.focal_gamma"),
    (["algorithm.adv_estimator=f_grpo", "+focal_gamma=1.0"], r"focal_gamma=1\.0 is no key.*algorithm\.focal_gamma"),
    (["algorithm.adv_estimator=f_grpo", f"+{LOSS}.f_grpo_gamma=1"], rf"no key.*{LOSS}\.focal_gamma"),
    (
        ["algorithm.adv_estimator=grpo", "+algorithm.focal_gamma=1.0"],
        r"adv_estimator is grpo, which applies no focal weight",
    ),
    (["+focal=grpo", "algorithm.adv_estimator=grpo"], r"adv_estimator is grpo.*set algorithm\.adv_estimator=f_grpo"),
    (["algorithm.adv_estimator=rloo", "+algorithm.f_grpo_gamma=1"], r"set algorithm\.adv_estimator=f_rloo"),
    (["algorithm.adv_estimator=maxrl", "+algorithm.focal_gamma=1"], r"set algorithm\.adv_estimator=f_maxrl"),
    (["+algorithm.focal_gamma=1"], r"adv_estimator is gae"),
    (["+focal=grpo", f"{LOSS}.loss_mode=f_vanilla"], r"weight would be applied twice"),
    (["algorithm.adv_estimator=rloo", *F_LOSS], r"reads success off GRPO advantages"),
    (
        ["algorithm.adv_estimator=grpo", f"{LOSS}.loss_mode=f_vanilla", "+algorithm.focal_gamma=1.0"],
        r"has no focal_gamma",
    ),
    (["algorithm.adv_estimator=grpo", f"+{LOSS}.focal_gamma=0.5"], r"loss_mode is vanilla, which does not read it"),
    (
        ["+focal=grpo_loss", f"{LOSS}.focal_gamma=1.0"],
        r"0\.5 and .*policy_loss\.focal_gamma is 1, but one run has one gamma",
    ),
    (["+focal=grpo_loss", f"{LOSS}.norm_adv_by_std_in_grpo=False"], r"norm_adv_by_std_in_grpo is False and algorithm"),
    (["+focal=grpo_loss", "algorithm.use_kl_in_reward=True"], r"use_kl_in_reward is True with loss_mode=f_vanilla"),
    (
        ["+focal=grpo", "+algorithm.f_grpo_gamma=1.0"],
        r"focal_gamma=0\.5 and algorithm\.f_grpo_gamma=1\.0 name the same",
    ),
    (["+focal=grpo_loss", "+algorithm.focal_normalize=True"], r"focal_normalize is True with loss_mode=f_vanilla"),
    (
        ["algorithm.adv_estimator=maxrl", "+algorithm.focal_normalize=True"],
        r"focal_normalize=True is set, but adv_estimator is maxrl",
    ),
    (["+focal=grpo", "+algorithm.focal_normalise=True"], r"nearest one is algorithm\.focal_normalize"),
    (["+focal=grpo", "algorithm.focal_gamma=-1"], r"algorithm\.focal_gamma is -1.*at least 0"),
    (["+focal=grpo", "algorithm.focal_gamma=true"], r"algorithm\.focal_gamma is True"),
    (["+focal=grpo_loss", "algorithm.focal_gamma=nan"], r"focal_gamma is nan"),
    (["+focal=grpo", "algorithm.focal_success_threshold=high"], r"focal_success_threshold is 'high'.*0\.5 for 0/1"),
    (["+focal=grpo", "+algorithm.focal_success_threshold_by_source=0.5"], r"by_source is 0\.5.*must map data sources"),
    (
        ["algorithm.adv_estimator=f_grpo", "+algorithm.f_grpo_gamma=1", "+algorithm.f_grpo_reward_correct=0"],
        r"correct is 0 and",
    ),
    (
        ["+focal=grpo", "+algorithm.f_grpo_reward_wrong=-1.0"],
        r"remove one of them.*~algorithm\.focal_success_threshold",
    ),
    (["algorithm.adv_estimator=f_grpo", "+algorithm.f_grpo_reward_correct=1"], r"needs a gamma beside it"),
    (
        ["algorithm.adv_estimator=fgrpo"],
        r"'fgrpo', which verl does not know; did you mean algorithm\.adv_estimator=f_grpo",
    ),
    (["algorithm.adv_estimator=f_grpoo"], r"did you mean algorithm\.adv_estimator=f_grpo"),
    (["algorithm.adv_estimator=grpo", f"{LOSS}.loss_mode=f_vanila"], r"did you mean .*loss_mode=f_vanilla"),
    (
        ["+focal=grpo", "trainer.use_v1=False", "trainer.v1.trainer_mode=focal_sync"],
        r"use_v1 is False, where it is ignored",
    ),
    (
        ["+focal=passk_training", "algorithm.passk_k=9", "actor_rollout_ref.rollout.n=8"],
        r"passk_k is 9, but a group has 8 rollouts",
    ),
    (["+focal=unlikeliness", "algorithm.unlikeliness_beta=2"], r"unlikeliness_beta is 2.*from 0 to 1"),
    (["+focal=grpo", "+algorithm.reward_wrong=-1"], r"nearest one is algorithm\.f_grpo_reward_wrong, e\.g\. \+algo"),
    (["algorithm.adv_estimator=f_grpo", "+algorithm.f_gamma=1"], r"f_gamma=1 is no key.*algorithm\.focal_gamma"),
    (["algorithm.adv_estimator=f_grpo", "+algorithm.normalize=True"], r"nearest one is algorithm\.focal_normalize"),
    (["algorithm.adv_estimator=f_grpo", "+gamma=1"], r"^verl_fgrpo: gamma=1 is no key.*algorithm\.focal_gamma"),
    (["+focal=grpo_loss", f"+{LOSS}.gamma=1"], rf"{LOSS}\.gamma=1 is no key.*{LOSS}\.focal_gamma"),
    (["+focal=grpo", "+algorithm.f_grpo.gamma=1"], r"nearest one is algorithm\.f_grpo_gamma\n"),
    (["algorithm.adv_estimator=f_dapo"], r"'f_dapo', which verl does not know"),
    (["+focal=grpo", "algorithm.norm_adv_by_std_in_grpo='False'"], r"is the text 'False', which verl takes for true"),
    (
        ["algorithm.adv_estimator=f_grpo", "+algorithm.focal_gamma=???"],
        r"algorithm\.focal_gamma is \?\?\?, which stands",
    ),
    (
        ["algorithm.adv_estimator=grpo", "+algorithm.unlikeliness_beta=0.5"],
        r"set algorithm\.adv_estimator=unlikeliness",
    ),
    (
        ["algorithm.adv_estimator=f_grpo", "+algorithm.threshold=0.9"],
        r"nearest one is algorithm\.focal_success_threshold",
    ),
    (["algorithm.adv_estimator=f_grpo", "+algorithm.f_gama=1"], r"f_gama=1 is no key"),
    (["algorithm.adv_estimator=f_grpo", "algorithm.gamma=0.7"], r"discount.*set \+algorithm\.focal_gamma=0\.7"),
    (["+focal=passk_training", "algorithm.adv_estimator=f_grpo"], r"passk_k=4 is set, but adv_estimator is f_grpo"),
    (
        ["+focal=grpo", "distillation.enabled=True", "distillation.distillation_loss.use_task_rewards=False"],
        r"use_task_rewards is False.*no loss reads the advantages",
    ),
    (["+focal=grpo", "+algorithm.focal_success_threshold_by_source={a:???}"], r"Missing mandatory value.*by_source\.a"),
]


@pytest.mark.parametrize("words", GOOD, ids=" ".join)
def test_a_good_command_line_has_no_problem(words):
    assert find_problems(compose(words)) == []


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_contradiction_stops_the_run_with_value_rule_and_remedy(words, message):
    with pytest.raises(ValueError, match=message):
        check(compose(words))


def test_a_verl_with_an_f_grpo_of_its_own(monkeypatch):
    # D11: a gamma that verl's own f_grpo would not read
    monkeypatch.setitem(registration.clashes, "f_grpo", "verl.trainer.ppo.core_algos.compute_f_grpo")
    with pytest.raises(ValueError, match=r"algorithm\.focal_gamma is set, but adv_estimator=f_grpo is verl\.trainer"):
        check(compose(["+focal=grpo"]))
    check(compose(["algorithm.adv_estimator=f_grpo"]))


def test_a_configuration_of_something_else_is_left_alone():
    for config in (None, {}, OmegaConf.create({"focal_gama": 1}), OmegaConf.create({"algorithm": {"focal_gama": 1}})):
        check(config)


def test_verls_own_validation_runs_it_first():
    import verl.utils
    from verl.trainer import main_ppo
    from verl.utils.config import validate_config

    assert main_ppo.validate_config is validate_config is verl.utils.validate_config
    bad = compose(["algorithm.adv_estimator=grpo", "+algorithm.focal_gamma=1.0"])
    with pytest.raises(ValueError, match="applies no focal weight"):
        validate_config(config=bad, use_reference_policy=False, use_critic=False)
    with pytest.raises(ValueError, match="applies no focal weight"):  # one-step-off, fully async, recipes
        main_ppo.run_ppo(bad, task_runner_class=None)


def test_main_ppo_ends_with_the_problem_and_no_traceback():
    words = ["+focal=grpo", "algorithm.adv_estimator=grpo"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 1
    assert "adv_estimator is grpo, which applies no focal weight" in ended.stderr and "Traceback" not in ended.stderr
    assert "ray init kwargs" not in ended.stdout


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["+focal=dapo", "algorithm.focal_gamma=1.0", "actor_rollout_ref.rollout.n=8"],
            [
                "(1 - success rate of the prompt's group) ** 1.0 times the advantages of grpo",
                "gamma       1.0 from algorithm.focal_gamma (algorithm.focal_gamma=1.0)",
                "acc where it returns one, else summed reward > 0.5",
                "8 rollouts a prompt",
                "no KL term",
                "v1 sync: an estimator of ours knows the raw reward, acc, log-probabilities, sessions and padding",
                "+focal=dapo sets actor_rollout_ref.actor.clip_ratio_high=0.28",
                "no problem(s)",
            ],
        ),
        (["algorithm.adv_estimator=grpo"], ["none: adv_estimator=grpo and loss_mode=vanilla apply no focal weight"]),
        (["algorithm.adv_estimator=f_rloo"], ["gamma       0.5 from the default"]),
        (["+focal=cispo_loss"], ["times those of grpo in f_cispo", "policy_loss.focal_gamma (+focal=cispo_loss)"]),
        (
            ["algorithm.adv_estimator=f_grpo", "+algorithm.f_grpo_gamma=1.0", "+algorithm.f_grpo_reward_wrong=-1.0"],
            ["mu = (mean reward - -1) / (1 - -1), clamped to 0..1, whatever acc says"],
        ),
        (["+focal=grpo", "trainer.use_v1=False"], ["legacy (trainer.use_v1=False)", "one log line a step"]),
        (
            ["+focal=gapo"],
            ["gamma       0.0 from algorithm.focal_gamma (+focal=gapo); 0 is the plain method", "loss        gapo"],
        ),
        (["algorithm.adv_estimator=grpo", *F_LOSS], [f"gamma       0.5 from {LOSS}.focal_gamma"]),
        (["+focal=grpo", "~trainer.v1"], ["v1 None"]),
    ],
)
def test_explain_tells_what_will_be_trained(words, lines, capsys):
    assert explain(words) == 0
    told = capsys.readouterr().out
    assert [line for line in lines if line not in told] == [], told


def test_explain_ends_with_one_where_settings_contradict(capsys):
    assert explain(["+focal=grpo", "algorithm.adv_estimator=grpo"]) == 1
    assert "PROBLEM     algorithm.focal_gamma=0.5" in capsys.readouterr().out
    with pytest.raises(ValueError, match="verl would not compose this command line: .*focal_gamma"):
        explain(["algorithm.focal_gamma=1.0"])
    for words in (["+focal=grpoo"], ["+focal=null"], ["algorithm=null"]):
        with pytest.raises(ValueError, match="verl would not compose"):
            explain(words)
    for path in ("trainer", LOSS):
        with pytest.raises(ValueError, match=f"{path} is no section of this configuration.*leave it as it is"):
            explain(["+focal=grpo", f"{path}=null"])
    for value in ("${algorithm.nokey}", "${oc.env:NOT_THERE}", "${algorithm.focal_gamma}"):
        with pytest.raises(ValueError, match="the configuration does not resolve: .*correct that key"):
            explain(["+focal=grpo", f"algorithm.focal_gamma={value}"])
