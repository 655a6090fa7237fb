"""pass@k evaluation: sample a model, grade the samples, report, compare. All can be interrupted and repeated.

    verl-fgrpo eval sample  --run runs/grpo --model MODEL --problems data/math500.jsonl --backend vllm
    verl-fgrpo eval grade   --run runs/grpo
    verl-fgrpo eval report  --runs GRPO=runs/grpo F-GRPO=runs/fgrpo --out report
    verl-fgrpo eval compare --base GRPO=runs/grpo --focal F-GRPO=runs/fgrpo --out comparison
    verl-fgrpo eval power   --effect 1.0 --k 64        how many samples show which difference
    verl-fgrpo eval nll --help      drift of rare correct solutions

A run is one folder:

RUN/problems.jsonl   the problems sampled
RUN/samples/         `samples.SampleStore`
RUN/verdicts/        `samples.VerdictStore`
"""

from collections.abc import Sequence

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.evaluation import (
    compare_command,
    grade_command,
    merge_command,
    power,
    rare_nll,
    report_command,
    sample_command,
)


def main(arguments: Sequence[str]) -> None:
    """Run one of the commands."""
    parser = command_parser("eval", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (sample_command, grade_command, report_command, compare_command, power, merge_command, rare_nll):
        module.add_parser(commands)
    options = parser.parse_args(arguments)
    options.run_command(options)
