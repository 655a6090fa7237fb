"""Which releases of verl this plugin works with: tries each one and prints a table.

python scripts/check_verl_releases.py 0.8.0 0.9.1                 about two minutes a release
python scripts/check_verl_releases.py 0.9.0 0.9.1 --train         and a real training step on the CPU (verl >= 0.9)
python scripts/check_verl_releases.py 0.9.1 --out table.md        also keep the table

Every release gets a temporary folder with that verl, this checkout's plugin as a wheel, and those requirements of that
verl that the environment does not meet (releases before 0.9 want numpy < 2, and then older pandas, pyarrow and scipy);
all else comes from the environment it runs in, which stays as it is. Nothing that needs a GPU is tried.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(  # the paper's nine; the others set up environments and models first
    path.stem.removeprefix("run_")
    for path in (ROOT / "recipes").glob("run_f*_*.sh")
    if "shared/model_" in path.read_text() and "setup_env" not in path.read_text()
)
UNIT_TESTS = ("methods/test_estimators.py", "methods/test_losses.py")
TRAINING_TEST = "recipes/test_recipes.py::test_f_cispo_trains_a_step_for_real_beside_another_ray_cluster"

#: what a replaced package needs besides, because the environment's own versions refuse to go with it
COMPANIONS = {"numpy": ("pandas<2.3", "pyarrow<20", "scipy<1.15", "pytz", "tzdata")}

NAMES = """
import verl, verl_fgrpo
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
from verl_fgrpo.methods.estimators import BASE_ESTIMATORS
from verl_fgrpo.methods.losses import BASE_LOSSES
from verl_fgrpo.methods.estimators import METHODS
names = (*BASE_ESTIMATORS, *(method.name for method in METHODS))
print({f"f_{name}" for name in names} <= set(ADV_ESTIMATOR_REGISTRY), end=" ")
print({f"f_{name}" for name in BASE_LOSSES} <= set(POLICY_LOSS_REGISTRY))
"""
PRESETS = """
import verl
from hydra import compose, initialize_config_module
from verl_fgrpo.config import FocalPolicyLossConfig
count = 0
for method in ("grpo", "dapo", "cispo"):
    for where in ("", "_loss"):
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("ppo_trainer", overrides=[f"+focal={method}{where}"])
        kept = config.actor_rollout_ref.actor.policy_loss if where else config.algorithm
        assert kept.focal_gamma > 0
        count += 1
print(count)
"""


class Release:
    """One release of verl in a folder of its own, before the environment's packages on the path.

    The folder also gets this checkout's recipes and tests, which then find this verl next to them.
    """

    def __init__(self, version: str, wheel: Path, folder: Path) -> None:
        self.version = version
        self.folder = folder
        install(folder, f"verl=={version}", str(wheel))
        self.replaced = self._unmet()
        if self.replaced:
            names = [Requirement(text).name for text in self.replaced]
            install(folder, *self.replaced, *(text for name in names for text in COMPANIONS.get(name, ())))
        for name in ("tests", "scripts"):  # some releases put theirs there
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("tests", "recipes"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)

    def _unmet(self) -> list[str]:
        (metadata,) = self.folder.glob("verl-*.dist-info")
        wanted = [Requirement(text) for text in importlib.metadata.Distribution.at(metadata).requires or ()]
        unmet = []
        for requirement in wanted:
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                installed = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                continue
            if not requirement.specifier.contains(installed, prereleases=True):
                unmet.append(f"{requirement.name}{requirement.specifier}")
        return unmet

    def run(self, *command: str, modules: bool = True, timeout: float = 400, **variables: str) -> tuple[bool, str]:
        """Run with this release; (went well, output)."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment["ALLOW_UNTESTED_VERL"] = "1"
        environment.pop("VERL_USE_EXTERNAL_MODULES", None)
        if modules:
            environment["VERL_USE_EXTERNAL_MODULES"] = "verl_fgrpo.register"
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment | variables, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return False, f"longer than {timeout:.0f} s"
        return done.returncode == 0, done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def python(self, code: str, modules: bool = True) -> tuple[bool, str]:
        return self.run(sys.executable, "-c", code, modules=modules)


def install(target: Path, *packages: str) -> None:
    """pip install into a folder, nothing besides what is named."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(target), *packages]
    subprocess.run(pip, check=True)


def build_wheel(folder: Path) -> Path:
    """The plugin of this checkout, built from a copy of it."""
    source = folder / "source"
    source.mkdir()
    shutil.copytree(ROOT / "verl_fgrpo", source / "verl_fgrpo", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)], check=True
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def check(release: Release, train: bool, log: Path) -> dict[str, str]:
    """One row of the table; the output of what failed goes to `log`."""
    failures = []

    def tell(name: str, outcome: tuple[bool, str], good: str = "yes") -> str:
        if outcome[0]:
            return good
        failures.append(f"==== verl {release.version}: {name}\n{outcome[1]}")
        return "no"

    by_entry_point = release.python(NAMES, modules=False)
    by_module = release.python(NAMES)
    row = {"verl": release.version, "replaced": ", ".join(release.replaced) or "-"}
    row["entry point"] = "yes" if by_entry_point == (True, "True True\n") else "no"
    row["VERL_USE_EXTERNAL_MODULES"] = tell("names", (by_module == (True, "True True\n"), by_module[1]))
    row["doctor"] = tell("doctor", release.run(sys.executable, "-m", "verl_fgrpo"))
    row["presets"] = tell("presets", release.python(PRESETS))
    composed = []
    for recipe in RECIPES:
        outcome = release.run("bash", f"recipes/run_{recipe}.sh", DRY_RUN="1", PYTHON=sys.executable)
        composed.append(tell(f"recipe {recipe}", outcome) == "yes")
    row["recipes"] = f"{sum(composed)} of {len(composed)}"
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]  # pyproject.toml says -q
    passed = release.run(*pytest, *(f"tests/{name}" for name in UNIT_TESTS))
    tell("unit tests", passed)
    row["unit tests"] = passed[1].strip().splitlines()[-1].split(" in ")[0]
    if train:
        row["CPU step"] = tell("CPU step", release.run(*pytest, f"tests/{TRAINING_TEST}"))
    if failures:
        with log.open("a") as handle:
            handle.write("\n".join(failures) + "\n")
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 if it could be made, whatever it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="+", help="versions of verl")
    parser.add_argument("--train", action="store_true", help="also a training step on the CPU")
    parser.add_argument("--out", type=Path, help="file for the table")
    parser.add_argument("--log", type=Path, default=Path("verl_releases.log"), help="what failed, in full")
    given = parser.parse_args(arguments)
    log = given.log.absolute()
    log.unlink(missing_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        for version in given.releases:
            print(f"verl {version} ...", file=sys.stderr)
            own = folder / version
            own.mkdir()
            rows.append(check(Release(version, wheel, own), given.train, log))
            print(json.dumps(rows[-1]), file=sys.stderr)
    columns = list(rows[0])
    table = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    text = "".join("| " + " | ".join(line) + " |\n" for line in table)
    print(text, end="")
    if given.out:
        given.out.write_text(text)
    if log.exists():
        print(f"what failed: {log}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
