"""Where a result came from: package versions, git commit, time. Stored with every file of results."""

import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import verl_fgrpo

PACKAGES = (
    *("numpy", "torch", "transformers", "tokenizers", "pyarrow", "vllm", "verl"),
    *("math-verify", "sympy", "latex2sympy2_extended"),
)


def provenance(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Versions of Python, this package and `packages` (those installed), git commit and whether the tree is dirty."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "verl_fgrpo": verl_fgrpo.__version__,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "python": platform.python_version(),
        "versions": versions,
    }


def _git(*arguments: str) -> str | None:
    """Output of git in the folder this package was loaded from; None outside a checkout or without git."""
    root = Path(verl_fgrpo.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        # without --no-optional-locks, a status ended by the time limit would leave .git/index.lock behind
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
