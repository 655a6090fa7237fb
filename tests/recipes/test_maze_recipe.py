"""The main job in miniature: killed in the middle of training, started again, it ends with a complete report."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(tmp_path, recipe="run_fgrpo_maze.sh", *arguments, **variables):
    """A recipe in a process group of its own, with this interpreter."""
    environment = os.environ | {
        "PYTHON": sys.executable,
        **({"SMOKE": "true", "METHOD": "cispo"} if recipe == "run_fgrpo_maze.sh" else {}),
        "FOCAL_GAMMA": "1.0",
        "OUT": str(tmp_path / "run"),
        "DATA": str(tmp_path / "data"),
        **variables,
    }
    return subprocess.Popen(
        ["bash", str(ROOT / "recipes" / recipe), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


@pytest.mark.verl_start
def test_killed_and_started_again_the_recipe_ends_with_a_report(mazes, tmp_path):
    # the mazes and start model of other tests: the recipe's own command finds them complete, or refuses other settings
    made = {"DATA": str(mazes[0]), "SEED": "3", "SFT_STEPS": "250", "HELDOUT_MAZES": "8"}
    process = start(tmp_path, **made)
    pointers = [tmp_path / "run" / run / "latest_checkpointed_iteration.txt" for run in ("cispo", "f_cispo")]
    while not any(pointer.exists() for pointer in pointers):
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)  # the shell alone: its trainers are orphaned and must be found and ended
    process.wait()

    saved = [pointer.parent for pointer in pointers if pointer.exists()]

    again = start(tmp_path, **made)
    output, _ = again.communicate()
    assert again.returncode == 0, output[-4000:]
    assert "already there: " in output

    for run in saved:  # what had a checkpoint went on after it: the last start did not repeat step 1
        last_metrics = sorted((run / "logs").glob("*.jsonl"))[-1].read_text()
        starts = len(list((run / "logs").glob("*.log")))
        assert starts == 1 or '"step":1,' not in last_metrics

    report = tmp_path / "run" / "report"
    text = (report / "report.md").read_text()
    assert "| start model |" in text and "| cispo |" in text and "| f_cispo |" in text
    assert "Result: pass@8 of cispo went from" in text and text.strip() in output
    for name in ("pass_at_k.png", "training.png"):
        assert (report / name).stat().st_size > 10_000
    with (report / "pass_at_k.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["run"], row["k"]) for row in rows} == {
        (run, str(k)) for run in ("start model", "cispo", "f_cispo") for k in (1, 2, 4, 8)
    }
    assert all(0 <= float(row["value"]) <= 1 for row in rows)

    assert "| maze | 1 |" in text and "| maze | 8 |" in text and "problems that cispo never solved" in text

    # the arms differ in one variable
    differing = {}
    for run in ("cispo", "f_cispo"):
        log = sorted((tmp_path / "run" / run / "logs").glob("*.log"))[-1].read_text()
        command = next(line for line in log.splitlines() if "verl.trainer.main_ppo" in line)
        named_after_run = ("trainer.default_local_dir=", "trainer.experiment_name=")
        differing[run] = {word for word in command.split() if not word.startswith(named_after_run)}
    assert differing["cispo"] ^ differing["f_cispo"] == {"algorithm.focal_gamma=0", "algorithm.focal_gamma=1.0"}

    # other settings in the same folder are refused, in seconds and with both values
    refused = start(tmp_path, FOCAL_GAMMA="0.5", STEPS="3", **made)
    output, _ = refused.communicate()
    assert refused.returncode != 0 and "focal_gamma: found '1.0', asked '0.5'" in output
    assert json.loads((tmp_path / "run" / "f_cispo" / "settings.json").read_text())["focal_gamma"] == "1.0"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"METHOD": "ppo"}, "METHOD is 'ppo', but it must be grpo, dapo or cispo"),
        ({"MAZE_SIZE": "8"}, "8"),
        ({"DEVICE": "tpu"}, "DEVICE is 'tpu', but it must be cpu or cuda"),
        ({"FOCAL_GAMMA": "-1"}, "FOCAL_GAMMA is '-1'"),
        ({"GROUP_SIZE": "1"}, "GROUP_SIZE is '1'"),
        ({"STEPS": "many"}, "STEPS is 'many'"),
        ({"LEARNING_RATE": "abc"}, "LEARNING_RATE is 'abc'"),
        ({"LEARNING_RATE": "0"}, "LEARNING_RATE is '0'"),
        ({"SMOKE": "maybe"}, "SMOKE is 'maybe', but it must be 1 (yes, true) or 0 (no, false)"),
        ({"MAZE_SIZE": "1001"}, "MAZE_SIZE is '1001', but it must be odd and at most 63"),
        ({"FOCAL_GAMA": "1"}, "FOCAL_GAMA is no variable of this recipe; did you mean FOCAL_GAMMA?"),
        ({"STEPS": "x", "MAZE_SIZE": "8", "SUBSAMPLE": "9", "NUM_SAMPLES": "8"}, "SUBSAMPLE is '9'"),
    ],
)
def test_wrong_variables_are_refused_before_time_is_spent(tmp_path, variables, message):
    process = start(tmp_path, **variables)
    output, _ = process.communicate()
    assert output.count("error: ") >= len(variables) - ("NUM_SAMPLES" in variables)
    assert process.returncode != 0
    assert "error: " in output and message in output


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["actor_rollout_ref.actor.optim.lrr=1"], ["verl would not compose this command line"]),
        (
            ["algorithm.adv_estimator=f_gropo", "trainer.logger=[foo]"],
            ["adv_estimator=f_grpo?", "'foo', but verl knows"],
        ),
    ],
)
def test_arguments_that_verl_would_refuse_are_found_before_mazes_are_made(tmp_path, arguments, messages):
    process = start(tmp_path, "run_fgrpo_maze.sh", *arguments)
    output, _ = process.communicate()
    assert process.returncode != 0 and all(message in output for message in messages)
    assert not (tmp_path / "data").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"METHODS": "f_grpo"}, "METHODS is 'f_grpo', but grpo, the reference of the table, must be among them"),
        ({"METHODS": "grpo reinforce"}, "METHODS has 'reinforce', but it knows grpo, unlikeliness"),
        ({"METHODS": "grpo\tf_grpo grpo"}, "METHODS is 'grpo f_grpo grpo', but it must name each of them once"),
        ({"SEEDS": "1 two"}, "SEED is 'two'"),
        ({"SEEDS": " "}, "must name at least one seed"),
        ({"PASSK_K": "abc"}, "PASSK_K is 'abc'"),
        ({"PASSK_K": "9"}, "PASSK_K is '9', but it must be at most GROUP_SIZE=8"),
    ],
)
def test_wrong_variables_of_the_comparison_are_refused_too(tmp_path, variables, message):
    process = start(tmp_path, recipe="run_maze_methods.sh", **variables)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "error: " in output and message in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PARTS": "x"}, "PARTS has 'x', but it knows long and size"),
        ({"PARTS": " "}, "it must name long, size or both"),
        ({"ARMS": "gamma1 abc"}, "an arm is 'abc', but it must be grpo"),
        ({"ARMS": "gammax"}, "GAMMA is 'x'"),
        ({"ARMS": " "}, "part long has arms ''"),
        ({"SEEDS": "1 two"}, "SEED is 'two'"),
        ({"SIZE_SEEDS": "-1"}, "SEED is '-1'"),
        ({"SIZES": "0"}, "an arm is 'n0-grpo'"),
        ({"DRY_RUN": "1"}, "DRY_RUN is '1', but this recipe has no such switch"),
        ({"SMOKE": "true"}, "SMOKE is 'true', but this recipe has no such switch"),
        ({"SIZES": "1"}, "GROUP_SIZE is '1'"),
        ({"ROLLOUTS_PER_STEP": "4"}, "needs at least a group of 8"),
    ],
)
def test_wrong_variables_of_the_study_are_refused_before_mazes_are_made(tmp_path, variables, message):
    process = start(tmp_path, recipe="run_maze_study.sh", DATA_PREFIX=str(tmp_path / "data"), **variables)
    output, _ = process.communicate()
    assert process.returncode != 0 and "error: " in output and message in output
    assert not list(tmp_path.glob("data*"))
