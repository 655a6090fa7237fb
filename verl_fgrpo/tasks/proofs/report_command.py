"""Sample held-out theorems from the runs of recipes/run_fgrpo_proofs.sh and compare all methods; rerun to resume.

verl-fgrpo proofs report --out outputs/proofs/RUNS --data outputs/proofs/data-seed --seeds 1 2 \
    --methods grpo f_grpo unlikeliness --step 60
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.tasks.common.experiment import Sampling, final_checkpoints, sample_all
from verl_fgrpo.tasks.proofs.report import SeedResult, write_report
from verl_fgrpo.tasks.proofs.rewards import require_kernel
from verl_fgrpo.tasks.proofs.task import PROOFS, read_heldout


def main(arguments: Sequence[str]) -> int:
    """Sample, grade, compare, report; 0 if all went well."""
    parser = command_parser("proofs report", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with seed<S>/<method>; the report goes there")
    parser.add_argument("--data", required=True, help="folders of verl-fgrpo proofs prepare, without the seed")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", required=True, help="grpo must be among them")
    parser.add_argument("--step", type=int, required=True, help="the checkpoint to compare")
    parser.add_argument("--num-samples", type=int, default=64, help="samples per theorem (default %(default)s)")
    parser.add_argument("--theorems", type=int, default=160, help="held-out theorems a seed (default %(default)s)")
    parser.add_argument("--k", type=int, default=32, help="k of pass@k beside 1 (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="models sampled at a time (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 < given.k <= given.num_samples:
        raise ValueError(f"--k is {given.k}, but it must be above 1 and at most --num-samples={given.num_samples}")
    if "grpo" not in given.methods:
        raise ValueError(f"--methods is {' '.join(given.methods)}, but grpo, the reference, is not among them")
    require_kernel()
    results = {}
    for seed in given.seeds:
        data, samples = Path(f"{given.data}{seed}"), given.out / f"seed{seed}" / "samples"
        points = final_checkpoints(given.out, data, seed, given.methods, given.step)
        counts = sample_all(
            PROOFS, points, samples, data, Sampling(given.theorems, given.num_samples, seed, given.jobs)
        )
        results[seed] = SeedResult(
            read_heldout(data)[: given.theorems],
            {point.run: point for point in points},
            samples,
            {point.run: counts[point.name] for point in points},
        )
    settings = {name: str(value) for name, value in vars(given).items() if name not in ("out", "data", "jobs")}
    print(write_report(results, given.out, given.k, settings))
    print(f"report: {given.out / 'report' / 'report.md'}")
    return 0
