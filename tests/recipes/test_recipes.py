"""The nine math recipes: every resolved value against the paper's tables, refusals, and a real run on the CPU."""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from tiny_math import write_data, write_model

from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.prompts import build_prompt
from verl_fgrpo.runs.configuration import compose_config
from verl_fgrpo.runs.cost import estimate
from verl_fgrpo.runs.preflight import EXPERIMENT, claim_run

ROOT = Path(__file__).resolve().parents[2]

METHODS = {"fgrpo": "grpo", "fdapo": "dapo", "fcispo": "cispo"}
MODELS = ("qwen7b", "qwen3_4b", "llama3b")
RECIPES = [(method, model) for method in METHODS for model in MODELS]

#: arXiv 2602.06717. Every value of the paper that a run depends on, once: key of verl -> value.
PAPER = {
    # Table 5, L.1-L.3
    "data.train_batch_size": 256,
    "data.max_prompt_length": 1024,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 64,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.fsdp_config.strategy": "fsdp2",
    "actor_rollout_ref.actor.optim.optimizer": "AdamW",
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 15,
    "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
    "actor_rollout_ref.actor.optim.weight_decay": 0.01,
    "actor_rollout_ref.actor.optim.clip_grad": 1.0,
    "actor_rollout_ref.actor.grad_clip": 1.0,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.do_sample": True,
    "trainer.total_epochs": 10,
    "trainer.total_training_steps": None,
    "trainer.keep_weights_every": 39_202 // 256,  # L.1 and L.3: 39,202 problems, a checkpoint per epoch
    "trainer.test_freq": 39_202 // 256,
    "trainer.max_actor_ckpt_to_keep": None,
    # L.4: as the evaluation
    "actor_rollout_ref.rollout.val_kwargs.temperature": 1.0,
    "actor_rollout_ref.rollout.val_kwargs.top_p": 1.0,
    "actor_rollout_ref.rollout.val_kwargs.top_k": -1,
    "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
    # App. B: token mean, no KL, no entropy bonus; eq. 3: divided by the standard deviation
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "algorithm.use_kl_in_reward": False,
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.adv_estimator": "f_grpo",
    "algorithm.focal_success_threshold": 0.5,  # rewards 1.0 and 0.0
    # neither dynamic sampling nor overlong shaping
    "algorithm.filter_groups.enable": False,
    "reward.reward_manager.name": "naive",
    "reward.custom_reward_function.path": "pkg://verl_fgrpo.rewards",
    "reward.custom_reward_function.name": "compute_score",
    "reward.reward_model.enable": False,
    # defaults of verl that would change the method if they changed
    "actor_rollout_ref.actor.shuffle": False,
    "actor_rollout_ref.actor.policy_loss._target_": "verl.workers.config.PolicyLossConfig",
    "actor_rollout_ref.actor.clip_ratio_c": 3.0,
    "actor_rollout_ref.actor.loss_scale_factor": None,
    "actor_rollout_ref.model.lora_rank": 0,
    "algorithm.rollout_correction.bypass_mode": False,
    "algorithm.rollout_correction.rollout_is": None,
    "algorithm.rollout_correction.rollout_rs": None,
    "actor_rollout_ref.actor.fsdp_config.model_dtype": "fp32",
    "trainer.v1.trainer_mode": "sync",
    "data.shuffle": True,
}
#: App. B: loss, eps_low, eps_high
PAPER_METHOD = {"grpo": ("vanilla", 0.2, 0.2), "dapo": ("vanilla", 0.2, 0.28), "cispo": ("cispo", 1.0, 5.0)}
#: Table 5: hub id, response limit; L.1 and Table 9: arguments of the chat template
PAPER_MODEL = {
    "qwen7b": ("Qwen/Qwen2.5-7B", 8192, {}),
    "qwen3_4b": ("Qwen/Qwen3-4B-Base", 4096, {"enable_thinking": True}),
    "llama3b": ("meta-llama/Llama-3.2-3B-Instruct", 8192, {"date_string": "26 Jul 2024"}),
}
#: Table 5: selected gamma
PAPER_GAMMA = {
    ("grpo", "qwen7b"): 0.5, ("dapo", "qwen7b"): 0.5, ("cispo", "qwen7b"): 1.0,
    ("grpo", "qwen3_4b"): 0.5, ("dapo", "qwen3_4b"): 0.5, ("cispo", "qwen3_4b"): 0.5,
    ("grpo", "llama3b"): 0.5, ("dapo", "llama3b"): 1.0, ("cispo", "llama3b"): 0.5,
}  # fmt: skip


