"""What recipes/run_fgrpo_proofs.sh calls once the methods are trained; rerun to resume.

verl-fgrpo proofs report left   --results R --seed 1 grpo f_grpo                      methods not recorded yet
verl-fgrpo proofs report record --results R --seed 1 --data DATA --step 60 RUN...     sample, grade and record them
verl-fgrpo proofs report write  --results R [METHOD...]                               tables and figures of all seeds
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import COUNT, PROCESSES, SEED, command_parser
from verl_fgrpo.tasks.common.records import left


def main(arguments: Sequence[str]) -> int:
    """Run one of the three commands; 0 if all went well."""
    parser = command_parser("proofs report", __doc__)
    parser.add_argument("command", choices=("left", "record", "write"))
    parser.add_argument(
        "names", nargs="*", metavar="METHOD or RUN", help="methods (left, write) or run folders (record)"
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the records; the report goes there")
    parser.add_argument("--seed", type=SEED, default=1, help="of theorems, start model and training (default 1)")
    parser.add_argument("--data", type=Path, help="record: folder of verl-fgrpo proofs prepare")
    parser.add_argument("--step", type=COUNT, help="record: the checkpoint to sample")
    parser.add_argument(
        "--num-samples", type=COUNT, default=64, help="record: samples per theorem (default %(default)s)"
    )
    parser.add_argument("--theorems", type=COUNT, default=160, help="record: held-out theorems (default %(default)s)")
    parser.add_argument(
        "--jobs", type=PROCESSES, default=2, help="record: models sampled at a time (default %(default)s)"
    )
    parser.add_argument("--k", type=COUNT, default=32, help="write: k of pass@k beside 1 (default %(default)s)")
    given = parser.parse_intermixed_args(arguments)
    if given.command == "left":
        print(" ".join(left(given.results, given.seed, given.names)))
    elif given.command == "record":
        if given.data is None or given.step is None or not given.names:
            parser.error("record needs --data, --step and the folders of finished runs")
        _record(given)
    else:
        _write(given.results, given.names, given.k)
    return 0


def _record(given: argparse.Namespace) -> None:
    from verl_fgrpo.tasks.common.experiment import Sampling, final_checkpoints, sample_all
    from verl_fgrpo.tasks.proofs.record import record_seed
    from verl_fgrpo.tasks.proofs.rewards import require_kernel
    from verl_fgrpo.tasks.proofs.task import PROOFS, read_heldout

    require_kernel()
    runs = [Path(name) for name in given.names]
    points = final_checkpoints(given.data, runs, given.step)
    samples = runs[0].parent / "samples"
    sampling = Sampling(given.theorems, given.num_samples, given.seed, given.jobs)
    sample_all(PROOFS, points, samples, given.data, sampling)
    theorems = read_heldout(given.data)[: given.theorems]
    record_seed(given.results, given.seed, theorems, {point.run: point for point in points}, samples, given.num_samples)


def _write(results: Path, methods: Sequence[str], k: int) -> None:
    from verl_fgrpo.tasks.proofs.record import load_runs
    from verl_fgrpo.tasks.proofs.report import write_report

    runs = load_runs(results, methods or None)
    for run in (run for of_seed in runs.values() for run in of_seed.values()):
        if not 1 < k <= run.num_samples:
            raise ValueError(
                f"--k is {k}, but it must be above 1 and at most the {run.num_samples} samples of a theorem"
            )
    if "grpo" not in next(iter(runs.values())):
        raise ValueError(f"{results} has no grpo, the reference of the report; train it too")
    print(write_report(runs, results, k))
    print(f"report: {results / 'report.md'}")
