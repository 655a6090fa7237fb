"""The changes to verl in upstream/: they apply, also together, and do what their descriptions say."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_verl_runs import check_advantages, run_verl, success_rates

ROOT = Path(__file__).resolve().parent.parent
UPSTREAM = ROOT / "upstream"
VERSION = "0.9.1"
INSTALLED = importlib.metadata.version("verl")
pytestmark = [
    pytest.mark.skipif(INSTALLED != VERSION, reason=f"the patches are made against verl {VERSION}, not {INSTALLED}"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git apply is needed"),
]


def load(path):
    """A script of upstream/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


verify = load(UPSTREAM / "verify.py")


@pytest.fixture(scope="session")
def patched(tmp_path_factory):
    """A folder with a copy of the installed verl that has all changes."""
    folder = tmp_path_factory.mktemp("patched")
    verify.copy_verl(verify.installed_verl(), folder)
    for change in verify.CHANGES:
        verify.git_apply(folder, change)
    return folder


# One process for all, as importing verl takes seconds.
IN_THE_PATCHED_VERL = """
import sys
from pathlib import Path
import pytest
import check
check.compare(Path("unpatched.pt"))
sys.exit(pytest.main(["-q", "-o", "addopts=", "--disable-warnings", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.fixture(scope="session")
def output(patched):
    """What the comparison of the focal weight and all tests print where `import verl` is the patched copy."""
    load(UPSTREAM / "focal_weight/check.py").record(patched / "unpatched.pt")
    tests = [test for tests in verify.CHANGES.values() for test in tests]
    return verify.run_in(patched, "-c", IN_THE_PATCHED_VERL, *tests)


@pytest.mark.parametrize("change, removes", [("focal_weight", False), ("pass_at_k", True), ("rejected_rows", True)])
def test_a_patch_is_no_larger_than_its_description_says(patched, change, removes):
    rows = [line.split("\t") for line in verify.git_apply(patched, change, "--numstat").splitlines()]
    added, removed = (sum(int(row[i]) for row in rows if row[2].startswith("verl/")) for i in (0, 1))
    (line,) = re.findall(rf"^\| \[`{change}/`\].*\| (.+) \|$", (UPSTREAM / "README.md").read_text(), re.MULTILINE)
    assert line == (f"+{added} -{removed}" if removes else f"+{added}")
    assert {name.split("/")[0] for _, _, name in rows} <= {"verl", "tests", "docs", "examples"}
    code = [name for _, _, name in rows if name.endswith(".py")]
    for name in code:
        compile((patched / name).read_text(), name, "exec")
    assert any("tests/" in name for name in code)


def test_their_own_tests_pass(output):
    assert int(re.search(r"^([1-9]\d*) passed", output, re.MULTILINE).group(1)) > 100, output
    assert "skipped" not in output


def test_gamma_zero_is_verl_and_other_gammas_are_the_plugin(output):
    assert "gamma 0 is verl bit for bit: 40 results of 8 estimators" in output
    assert "gamma 0.5, 1 and 2 are the plugin's f_ estimators bit for bit: 120 results" in output
    assert "adv_estimator=f_grpo with verl's own f_grpo_gamma is refused" in output
    assert "4 generated configuration files are up to date" in output


def test_the_comparison_refuses_an_unpatched_verl(tmp_path):
    with pytest.raises(AssertionError, match="is not patched"):
        load(UPSTREAM / "focal_weight/check.py").compare(tmp_path / "never read")


def test_a_patch_that_does_not_fit_is_an_error(tmp_path):
    (tmp_path / "verl").mkdir()
    with pytest.raises(RuntimeError, match="pass_at_k.patch does not apply"):
        verify.git_apply(tmp_path, "pass_at_k")


def composed(script, config_folder, tmp_path, **variables):
    """What a run script gives to verl: run with a python3 that prints its arguments, which Hydra then composes."""
    import hydra

    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    result = subprocess.run(
        ["bash", str(script), "trainer.total_training_steps=3"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | variables,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    with hydra.initialize_config_dir(str(config_folder), version_base=None):
        config = hydra.compose("ppo_trainer", result.stdout.splitlines())
    assert config.trainer.total_training_steps == 3
    return config


def check_the_papers_settings(config, clip_high=0.2):
    """arXiv 2602.06717, Table 5 and App. B."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, actor.ppo_epochs) == (256, 64, 1)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (1024, 8192)
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.loss_agg_mode) == (0.2, clip_high, "token-mean")
    assert (actor.use_kl_loss, config.algorithm.use_kl_in_reward, actor.entropy_coeff) == (False, False, 0)
    assert (actor.optim.lr, actor.optim.lr_warmup_steps, actor.optim.weight_decay) == (1e-6, 15, 0.01)
    assert (rollout.n, rollout.temperature, rollout.top_p, rollout.top_k) == (8, 1.0, 1.0, -1)


