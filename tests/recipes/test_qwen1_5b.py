"""The recipe for one GPU and one day: its settings, and the same script in miniature on the CPU, to the report."""

import json

import pytest
from test_recipes import recipe, values

from verl_fgrpo.runs.configuration import compose_config
from verl_fgrpo.runs.cost import estimate


def resolved(arms, **variables):
    printed = recipe("fgrpo_qwen1_5b", ARMS=arms, PRINT_ARGUMENTS="1", **variables)
    assert printed.returncode == 0, printed.stderr
    return compose_config(printed.stdout.splitlines())


def test_the_arms_differ_in_gamma_and_the_control_in_its_learning_rate():
    keys = ("algorithm.focal_gamma", "actor_rollout_ref.actor.optim.lr", "actor_rollout_ref.actor.ppo_mini_batch_size")
    assert list(values(resolved("grpo"), keys).values()) == [0, 2e-6, 32]
    focal = resolved("f_grpo grpo")
    assert list(values(focal, keys).values()) == [1.0, 2e-6, 32]
    assert list(values(resolved("grpo_low_lr grpo"), keys).values()) == [0, 1e-6, 32]  # m(1) = 0.5, App. N
    assert (focal.trainer.total_training_steps, focal.trainer.keep_weights_every) == (300, 50)
    assert focal.actor_rollout_ref.rollout.max_model_len == 1024 + 2048
    plan = estimate(focal, 1.54, 7500, 1477, 128)
    # 300 steps x 1,024 rollouts x 512 tokens at 20,000 / 1.54 a second, and 10 x 1.54e9 FLOPs for each of 712 tokens
    assert plan.generation_hours == pytest.approx(300 * 1024 * 512 / (20_000 / 1.54) / 3600)
    assert plan.training_hours == pytest.approx(300 * 1024 * 712 * 10 * 1.54e9 / (0.35 * 989e12) / 3600)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STAGE": "evaluate"}, "STAGE is 'evaluate', but it must be all, train, eval or compare"),
        ({"ARMS": "f_grpo"}, "but grpo, which the others are compared with, must be among them"),
        ({"ARMS": "grpo dapo"}, "ARMS has 'dapo'"),
        ({"SUBSAMPLE": "256"}, "SUBSAMPLE is '256', but it must be at most EVAL_SAMPLES=128"),
        ({"SMOKE": "2"}, "SMOKE is '2'"),
        ({"DRY_RUN": "perhaps"}, "DRY_RUN is 'perhaps'"),
        ({"STAGE": "train", "MATH_TRAIN": "/nowhere"}, "MATH_TRAIN is '/nowhere', but it must name"),
    ],
)
def test_wrong_variables_are_refused_at_once(variables, message, tmp_path):
    refused = recipe("fgrpo_qwen1_5b", DATA_DIR=str(tmp_path), **variables)
    assert refused.returncode != 0 and message in refused.stderr


@pytest.mark.full
@pytest.mark.verl_start
def test_in_miniature_it_trains_evaluates_and_compares_and_resumes(tmp_path):
    variables = {"SMOKE": "true", "OUT": str(tmp_path / "run"), "ARMS": "grpo f_grpo"}
    first = recipe("fgrpo_qwen1_5b", STAGE="train", TOTAL_STEPS="1", **variables)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    done = recipe("fgrpo_qwen1_5b", **variables)  # goes on to the second step, then evaluates
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for arm, gamma in (("grpo", "0"), ("f_grpo", "1.0")):
        run = tmp_path / "run" / arm
        logs = [json.loads(line) for file in sorted((run / "logs").glob("*.jsonl")) for line in file.open()]
        assert [row["step"] for row in logs] == [1, 2]
        assert json.loads((run / "settings.json").read_text())["algorithm.focal_gamma"] == gamma
    assert "| math | 4 |" in (tmp_path / "run" / "compare" / "compare.md").read_text()
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    again = recipe("fgrpo_qwen1_5b", STAGE="train", **variables)
    assert again.returncode == 0 and again.stderr.count("all steps are done") == 2
