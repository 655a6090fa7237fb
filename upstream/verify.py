"""Apply a change of this folder to a temporary copy of verl and test the copy.

python upstream/verify.py                                every change, on the installed verl
python upstream/verify.py pass_at_k rejected_rows        these
python upstream/verify.py --verl CHECKOUT                on a checkout of verl
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

UPSTREAM = Path(__file__).resolve().parent
ROOT = UPSTREAM.parent
#: Change -> its own tests. What starts with tests/trainer comes with the patch, the rest stands in the change's folder.
CHANGES = {
    "focal_weight": ["tests/trainer/ppo/test_focal_weight_on_cpu.py"],
    "pass_at_k": ["tests/trainer/ppo/test_pass_at_k_on_cpu.py"],
    "rejected_rows": ["tests/trainer/ppo/test_rows_without_tokens_on_cpu.py"],
    "estimator_inputs": [str(UPSTREAM / "estimator_inputs/test_estimator_inputs.py")],
}
#: verl's own tests of the changed files, where SOURCE has them.
VERLS_TESTS = ("tests/trainer/ppo/test_core_algos_on_cpu.py", "tests/trainer/ppo/test_metric_utils_on_cpu.py")


def installed_verl() -> Path:
    """Folder that holds the installed package `verl`, which is not imported."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("verl is not installed; give a checkout with --verl")
    return Path(spec.submodule_search_locations[0]).parent


def copy_verl(source: Path, folder: Path) -> None:
    """Copy the package from SOURCE/verl, and those of verl's own tests that are there, into a folder."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "verl", folder / "verl", ignore=ignore)
    for name in VERLS_TESTS:
        if (source / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)


def git_apply(folder: Path, change: str, *options: str) -> str:
    """`git apply` in a folder that is no repository, even where a folder above it is one."""
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    patch = UPSTREAM / change / f"{change}.patch"
    result = subprocess.run(
        ["git", "apply", *options, str(patch)], cwd=folder, env=environment, capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(f"{patch.name} does not apply to {folder}: {result.stderr}")
    return result.stdout


def run_in(folder: Path, *command: str, patched: bool = True) -> str:
    """Run Python where `import verl` is the copy (patched) or the installed one; what it prints.

    Raises:
        RuntimeError: with the output, if it fails.
    """
    paths = [folder] if patched else []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT, UPSTREAM / "focal_weight"])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{result.stdout}")
    return result.stdout


def pytest_in(folder: Path, *tests: str) -> str:
    """Run tests in the patched copy."""
    return run_in(
        folder,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=--import-mode=importlib",
        "--disable-warnings",
        "-p",
        "no:cacheprovider",
        *tests,
    )


def verify(change: str, source: Path) -> None:
    """Check one change on a copy of SOURCE/verl; prints what was found."""
    with tempfile.TemporaryDirectory(prefix="verl-patched-") as name:
        folder = Path(name)
        copy_verl(source, folder)
        if change == "focal_weight":
            print(run_in(folder, str(UPSTREAM / "focal_weight/check.py"), "record", "unpatched.pt"), end="")
        git_apply(folder, change)
        theirs = [test for test in VERLS_TESTS if (folder / test).exists()]
        ours = [str(ROOT / "tests/methods/test_estimators.py")] if change == "estimator_inputs" else []
        # verl's own tests come last: they empty the table of estimators
        print(pytest_in(folder, *CHANGES[change], *ours, *theirs), end="")
        if change == "focal_weight":
            print(run_in(folder, str(UPSTREAM / "focal_weight/check.py"), "compare", "unpatched.pt"), end="")


def main() -> int:
    """Verify the named changes; 1 if one does not apply or a test fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", help=f"out of {', '.join(CHANGES)}; default: all")
    parser.add_argument("--verl", type=Path, help="a checkout of verl; default: the installed one")
    given = parser.parse_args()
    if unknown := set(given.changes) - set(CHANGES):
        parser.error(f"there is no change {', '.join(sorted(unknown))}; there are {', '.join(CHANGES)}")
    try:
        source = (given.verl or installed_verl()).resolve()
        version = (source / "verl/version/version").read_text().strip()
        for change in given.changes or CHANGES:
            print(f"== {change}: a copy of verl {version} ({source}), patched and tested", flush=True)
            verify(change, source)
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"all good: {', '.join(given.changes or CHANGES)} on verl {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
