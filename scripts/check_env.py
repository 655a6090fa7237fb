"""Does this interpreter have what the checkout needs? `python scripts/check_env.py CHECKOUT [REQUIREMENTS]`

Exit 1 and a list if not. Compares installed versions with REQUIREMENTS (default CHECKOUT/requirements/cpu.txt), and
checks that verl_fgrpo is this checkout.
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def missing(checkout: Path, requirements: Path) -> list[str]:
    """Sentences on what is absent or has another version; empty when complete."""
    problems = []
    for line in requirements.read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement:
            continue
        name, _, wanted = requirement.partition("==")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is missing")
            continue
        if wanted and found.partition("+")[0] != wanted:
            problems.append(f"{name} is {found}, tested with {wanted}")
    try:
        entry_points = importlib.metadata.entry_points(group="verl.plugins", name="verl_fgrpo")
        origin = json.loads(importlib.metadata.distribution("verl-fgrpo").read_text("direct_url.json") or "{}")
        location = url2pathname(urlsplit(origin.get("url", "")).path)
        if not entry_points:
            problems.append("the entry point verl.plugins:verl_fgrpo is missing")
        if Path(location) != checkout.resolve():
            problems.append(f"verl_fgrpo is installed from elsewhere, not from {checkout}")
    except importlib.metadata.PackageNotFoundError:
        problems.append("verl_fgrpo is not installed")
    return problems


def main(args: list[str]) -> int:
    """Print what is missing; 0 if nothing is."""
    checkout = Path(args[0])
    problems = missing(checkout, Path(args[1]) if len(args) > 1 else checkout / "requirements" / "cpu.txt")
    print("\n".join(problems) or "complete")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
