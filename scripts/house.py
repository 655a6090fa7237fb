"""How large is the house? Lines, modules and long functions of every room: `python scripts/house.py [CHECKOUT]`.

`--check` also fails where a rule of CONTRIBUTING.md is broken: a function over 60 lines (docstring aside), a folder
without two lines on what lives there.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LONGEST = 60
LONG = 45


class Function(NamedTuple):
    """A function and its lines of code, docstring and lines of nested functions' docstrings not counted."""

    file: Path
    name: str
    lines: int


def docstring_lines(node: ast.AST) -> int:
    """Lines of all docstrings in `node`."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return sum(
        inner.body[0].end_lineno - inner.body[0].lineno + 1  # type: ignore[operator]
        for inner in ast.walk(node)
        if isinstance(inner, kinds) and ast.get_docstring(inner) is not None
    )


def functions(file: Path) -> Iterator[Function]:
    """All functions of a Python file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield Function(file, node.name, node.end_lineno - node.lineno + 1 - docstring_lines(node))


def rooms(root: Path) -> dict[str, list[Path]]:
    """Python files by room: a folder of the package, the package's own modules, tests, scripts."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted((root / "verl_fgrpo").rglob("*.py")):
        inside = file.relative_to(root / "verl_fgrpo").parts
        found[f"verl_fgrpo/{inside[0]}" if len(inside) > 1 else "verl_fgrpo/*.py"].append(file)
    for name in ("tests", "scripts"):
        found[name] = sorted((root / name).rglob("*.py"))
    return found


def line_count(files: list[Path]) -> int:
    """Lines of all files together."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def main(arguments: list[str]) -> int:
    """Print the table; with --check 1 if a rule is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    package: list[Function] = []
    print(f"{'room':<24} {'lines':>6} {'docstrings':>10} {'modules':>8} {'longest function':>17} {f'over {LONG}':>8}")
    total = defaultdict(int)
    for room, files in rooms(given.checkout).items():
        own = [function for file in files for function in functions(file)]
        longest = max(own, key=lambda function: function.lines, default=None)
        count = sum(function.lines > LONG for function in own)
        prose = sum(docstring_lines(ast.parse(file.read_text(encoding="utf-8"))) for file in files)
        sizes = f"{line_count(files):>6} {prose:>10} {len(files):>8}"
        print(f"{room:<24} {sizes} {longest.lines if longest else 0:>17} {count:>8}")
        if room.startswith("verl_fgrpo"):
            package += own
            total["package"] += line_count(files)
            total["package without tasks"] += (
                0 if room in ("verl_fgrpo/tasks", "verl_fgrpo/maze") else line_count(files)
            )
    for name, lines in total.items():
        print(f"{name:<24} {lines:>6}")
    broken = [
        f"{function.file}: {function.name} has {function.lines} lines of code, at most {LONGEST} are allowed; split it"
        for function in package
        if function.lines > LONGEST
    ]
    for folder in sorted({file.parent for files in rooms(given.checkout).values() for file in files}):
        init = folder / "__init__.py"
        if not folder.is_relative_to(given.checkout / "verl_fgrpo"):
            continue
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) if init.exists() else None
        if text is None or len(text.splitlines()) < 2:
            broken.append(f"{init} does not say in two lines what lives in the folder and what does not")
    if given.check:
        print("\n".join(broken), file=sys.stderr)
    return 1 if given.check and broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