def test_the_example_has_the_papers_settings_and_every_key_is_verls(patched, tmp_path):
    script = patched / "examples/fgrpo_trainer/run_qwen2_5_7b_fsdp2.sh"
    config = composed(script, patched / "verl/trainer/config", tmp_path)
    assert (config.algorithm.adv_estimator, config.algorithm.f_grpo_gamma) == ("grpo", 0.5)
    check_the_papers_settings(config)


@pytest.mark.parametrize("method, clip_high", [("grpo", 0.2), ("dapo", 0.28)])
def test_the_recipe_has_the_papers_settings_and_every_key_is_verls(method, clip_high, tmp_path):
    script = UPSTREAM / "verl-recipe/fgrpo/run_fgrpo_qwen2.5_7b.sh"
    config = composed(script, verify.installed_verl() / "verl/trainer/config", tmp_path, METHOD=method)
    assert (config.algorithm.adv_estimator, config.algorithm.focal_gamma) == ("f_grpo", 0.5)
    check_the_papers_settings(config, clip_high)


def test_the_recipe_has_the_form_of_verl_recipe():
    folder = UPSTREAM / "verl-recipe/fgrpo"
    lines = (folder / "REQUIRED_VERL.txt").read_text().splitlines()
    pins = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert (pins["MODE"], pins["TAG"], pins["PIP_INSTALL"]) == (
        "pinned_tag",
        f"v{VERSION}",
        f"pip install verl=={VERSION}",
    )
    text = (folder / "README.md").read_text()
    assert "## Required `verl` version" in text and "(REQUIRED_VERL.txt)" in text
    assert all(f"fgrpo/{script.name}" in text for script in folder.glob("*.sh"))
    assert not list(folder.glob("*.py"))  # it uses the plugin and copies nothing of it


@pytest.mark.parametrize("change", ["focal_weight", "pass_at_k", "rejected_rows"])
def test_a_description_follows_verls_template(change):
    text = (UPSTREAM / change / "PULL_REQUEST.md").read_text()
    title = re.search(r"^Title: `(.+)`$", text, re.MULTILINE).group(1)
    modules, kind = re.fullmatch(r"\[([a-z_, ]+)\] (\w+): .+", title).groups()
    # what verl's CI allows, of which these are in question
    assert set(modules.split(", ")) <= {"algo", "trainer", "cfg", "doc"}
    assert kind in {"feat", "fix"}
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert headings == [
        "What does this PR do?",
        "Checklist Before Starting",
        "Test",
        "API and Usage Example",
        "Design & Code Changes",
        "Checklist Before Submitting",
    ]
    assert (UPSTREAM / change / "verify.sh").exists()


@pytest.mark.full
@pytest.mark.verl_start
def test_verls_trainer_with_the_patch_trains_with_the_focal_weight(patched, mazes, tmp_path):
    run = tmp_path / "patched"
    logged, _ = run_verl(
        mazes,
        run,
        "algorithm.adv_estimator=grpo",
        "algorithm.f_grpo_gamma=0.5",  # no plus sign: the key is verl's own now
        "trainer.total_training_steps=2",
        modules=patched,
    )
    assert set(logged) == {1, 2}
    for step, metrics in logged.items():
        rates = success_rates(run, step)
        assert any(0 < mu < 1 for mu in rates.values()), "the start model must solve some mazes sometimes"
        check_advantages(metrics, rates, gamma=0.5)
        with pytest.raises(AssertionError):  # so the check does tell a weight from none
            check_advantages(metrics, rates, gamma=0.0)
        assert not any(key.startswith("focal/") for key in metrics)
