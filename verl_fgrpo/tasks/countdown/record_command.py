"""The validations of finished runs, made by verl while it trained, as rows of results.

verl-fgrpo countdown record --results docs/results/smollm2 --seed 1 RUN...
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import SEED, command_parser
from verl_fgrpo.core.dumps import find_dumps, read_whole
from verl_fgrpo.evaluation.counts import ProblemCounts
from verl_fgrpo.host.validation import read_counts
from verl_fgrpo.tasks.common.study import record_run


def main(arguments: Sequence[str]) -> int:
    """Write RESULTS/runs/seed<S>-<run>.json of each run."""
    parser = command_parser("countdown record", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="with validation/ and rollouts/")
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seed", type=SEED, default=1, help="of problems, start model and training (default 1)")
    given = parser.parse_args(arguments)
    for run in given.runs:
        counts = validation_counts(run)
        ids = sorted(next(iter(counts.values())).problem_ids)
        fingerprint = hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16]
        correct = {}
        for step, found in counts.items():
            of_problem = dict(zip(found.problem_ids, found.num_correct.tolist(), strict=True))
            correct[step] = [of_problem[problem_id] for problem_id in ids]
        n = int(next(iter(counts.values())).num_samples[0])
        print(record_run(given.results, given.seed, run, n, fingerprint, correct))
    return 0


def validation_counts(run: Path) -> dict[int, ProblemCounts]:
    """Counts at each validation; one that the end of the run cut short is left out and told.

    Raises:
        ValueError: fewer than two whole validations, or none of the start model.
    """
    found = read_whole(find_dumps(run, "validation"), read_counts)
    largest = max((int(counts.num_samples.sum()) for counts in found.values()), default=0)
    whole = {}
    for step, counts in found.items():
        if int(counts.num_samples.sum()) == largest and len(set(counts.num_samples.tolist())) == 1:
            whole[step] = counts
        else:
            print(f"left out: step {step} of {run}, {counts.num_samples.sum()} of {largest} samples", file=sys.stderr)
    if 0 not in whole or len(whole) < 2:
        raise ValueError(
            f"{run} has whole validations of steps {sorted(whole)}, but a row needs step 0 and a later one; train on"
        )
    return whole
