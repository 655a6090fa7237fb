"""Graded run folders for tests."""

from __future__ import annotations

import json
from pathlib import Path

from verl_fgrpo.evaluation.grading import Judged
from verl_fgrpo.evaluation.problems import Problem, save_problems
from verl_fgrpo.evaluation.samples import Sample, SampleStore, Verdict, VerdictStore

SAMPLING = {"model": "m", "weights": "w", "temperature": 1.0, "max_tokens": 64}


def make_run(
    folder: Path,
    outcomes: dict[str, str],
    benchmark: str = "toy",
    sampling: dict[str, object] | None = None,
    grading: dict[str, object] | None = None,
    plan: dict[str, int] | None = None,
    unsampled: tuple[str, ...] = (),
    text: str = "so \\boxed{%s}",
) -> Path:
    """A graded run: "1" and "0" of each problem are its right and wrong samples."""
    problems = [Problem(benchmark, name, "question", "math", ("1",)) for name in (*outcomes, *unsampled)]
    save_problems(problems, folder / "problems.jsonl")
    samples = SampleStore(folder / "samples", sampling or SAMPLING)
    verdicts = VerdictStore(folder / "verdicts", grading or {"seconds": 10.0})
    judged = Judged(problems, verdicts.settings)
    with samples.writer() as writer, verdicts.writer() as judge:
        for name, letters in outcomes.items():
            for index, letter in enumerate(letters):
                sample = Sample(benchmark, name, index, index, text % letter, 7, "stop")
                writer.append(sample)
                verdict = "correct" if letter == "1" else "wrong"
                judge.append(Verdict(benchmark, name, index, verdict, letter, "", judged.digest(sample)))
    if plan:
        (folder / "plan.json").write_text(json.dumps(plan))
    return folder
