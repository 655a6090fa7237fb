"""The theorem-proving recipes: refusals, the paper's conditions, and the small one from nothing to a report."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


HANGING = 3600  # seconds after which a recipe counts as hanging; no test waits for it


def run(recipe, **variables):
    environment = os.environ | {"PYTHON": sys.executable} | variables
    return subprocess.run(
        ["bash", str(ROOT / "recipes" / recipe)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=HANGING,
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"METHODS": "f_grpo"}, "METHODS is 'f_grpo', but grpo, the reference of the report, must be among them"),
        ({"METHODS": "grpo reinforce"}, "METHODS has 'reinforce', but it knows grpo, unlikeliness"),
        ({"SEEDS": "1 one"}, "SEED is 'one'"),
        ({"SEEDS": "one"}, "SEEDS is 'one', but it must name at least one seed"),
        ({"GROUP_SIZE": "1"}, "GROUP_SIZE is '1'"),
        ({"LARGE_K": "99"}, "LARGE_K is '99', but it must be at most NUM_SAMPLES=64"),
        ({"STEPS": "0"}, "STEPS is '0'"),
        ({"DEVICE": "tpu"}, "DEVICE is 'tpu'"),
        ({"LEAN": "/bin/false"}, "/bin/false does not tell right proofs from wrong ones"),
    ],
)
def test_wrong_variables_are_refused_before_time_is_spent(tmp_path, variables, message):
    done = run("run_fgrpo_proofs.sh", OUT=str(tmp_path / "run"), **variables)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("condition", "epochs", "kl", "estimator", "beta"),
    [  # arXiv 2506.02355: PPO epochs, KL coefficient, beta
        ("default", "1", "0.02", "f_grpo", None),
        ("high_kl", "1", "0.10", "f_grpo", None),
        ("epochs2", "2", "0.10", "f_grpo", None),
        ("unlikeliness1", "1", "0.10", "f_unlikeliness", "0.25"),
        ("unlikeliness2", "2", "0.10", "f_unlikeliness", "0.25"),
    ],
)
def test_the_papers_conditions(tmp_path, condition, epochs, kl, estimator, beta):
    done = run("run_unlikeliness_prover7b.sh", CONDITION=condition, PRINT_ARGUMENTS="1", SEED="3")
    assert done.returncode == 0, done.stderr
    from verl_fgrpo.runs.preflight import compose_config

    config = compose_config(done.stdout.splitlines())
    actor = config.actor_rollout_ref.actor
    assert (actor.ppo_epochs, actor.kl_loss_coef) == (int(epochs), float(kl))
    assert actor.use_kl_loss and actor.kl_loss_type == "low_var_kl" and actor.clip_ratio == 0.2
    assert (actor.optim.lr, actor.optim.weight_decay, actor.optim.lr_warmup_steps) == (1e-6, 0.01, 0)
    assert config.algorithm.adv_estimator == estimator and config.algorithm.focal_gamma == 0
    assert config.algorithm.get("unlikeliness_beta") == (float(beta) if beta else None)
    assert (config.actor_rollout_ref.rollout.n, config.data.train_batch_size) == (32, 16)
    assert actor.ppo_mini_batch_size * 32 == 256
    assert (config.data.max_prompt_length, config.data.max_response_length) == (512, 512)
    assert (config.data.seed, config.actor_rollout_ref.rollout.seed) == (3, 3000)
    assert actor.data_loader_seed == actor.fsdp_config.seed == 3


def test_the_published_run_dry_and_refused(tmp_path):
    for name in ("DRY_RUN", "PREFLIGHT_ONLY", "PRINT_ARGUMENTS"):
        refused = run("run_unlikeliness_prover7b.sh", **{name: "perhaps"})
        assert refused.returncode == 1 and f"{name} is 'perhaps', but it must be 1" in refused.stderr
    done = run("run_unlikeliness_prover7b.sh", DRY_RUN="true")
    assert done.returncode == 0 and "GPU hours" in done.stderr and "custom_chat_template" in done.stdout
    done = run("run_unlikeliness_prover7b.sh", CONDITION="epochs9")
    assert done.returncode != 0 and "CONDITION is 'epochs9'" in done.stderr
    done = run("run_unlikeliness_prover7b.sh", LEAN_REPL="", OUT=str(tmp_path / "run"))
    assert done.returncode != 0 and "LEAN_REPL is not set" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.full
@pytest.mark.verl_start
def test_the_recipe_in_miniature_ends_with_a_report(tmp_path):
    variables = {
        "SMOKE": "1",
        "METHODS": "grpo f_unlikeliness",
        "OUT": str(tmp_path / "run"),
        "DATA_PREFIX": f"{tmp_path}/data-seed",
        "SFT_STEPS": "400",
        "SUPERVISED": "120",
    }
    done = run("run_fgrpo_proofs.sh", **variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    report = tmp_path / "run" / "results"
    text = (report / "report.md").read_text()
    assert "| start model |" in text and "| f_unlikeliness |" in text and "ranks 1 to 4" in text
    for name in ("methods.png", "uplift.png", "unique.png"):
        assert (report / name).stat().st_size > 10_000
    with (report / "distinct.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"start model", "grpo", "f_unlikeliness"}
    assert all(0 <= float(row["enumerated_value"]) <= 1 for row in rows.values())
    steps = {(row["run"], row["step"]) for row in json.loads((report / "unique.json").read_text())["rows"]}
    assert steps == {(run, step) for run in ("grpo", "f_unlikeliness") for step in (1, 2)}

    again = run("run_fgrpo_proofs.sh", **variables)  # nothing left to do but the report
    assert (
        again.returncode == 0
        and "not recorded yet: nothing" in again.stderr
        and (report / "report.md").read_text() == text
    )