def recipe(name, *arguments, **variables):
    """Run a recipe with this interpreter and only these variables."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "ALLOW_UNTESTED_VERL")  # the last: scripts/check_verl_releases.py
    environment = {key: value for key, value in os.environ.items() if key in kept}
    environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", str(ROOT / "recipes" / f"run_{name}.sh"), *arguments],
        capture_output=True,
        text=True,
        env=environment | variables,
    )


def resolved(name, *arguments, **variables):
    """The configuration that the recipe hands to verl, composed in this process."""
    printed = recipe(name, *arguments, PRINT_ARGUMENTS="1", **variables)
    assert printed.returncode == 0, printed.stderr
    return compose_config(printed.stdout.splitlines())


def values(config, keys):
    found = {}
    for key in keys:
        value = OmegaConf.select(config, key, default="is not there")
        found[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return found


@pytest.mark.parametrize(("method", "model"), RECIPES)
@pytest.mark.parametrize("arm", ["focal", "baseline"])
def test_every_value_is_the_papers(method, model, arm):
    config = resolved(f"{method}_{model}", **({} if arm == "focal" else {"FOCAL_GAMMA": "0"}))
    assert values(config, PAPER) == PAPER
    base = METHODS[method]
    loss, low, high = PAPER_METHOD[base]
    actor = config.actor_rollout_ref.actor
    assert (actor.policy_loss.loss_mode, actor.clip_ratio_low, actor.clip_ratio_high) == (loss, low, high)
    assert config.algorithm.focal_gamma == (PAPER_GAMMA[base, model] if arm == "focal" else 0)
    path, limit, template = PAPER_MODEL[model]
    assert (config.actor_rollout_ref.model.path, config.data.max_response_length) == (path, limit)
    assert dict(config.data.apply_chat_template_kwargs) == template


def test_the_two_arms_differ_in_gamma_and_names_alone():
    def flat(config):
        return {key: value for key, value in _flatten(OmegaConf.to_container(config))}

    focal, base = flat(resolved("fgrpo_qwen7b")), flat(resolved("fgrpo_qwen7b", FOCAL_GAMMA="0"))
    differing = {key for key in focal if focal[key] != base[key]}
    assert "algorithm.focal_gamma" in differing
    assert all("gamma0.5" in str(focal[key]) for key in differing - {"algorithm.focal_gamma"})


def _flatten(node, prefix=""):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flatten(value, f"{prefix}{key}.")
    else:
        yield prefix[:-1], node


def test_the_template_arguments_are_those_of_the_evaluation_and_of_the_data():
    problem = Problem("math500", "1", "?", "math", ("0",))
    for preset, model in {"qwen2.5": "qwen7b", "qwen3": "qwen3_4b", "llama3": "llama3b"}.items():
        assert build_prompt(preset, problem).template == PAPER_MODEL[model][2]


# the paper's controls: learning rate 1e-6 * m(0.5) = 6.8e-7 (App. N), entropy bonus 0.001, KL loss 0.001
@pytest.mark.parametrize(
    ("control", "changed"),
    [
        ("low_lr", {"actor_rollout_ref.actor.optim.lr": 6.8e-7}),
        ("entropy", {"actor_rollout_ref.actor.entropy_coeff": 0.001}),
        ("kl", {"actor_rollout_ref.actor.use_kl_loss": True}),
    ],
)
def test_controls_change_one_value_of_the_base_method(control, changed):
    config = resolved("fgrpo_qwen7b", CONTROL=control)
    assert values(config, PAPER) == PAPER | changed
    assert config.algorithm.focal_gamma == 0
    assert config.actor_rollout_ref.actor.kl_loss_coef == 0.001


@pytest.mark.parametrize("size", [2, 4, 16, 32])  # the paper's sweep of group sizes
def test_group_size_changes_n_alone(size):
    config = resolved("fgrpo_qwen7b", GROUP_SIZE=str(size))
    assert values(config, PAPER) == PAPER | {"actor_rollout_ref.rollout.n": size}


def test_options_of_full_dapo():
    config = resolved("fdapo_qwen7b", FILTER_GROUPS="1", OVERLONG="1")
    assert config.algorithm.filter_groups.enable and config.algorithm.filter_groups.metric == "acc"
    assert config.reward.reward_manager.name == "dapo"
    kwargs = config.reward.reward_kwargs
    assert (kwargs.max_resp_len, kwargs.overlong_buffer_cfg.len, kwargs.overlong_buffer_cfg.enable) == (
        8192,
        2048,
        True,
    )
    # correct: 1 - penalty > 0 below the limit; wrong: at most 0
    assert config.algorithm.focal_success_threshold == 0.0


def test_hardware_variables():
    config = resolved("fgrpo_qwen7b", ROLLOUT="sglang", NNODES="2", GPUS_PER_NODE="4", ROLLOUT_TP="2", OFFLOAD="True")
    rollout = config.actor_rollout_ref.rollout
    assert (rollout.name, rollout.tensor_model_parallel_size) == ("sglang", 2)
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (2, 4)
    assert config.actor_rollout_ref.actor.fsdp_config.optimizer_offload is True
    assert resolved("fgrpo_qwen7b", OFFLOAD="yes").actor_rollout_ref.actor.fsdp_config.param_offload is True
    config = resolved("fgrpo_qwen7b", SEED="3")
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.seed, actor.data_loader_seed, actor.fsdp_config.seed, rollout.seed) == (3, 3, 3, 3000)
    assert rollout.max_model_len == 1024 + 8192
    # the bucket holds the largest tensor, embeddings of Qwen2.5-7B in fp32
    assert rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20 > 152_064 * 3_584 * 4 > 2048 * 2**20
    assert actor.fsdp_config.entropy_from_logits_with_chunking is True and config.reward.num_workers == 16
    assert resolved("fgrpo_qwen7b").actor_rollout_ref.actor.ppo_max_token_len_per_gpu == 2 * (1024 + 8192)


@pytest.mark.parametrize(
    "arguments",
    [["model_engine=megatron"], ["trainer.v1.trainer_mode=colocate_async"], ["trainer.v1.trainer_mode=separate_async"]],
)
def test_presets_compose_with_other_engines_and_trainer_modes(arguments):
    config = compose_config(["+focal=cispo", *arguments])
    assert config.algorithm.focal_gamma == 0.5 and config.actor_rollout_ref.actor.clip_ratio_high == 5.0


@pytest.mark.parametrize(
    "odd", ["sp ace", "quo'te", 'dq"', "$(touch x)", "lr=1e-6", "a,b", "{x}", "[x]", "ü中", "a#b;&c", "-dash"]
)
def test_paths_that_hydra_would_read_otherwise(odd):
    data = odd.strip("[]")
    config = resolved("fgrpo_qwen7b", OUT=f"/o/{odd}", TRAIN_FILE=f"/t/{data}", VAL_FILE=data, MODEL_PATH=f"/m/{odd}")
    assert (config.trainer.default_local_dir, config.data.train_files) == (f"/o/{odd}", f"/t/{data}")
    assert (config.data.val_files, config.actor_rollout_ref.model.path) == (str(Path.cwd() / data), f"/m/{odd}")
    assert config.trainer.validation_data_dir == f"/o/{odd}/validation"


@pytest.mark.parametrize("odd", ["a*b", "a?b", "a[bc]", "a::b"])
def test_data_paths_that_verl_would_read_as_patterns(odd):
    refused = recipe("fgrpo_qwen7b", TRAIN_FILE=f"/t/{odd}", PRINT_ARGUMENTS="1")
    assert refused.returncode == 1
    assert f"data.train_files is '/t/{odd}', but verl reads" in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize("odd", ["back\\slash", "${oc.env:HOME}", "new\nline"])
def test_paths_that_hydra_cannot_read(odd):
    refused = recipe("fgrpo_qwen7b", OUT=f"/o/{odd}", PRINT_ARGUMENTS="1")
    assert refused.returncode != 0 and "but Hydra reads no path with" in refused.stderr


def test_arguments_of_the_command_line_win():
    assert resolved("fgrpo_qwen7b", "trainer.total_epochs=3").trainer.total_epochs == 3


def test_the_dry_run_prints_yaml_and_the_cost_and_needs_nothing():
    printed = recipe("fcispo_qwen3_4b", DRY_RUN="1", FOCAL_GAMMA="2")
    assert printed.returncode == 0, printed.stderr
    config = OmegaConf.create(printed.stdout)
    assert config.algorithm.focal_gamma == 2 and config.data.max_response_length == 4096
    for expected in (
        "1,530 steps of 2,048 rollouts",
        "GPU hours",
        "2 x 64 GB (parameters, optimiser, weights) and 10 x 16 GB (weights, fp32)",
        "not from a measurement",
    ):
        assert expected in printed.stderr
    # the same as verl's own composition in this process, where the plugin itself adds the presets
    from hydra import compose, initialize_config_module
    from verl.trainer import main_ppo  # noqa: F401

    given = recipe("fcispo_qwen3_4b", PRINT_ARGUMENTS="1", FOCAL_GAMMA="2").stdout.splitlines()
    with initialize_config_module("verl.trainer.config", version_base=None):
        hosts = compose("ppo_trainer", overrides=given)
    for composed in (config, hosts):
        composed.ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH = ""  # named after the time
    assert OmegaConf.to_container(config) == OmegaConf.to_container(hosts, resolve=True)


def test_the_estimate_by_hand():
    config = resolved("fgrpo_qwen7b", VAL_BEFORE_TRAIN="False")
    plan = estimate(config, billions=7.62)
    tokens = 1530 * 256 * 8 * 2048  # a quarter of 8192
    assert plan.steps == 1530
    assert plan.generation_hours == pytest.approx(tokens / (20_000 / 7.62) / 3600)
    assert plan.training_hours == pytest.approx(10 * 7.62e9 * tokens * (2248 / 2048) / (0.35 * 989e12) / 3600)
    assert plan.evaluation_hours == pytest.approx(1546 * 1024 * 2048 / (20_000 / 7.62) / 3600)
    # 4 + 8 + 4 bytes a parameter (fp32, Adam, weights): newest state and the one being written; weights of 10 epochs
    assert plan.disk_gb == pytest.approx(2 * 7.62 * 16 + 10 * 7.62 * 4)
    every_state = resolved("fgrpo_qwen7b", KEEP_CHECKPOINTS="null", SAVE_FREQ="153")
    assert estimate(every_state, billions=7.62).disk_gb == pytest.approx(10 * 7.62 * 16)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FOCAL_GAMMA": "-1"}, "FOCAL_GAMMA is '-1'"),
        ({"FOCAL_GAMMA": "."}, "FOCAL_GAMMA is '.'"),
        ({"FOCAL_GAMMA": "01"}, "FOCAL_GAMMA is '01'"),  # to Hydra a text
        ({"GAMMA": "1"}, "GAMMA is no variable of this recipe; did you mean FOCAL_GAMMA?"),
        ({"GROUP_SIZE": "1"}, "GROUP_SIZE is '1', but it must be a whole number of at least 2"),
        ({"GROUP_SIZE": "eight"}, "GROUP_SIZE is 'eight'"),
        ({"CONTROL": "lowlr"}, "CONTROL is 'lowlr', but it must be none, low_lr, entropy or kl"),
        ({"CONTROL": "kl", "FOCAL_GAMMA": "0.5"}, "a control is a run of the base method"),
        ({"ROLLOUT": "hf"}, "ROLLOUT is 'hf', but it must be vllm or sglang"),
        ({"MINI_BATCH_SIZE": "100"}, "must be a multiple of MINI_BATCH_SIZE=100"),
        ({"TRAIN_BATCH_SIZE": "0"}, "TRAIN_BATCH_SIZE is '0'"),
        ({"SAVE_FREQ": "0"}, "SAVE_FREQ is '0'"),
        ({"LEARNING_RATE": "small"}, "LEARNING_RATE is 'small'"),
        ({"ROLLOUT_MEMORY": "60"}, "ROLLOUT_MEMORY is '60'"),
        ({"OFFLOAD": "perhaps"}, "OFFLOAD is 'perhaps'"),
        ({"LEARNING_RATE": "0"}, "LEARNING_RATE is '0'"),
        ({"WEIGHTS_FREQ": "100"}, "WEIGHTS_FREQ=100 must be a multiple of SAVE_FREQ=17"),
        ({"STOP_AT_TURN_END": "1", "ROLLOUT": "sglang"}, "made for Qwen models and ROLLOUT=vllm"),
        ({"NNODES": "2"}, "RAY_ADDRESS names no cluster"),
        ({"FOCAL_GAMA": "1"}, "FOCAL_GAMA is no variable of this recipe; did you mean FOCAL_GAMMA?"),
        ({"SMOKE": "1"}, "SMOKE is '1', but this recipe has no such switch and would run as a whole"),
        ({"GROUPSIZE": "16"}, "did you mean GROUP_SIZE?"),
        ({"learning_rate": "1e-5"}, "did you mean LEARNING_RATE?"),
        ({"DEVICE": "cpu", "FILTER_GROUPS": "1"}, "a sampler without group filtering"),
        ({"ROLLOUT_TP": "3"}, "must be a multiple of ROLLOUT_TP=3"),
    ],
)
def test_wrong_variables_are_refused_at_once(variables, message):
    refused = recipe("fgrpo_qwen7b", **variables)
    assert refused.returncode != 0
    assert "error: " in refused.stderr and message in refused.stderr.splitlines()[-1]


def test_all_wrong_variables_are_told_at_once():
    refused = recipe("fgrpo_qwen7b", GROUP_SIZE="x", LEARNING_RATE="0", LOGGERS="[console]")
    assert sum(line.startswith("error: ") for line in refused.stderr.splitlines()) == 3
    refused = recipe("fgrpo_qwen7b", ROLLOUT="x", LEARNING_RATE="0", ROLLOUT_TP="3", MINI_BATCH_SIZE="60")
    assert sum(line.startswith("error: ") for line in refused.stderr.splitlines()) == 4
    allowed = recipe("fgrpo_qwen7b", PRINT_ARGUMENTS="yes", LOGGERS="x", IGNORE_VARIABLES="LOGGERS")
    assert allowed.returncode == 0, allowed.stderr


def test_checkpoints_weights_and_states_are_kept_as_asked():
    def kept(**variables):
        trainer = resolved("fgrpo_qwen7b", **variables).trainer
        return trainer.save_freq, trainer.get("keep_weights_every"), trainer.max_actor_ckpt_to_keep

    assert kept() == (17, 153, None)  # nine states an epoch
    assert kept(SAVE_FREQ="50") == (50, 50, None)
    assert kept(SAVE_FREQ="50", WEIGHTS_FREQ="150") == (50, 150, None)
    assert kept(TRAIN_BATCH_SIZE="128") == (34, 306, None)
    assert kept(KEEP_CHECKPOINTS="2") == (17, None, 2) and kept(KEEP_CHECKPOINTS="null") == (17, None, None)


def test_workers_of_a_cluster_log_into_the_run_folder():
    variables = resolved("fgrpo_qwen7b", OUT="/shared/run").ray_kwargs.ray_init.runtime_env.env_vars
    assert variables.VERL_FILE_LOGGER_PATH.startswith("/shared/run/logs/")
    assert variables.TENSORBOARD_DIR == "/shared/run/tensorboard"


def test_what_is_missing_is_named_with_a_remedy_before_verl_is_started(tmp_path):
    """No GPU, no data, no model: one sentence each."""
    settings = {"OUT": str(tmp_path / "run"), "DATA_DIR": str(tmp_path), "MODEL_PATH": str(tmp_path / "m")}
    refused = recipe("fgrpo_qwen7b", "algorithm.adv_estimator=f_gropo", PREFLIGHT_ONLY="1", **settings)
    assert refused.returncode != 0 and not (tmp_path / "run").exists()
    errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    for message in (
        f"TRAIN_FILE {tmp_path}/train.parquet is missing",
        f"MODEL_PATH {tmp_path}/m has no config.json",
        "adv_estimator is 'f_gropo'",
        "adv_estimator=f_grpo?",
    ):
        assert any(message in line for line in errors), refused.stderr
    unknown = recipe("fgrpo_qwen7b", "data.no_such_key=1")
    assert "verl would not compose this command line" in unknown.stderr and "no_such_key" in unknown.stderr


def test_a_run_folder_belongs_to_one_experiment(tmp_path):
    variables = {"OUT": str(tmp_path / "run")}
    claim_run(resolved("fgrpo_qwen7b", **variables))
    claim_run(resolved("fgrpo_qwen7b", **variables, EPOCHS="20", NNODES="2", ROLLOUT="sglang"))  # not the experiment
    for changed, message in [
        ({"FOCAL_GAMMA": "1.0"}, r"algorithm\.focal_gamma: found '0\.5', asked '1\.0'"),
        ({"GROUP_SIZE": "16"}, r"rollout\.n: found '8', asked '16'"),
        ({"CONTROL": "kl", "FOCAL_GAMMA": "0"}, r"actor\.use_kl_loss: found 'false', asked 'true'"),
        ({"LEARNING_RATE": "2e-6"}, r"optim\.lr"),
    ]:
        with pytest.raises(ValueError, match=message):
            claim_run(resolved("fgrpo_qwen7b", **variables, **changed))
    with pytest.raises(ValueError, match=r"clip_ratio_high: found '0\.2', asked '0\.28'"):
        claim_run(resolved("fdapo_qwen7b", **variables))
    with pytest.raises(ValueError, match=r"f_grpo_gamma: not there, asked '2'"):
        claim_run(resolved("fgrpo_qwen7b", "+algorithm.f_grpo_gamma=2", **variables))
    with pytest.raises(ValueError, match=r"threshold_by_source: not there, asked '\{\"openai/gsm8k\": 0\.9\}'"):
        claim_run(
            resolved("fgrpo_qwen7b", "+algorithm.focal_success_threshold_by_source={openai/gsm8k:0.9}", **variables)
        )
    # an argument for verl counts as a variable does
    with pytest.raises(ValueError, match=r"focal_gamma: found '0\.5', asked '0\.7'"):
        claim_run(resolved("fgrpo_qwen7b", "algorithm.focal_gamma=0.7", **variables))
    assert set(json.loads((tmp_path / "run" / "settings.json").read_text())) == set(EXPERIMENT)
    noted = OmegaConf.load(tmp_path / "run" / "config.yaml")  # of the last start that was not refused
    assert (noted.algorithm.focal_gamma, noted.trainer.total_epochs) == (0.5, 20)
    (tmp_path / "stranger" / "global_step_5").mkdir(parents=True)
    with pytest.raises(ValueError, match="checkpoints but no settings.json"):
        claim_run(resolved("fgrpo_qwen7b", OUT=str(tmp_path / "stranger")))


# ---- real runs: the recipe itself, on the CPU, with nothing changed but variables ----

GROUP = 8


def train(tmp_path, name, steps, **variables):
    """Run a recipe for real; returns verl's metrics by step of this start."""
    model, data, out = tmp_path / "model", tmp_path / "data", tmp_path / "run"
    if not model.exists():
        write_data(data, write_model(model))
    before = set((out / "logs").glob("*.jsonl"))
    settings = {
        "DEVICE": "cpu", "MODEL_PATH": str(model), "DATA_DIR": str(data), "OUT": str(out), "TOTAL_STEPS": str(steps),
        "TRAIN_BATCH_SIZE": "8", "MINI_BATCH_SIZE": "4", "GROUP_SIZE": str(GROUP), "MAX_PROMPT_LENGTH": "320",
        "MAX_RESPONSE_LENGTH": "48", "SAVE_FREQ": "1", "WEIGHTS_FREQ": "2", "LEARNING_RATE": "1e-4",
        "VAL_BEFORE_TRAIN": "False", "VAL_N": "4", "DUMP_ROLLOUTS": "1", "LOGGER": "[console,file]",
    }  # fmt: skip
    done = recipe(name, **settings, **variables)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (metrics,) = set((out / "logs").glob("*.jsonl")) - before
    return {row["step"]: row["data"] for row in map(json.loads, metrics.read_text().splitlines())}


