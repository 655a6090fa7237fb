"""`verl-fgrpo eval merge`: join runs sampled on several machines."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_fgrpo.evaluation.counts import StopRule
from verl_fgrpo.evaluation.problems import Problem, ProblemKey, load_problems, save_problems
from verl_fgrpo.evaluation.samples import merge_stores


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("merge", help="join runs sampled with equal settings on several machines")
    parser.add_argument("--sources", nargs="+", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path, help="folder to merge into")
    parser.set_defaults(run_command=_merge)


def _merge(options: argparse.Namespace) -> None:
    _joined_problems(options)
    rule = _stop_rule([*options.sources, *([options.run] if (options.run / "problems.jsonl").exists() else [])])

    def save() -> None:
        save_problems(_joined_problems(options), options.run / "problems.jsonl")
        if rule is not None:
            rule.save(options.run)

    added = merge_stores([source / "samples" for source in options.sources], options.run / "samples", save)
    print(f"{added} samples added to {options.run}")


def _joined_problems(options: argparse.Namespace) -> list[Problem]:
    """The problems of all sources and of the run that they are merged into; ValueError if one of them differs."""
    problems: dict[ProblemKey, Problem] = {}
    target = options.run / "problems.jsonl"
    for path in [*(source / "problems.jsonl" for source in options.sources), *([target] if target.exists() else [])]:
        for problem in load_problems([path]):
            if problems.setdefault(problem.key, problem) != problem:
                raise ValueError(
                    f"problem {problem.key} in {path} differs from that of another run (prompt, gold answer or kind): "
                    "the runs sampled different files of problems"
                )
    return list(problems.values())


def _stop_rule(runs: Sequence[Path]) -> StopRule | None:
    """The rule of runs sampled until a number of correct samples; None for runs of a fixed number."""
    rules = {str(run): StopRule.load(run) for run in runs}
    stopped = [rule for rule in rules.values() if rule is not None and rule.stop_after_correct is not None]
    if stopped and any(rule != stopped[0] for rule in rules.values()):
        raise ValueError(
            f"the runs end their problems by different rules ({rules}): samples counted up to a stop cannot be joined "
            "with others. Sample all with the same --num-samples and --stop-after-correct"
        )
    return stopped[0] if stopped else None
