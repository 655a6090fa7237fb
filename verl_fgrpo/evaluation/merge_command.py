"""`verl-fgrpo eval merge`: join runs sampled on several machines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.problems import load_problems, save_problems
from verl_fgrpo.evaluation.samples import merge_stores


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("merge", help="join runs sampled with equal settings on several machines")
    parser.add_argument("--sources", nargs="+", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path, help="folder to merge into")
    parser.set_defaults(run_command=_merge)


def _merge(options: argparse.Namespace) -> None:
    problems = {}
    for source in options.sources:
        for problem in load_problems([source / "problems.jsonl"]):
            problems[problem.key] = problem
    added = merge_stores([source / "samples" for source in options.sources], options.run / "samples")
    save_problems(problems.values(), options.run / "problems.jsonl")
    print(f"{added} samples added to {options.run}")