def check_step(run, step, metrics, gamma):
    """verl's metrics against the dumped rollouts: the real reward, and the largest focal advantage by hand."""
    from math_verify import parse, verify

    scores = defaultdict(list)
    for line in (run / "rollouts" / f"{step}.jsonl").read_text().splitlines():
        row = json.loads(line)
        gold = row["gts"] if isinstance(row["gts"], str) else row["gts"][0]
        assert row["score"] == float(verify(parse(f"\\boxed{{{gold}}}"), parse(row["output"])))
        scores[row["uid"].rsplit("_", 2)[0]].append(row["score"])
    assert {len(group) for group in scores.values()} == {GROUP} and len(scores) == 8
    rates = np.array([np.mean(group) for group in scores.values()])
    assert metrics["critic/score/mean"] == pytest.approx(rates.mean(), rel=1e-5)
    highest = [
        (1 - mu) ** gamma * (1 - mu) / (np.sqrt(mu * (1 - mu) * GROUP / (GROUP - 1)) + 1e-6)
        for mu in rates
        if 0 < mu < 1
    ]
    assert metrics["critic/advantages/max"] == pytest.approx(max(highest, default=0.0), rel=1e-4)
    return len(highest)


@pytest.mark.verl_start
def test_f_cispo_trains_a_step_for_real_beside_another_ray_cluster(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as ray_folder:  # short: socket names are limited
        # where `ray start` notes its cluster and ray.init() finds it; to join this one would fail, nobody answers
        (Path(ray_folder) / "ray").mkdir()
        (Path(ray_folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        metrics = train(tmp_path, "fcispo_qwen7b", 1, TEST_FREQ="-1", RAY_TMPDIR=ray_folder)
    assert set(metrics) == {1}
    assert check_step(tmp_path / "run", 1, metrics[1], gamma=1.0)
    assert (tmp_path / "run" / "latest_checkpointed_iteration.txt").read_text() == "1"


@pytest.mark.full
@pytest.mark.parametrize(("name", "gamma"), [("fgrpo_qwen7b", 0.5), ("fdapo_qwen7b", 0.5), ("fcispo_qwen7b", 1.0)])
def test_three_steps_with_checkpoint_resume_and_validation(tmp_path, name, gamma):
    run = tmp_path / "run"
    first = train(tmp_path, name, 2, TEST_FREQ="2")
    assert set(first) == {1, 2}
    assert sum(check_step(run, step, metrics, gamma) for step, metrics in first.items())
    assert (run / "latest_checkpointed_iteration.txt").read_text() == "2"
    assert list((run / "global_step_2" / "actor" / "huggingface").glob("*.safetensors"))
    validated = [json.loads(line) for line in (run / "validation" / "2.jsonl").read_text().splitlines()]
    assert len(validated) == 4 * 4
    accuracy = first[2]["val-core/math/acc/mean@4"]
    assert accuracy == pytest.approx(np.mean([row["score"] for row in validated]))
    assert {"val-aux/math/timeout/mean@4", "val-aux/math/unparsed/mean@4"} <= set(first[2])
    with (run / "passk.csv").open(newline="") as handle:
        passk = {int(row["k"]): row for row in csv.DictReader(handle)}
    assert set(passk) == {1, 2, 4}
    assert {(row["step"], row["benchmark"], row["problems"], row["samples"]) for row in passk.values()} == {
        ("2", "math", "4", "4")
    }
    assert float(passk[1]["pass_at_k"]) == pytest.approx(accuracy, abs=1e-6)
    solved = {row["uid"].rsplit("_", 2)[0] for row in validated if row["acc"]}  # among all four samples
    assert float(passk[4]["pass_at_k"]) == len(solved) / 4
    assert [first[2][f"val-passk/math/pass@{k}"] for k in (1, 2, 4)] == [
        pytest.approx(float(passk[k]["pass_at_k"])) for k in (1, 2, 4)
    ]

    assert not (run / "global_step_1").exists()  # a state that a newer one replaced
    resumed = train(tmp_path, name, 3, TEST_FREQ="-1")
    assert [path.name for path in (run / "global_step_2").iterdir()] == ["actor"]  # weights alone are left
    assert [path.name for path in (run / "global_step_2" / "actor").iterdir()] == ["huggingface"]
    assert (run / "global_step_3" / "data.pt").exists()
    assert set(resumed) == {3}
    check_step(run, 3, resumed[3], gamma)

    refused = recipe(
        name, OUT=str(run), FOCAL_GAMMA="0", DEVICE="cpu", MODEL_PATH=str(tmp_path / "model"),
        DATA_DIR=str(tmp_path / "data"), TRAIN_BATCH_SIZE="8", MINI_BATCH_SIZE="4", LOGGER="[console]", SAVE_FREQ="1",
    )  # fmt: skip
    assert refused.returncode != 0 and "algorithm.focal_gamma: found" in refused.stderr
