"""The pull request to verl in upstream/: it applies, tests itself, is verl at gamma 0 and the plugin otherwise."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_verl_runs import check_advantages, mazes, run_verl, success_rates  # noqa: F401  (mazes is a fixture)

ROOT = Path(__file__).resolve().parent.parent
UPSTREAM = ROOT / "upstream"
VERSION = "0.9.1"
PATCH = UPSTREAM / f"verl-{VERSION}-focal-weight.patch"

INSTALLED = importlib.metadata.version("verl")
pytestmark = [
    pytest.mark.skipif(INSTALLED != VERSION, reason=f"the patch is made against verl {VERSION}, not {INSTALLED}"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git apply is needed"),
]


def git_apply(folder, *options):
    """`git apply` in a folder that is no repository, even where a folder above it is one."""
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    result = subprocess.run(
        ["git", "apply", *options, str(PATCH)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def patched(tmp_path_factory):
    """A folder with a patched copy of the installed verl."""
    folder = tmp_path_factory.mktemp("patched")
    installed = importlib.util.find_spec("verl").submodule_search_locations[0]
    shutil.copytree(installed, folder / "verl")
    git_apply(folder)
    return folder


@pytest.fixture(scope="session")
def check_patch():
    """upstream/check_patch.py in this process, which has the installed verl."""
    spec = importlib.util.spec_from_file_location("check_patch", UPSTREAM / "check_patch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# One process for both, as importing verl takes seconds.
IN_THE_PATCHED_VERL = """
import sys
from pathlib import Path
import pytest
import check_patch
check_patch.compare(Path("unpatched.pt"))
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/trainer/ppo/test_focal_weight_on_cpu.py"]))
"""


@pytest.fixture(scope="session")
def output(patched, check_patch):
    """What the comparison and the patch's own tests print where `import verl` is the patched copy."""
    check_patch.record(patched / "unpatched.pt")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [patched, ROOT, UPSTREAM])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", IN_THE_PATCHED_VERL],
        cwd=patched,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def changed_files(folder):
    """Added and removed lines per file of the patch."""
    rows = (line.split("\t") for line in git_apply(folder, "--numstat").splitlines())
    return {name: (int(added), int(removed)) for added, removed, name in rows}


def test_the_patch_adds_lines_only_and_compiles(patched):
    changed = changed_files(patched)
    assert {name.split("/")[0] for name in changed} == {"verl", "tests", "docs", "examples"}
    assert all(removed == 0 for _, removed in changed.values())
    code = [name for name in changed if name.endswith(".py")]
    assert len(code) == 4
    for name in code:
        compile((patched / name).read_text(), name, "exec")


def test_the_patchs_own_tests_pass(output):
    assert re.search(r"^[1-9]\d* passed", output, re.MULTILINE), output
    assert "skipped" not in output


def test_gamma_zero_is_verl_and_other_gammas_are_the_plugin(output):
    assert "gamma 0 is verl bit for bit: 40 results of 8 estimators" in output
    assert "gamma 0.5, 1 and 2 are the plugin's f_ estimators bit for bit: 120 results" in output
    assert "adv_estimator=f_grpo with verl's own focal_gamma is refused" in output
    assert "4 generated configuration files are up to date" in output


def test_the_comparison_refuses_an_unpatched_verl(check_patch, tmp_path):
    with pytest.raises(AssertionError, match="is not patched"):
        check_patch.compare(tmp_path / "never read")


def test_the_example_has_the_papers_settings_and_every_key_is_verls(patched, tmp_path):
    """The example is run with a python3 that prints its arguments, which Hydra then composes with the patched verl."""
    import hydra

    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    script = patched / "examples/fgrpo_trainer/run_qwen2_5_7b_fsdp2.sh"
    result = subprocess.run(
        ["bash", str(script), "trainer.total_training_steps=3"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    with hydra.initialize_config_dir(str(patched / "verl/trainer/config"), version_base=None):
        config = hydra.compose("ppo_trainer", result.stdout.splitlines())
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    # arXiv 2602.06717, Table 5 and App. B
    assert (config.algorithm.adv_estimator, config.algorithm.focal_gamma) == ("grpo", 0.5)
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, actor.ppo_epochs) == (256, 64, 1)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (1024, 8192)
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.loss_agg_mode) == (0.2, 0.2, "token-mean")
    assert (actor.use_kl_loss, config.algorithm.use_kl_in_reward, actor.entropy_coeff) == (False, False, 0)
    assert (actor.optim.lr, actor.optim.lr_warmup_steps, actor.optim.weight_decay) == (1e-6, 15, 0.01)
    assert (rollout.n, rollout.temperature, rollout.top_p, rollout.top_k) == (8, 1.0, 1.0, -1)
    assert config.trainer.total_training_steps == 3


def test_the_description_follows_verls_template():
    text = (UPSTREAM / "PULL_REQUEST.md").read_text()
    title = re.search(r"^Title: `(.+)`$", text, re.MULTILINE).group(1)
    modules, kind = re.fullmatch(r"\[([a-z_, ]+)\] (\w+): .+", title).groups()
    # what verl's CI allows, of which these are in question
    assert set(modules.split(", ")) <= {"algo", "trainer", "cfg", "doc"}
    assert kind == "feat"
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert headings == [
        "What does this PR do?",
        "Checklist Before Starting",
        "Test",
        "API and Usage Example",
        "Design & Code Changes",
        "Checklist Before Submitting",
    ]


@pytest.mark.full
@pytest.mark.verl_start
def test_verls_trainer_with_the_patch_trains_with_the_focal_weight(patched, mazes, tmp_path):  # noqa: F811
    run = tmp_path / "patched"
    logged, _ = run_verl(
        mazes,
        run,
        "algorithm.adv_estimator=grpo",
        "algorithm.focal_gamma=0.5",  # no plus sign: the key is verl's own now
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
