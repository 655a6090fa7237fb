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
    power_command,
    report_command,
    sample_command,
)


def main(arguments: Sequence[str]) -> None:
    """Run one of the commands."""
    if arguments and arguments[0] == "nll":
        from verl_fgrpo.evaluation.rare_nll_command import main as nll

        nll(list(arguments[1:]))
        return
    parser = command_parser("eval", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (sample_command, grade_command, report_command, compare_command, power_command, merge_command):
        module.add_parser(commands)
    commands.add_parser("nll", help="drift of rare correct solutions (dNLL_rare)")
    options = parser.parse_args(arguments)
    options.run_command(options)
