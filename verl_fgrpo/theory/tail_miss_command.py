"""How often does a group update a prompt without having seen its rare correct solutions? (arXiv 2602.06717, Lemma 3.1)

For one prompt, its success rate and the share of correct answers that are rare being known:

    verl-fgrpo tail-miss --success-rate 0.3 --rare-share 0.1 --group-size 8

For a training run, from verl's rollout dumps (trainer.rollout_data_dir) or graded samples, before and after:

    verl-fgrpo tail-miss --run rollouts/ --compare-steps 10     # first 10 steps against the last 10
    verl-fgrpo tail-miss --before base.parquet --after trained.parquet --group-size 8
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from verl_fgrpo.core.command import COUNT, command_parser
from verl_fgrpo.core.dumps import dump_files
from verl_fgrpo.core.tables import markdown_table
from verl_fgrpo.core.tail_miss import activity_probability, peak_group_size, safe_group_sizes, tail_miss_probability
from verl_fgrpo.theory.rollouts import DangerReport, danger_report, danger_zone, read_success_counts, risk_of_prompts


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and print the answer."""
    parser = command_parser("tail-miss", __doc__)
    parser.add_argument("--success-rate", type=float, help="mu: probability that one rollout is correct")
    parser.add_argument("--rare-share", type=float, default=0.1, help="share of the correct mass that is rare (0.1)")
    parser.add_argument("--group-size", type=COUNT, help="N, rollouts per prompt; of dumps, default: the one seen")
    parser.add_argument("--target-risk", type=float, default=0.1, help="risk you would accept (0.1)")
    parser.add_argument("--run", type=Path, help="rollout dump folder, or graded samples")
    parser.add_argument("--compare-steps", type=COUNT, help="with --run: first and last K steps (default: all as one)")
    parser.add_argument("--before", type=Path, help="rollout dump folder or graded samples before training")
    parser.add_argument("--after", type=Path, help="the same after training")
    parser.add_argument("--success-threshold", type=float, default=0.5, help="a score above it is correct (0.5)")
    parser.add_argument("--danger", type=float, default=0.5, help="risk above which a prompt is in danger (0.5)")
    parser.add_argument("--figure", type=Path, help="also draw the success rates (.png, .svg or .pdf)")
    args = parser.parse_args(arguments)

    modes = [args.success_rate is not None, args.run is not None, args.before is not None or args.after is not None]
    if sum(modes) != 1:
        parser.error("give one of --success-rate, --run, or --before with --after")
    if (args.before is None) != (args.after is None):
        parser.error("--before and --after go together")
    if args.compare_steps is not None and args.run is None:
        parser.error("--compare-steps goes with --run")
    if args.success_rate is None:
        describe_data(args)
    elif args.group_size is None:
        parser.error("--success-rate needs --group-size")
    else:
        print(describe_prompt(args.success_rate, args.rare_share, args.group_size, args.target_risk))


def describe_prompt(success_rate: float, rare_share: float, group_size: int, target_risk: float) -> str:
    """Risk of one prompt in words."""
    tau, mu = rare_share * success_rate, success_rate
    risk = float(risk_of_prompts(mu, rare_share, group_size))
    active = float(activity_probability(mu, group_size))
    lines = [
        f"success rate {mu:g}, of it {rare_share:.0%} rare (probability {tau:g} a rollout), group size {group_size}",
        f"  group is active (some right, some wrong)       {active:7.2%}",
        f"  active, and no rare correct rollout in it      {risk:7.2%}   <- tail-miss risk",
    ]
    if active > 0:
        lines.append(f"  of the groups that update, those that miss it  {risk / active:7.2%}")
    if not 0 < tau < mu < 1:
        return "\n".join([*lines, "  no worst group size: the risk does not rise and fall at this setting"])
    worst = peak_group_size(tau, mu)
    highest = float(tail_miss_probability(tau, mu, worst))
    lines.append(f"  worst group size                               {worst:7d}   (risk {highest:.2%})")
    safe = safe_group_sizes(tau, mu, target_risk)
    if safe.at_most is None:
        lines.append(f"  risk stays at or below {target_risk:.0%} at every group size")
    else:
        lines.append(
            f"  for a risk of at most {target_risk:.0%}                   {safe.at_least:7d}   or more rollouts"
        )
        if safe.at_most >= 2:
            lines.append(f"      (or at most {safe.at_most}: such groups are seldom active at all)")
    return "\n".join(lines)


def describe_data(args: argparse.Namespace) -> None:
    """Read the sources, print the table, draw the figure if asked."""
    sources = {
        name: read_success_counts(path, steps=steps, success_threshold=args.success_threshold)
        for name, (path, steps) in _sources(args).items()
    }
    options = {"rare_share": args.rare_share, "group_size": args.group_size, "danger": args.danger}
    reports = {name: danger_report(counts, **options) for name, counts in sources.items()}
    if len(sources) == 2:
        before, after = sources.values()
        common = set(before.prompts) & set(after.prompts)
        if common and not len(common) == len(before.prompts) == len(after.prompts):
            for name, counts in list(sources.items()):
                reports[f"{name}*"] = danger_report(counts.only(common), **options)
    print(table(reports))
    if any(name.endswith("*") for name in reports):
        print("* only prompts that occur in both")
    group_size = next(iter(reports.values())).group_size
    zone = danger_zone(args.rare_share, group_size, args.danger)
    where = "none" if zone is None else f"success rates {zone[0]:.3f} to {zone[1]:.3f}"
    print(
        f"danger zone: more than {args.danger:.0%} of groups of {group_size} update the prompt and miss the rarest "
        f"{args.rare_share:.0%} of its correct answers: {where}"
    )
    few = min(int(np.median(counts.num_rollouts)) for counts in sources.values())
    print(
        f"success rates are estimates from {few} rollouts a prompt (median): standard error up to {0.5 / few**0.5:.2f}"
    )
    if args.figure is not None:
        from verl_fgrpo.core.figures import save_figure
        from verl_fgrpo.theory.figures import success_rate_figure

        figure = success_rate_figure(sources, rare_share=args.rare_share, group_size=group_size, danger=args.danger)
        print(*save_figure(figure, args.figure))


def _sources(args: argparse.Namespace) -> dict[str, tuple[Path, list[int] | None]]:
    """By name: rollout dumps or graded samples, and which steps of them (None: all)."""
    for path in (args.run, args.before, args.after):
        if path is not None and path.exists() and args.group_size is None and not dump_files(path):
            raise ValueError(f"--group-size is needed: graded samples ({path}) do not tell the group size of training")
    if args.run is None:
        return {"before": (args.before, None), "after": (args.after, None)}
    if args.compare_steps is None:
        return {"all rollouts": (args.run, None)}
    steps, k = list(dump_files(args.run)), args.compare_steps
    if not 1 <= k <= len(steps) // 2:
        raise ValueError(
            f"--compare-steps must lie in 1..{len(steps) // 2}: {args.run} holds {len(steps)} steps, got {k}"
        )
    count = "step" if k == 1 else f"{k} steps"
    return {f"first {count}": (args.run, steps[:k]), f"last {count}": (args.run, steps[-k:])}


def table(reports: dict[str, DangerReport]) -> str:
    """The reports side by side, as Markdown."""
    told = (
        ("prompts", "num_prompts", "d"),
        ("group size", "group_size", "d"),
        ("mean success rate", "mean_success_rate", ".3f"),
        ("never solved", "share_never_solved", ".1%"),
        ("always solved", "share_always_solved", ".1%"),
        ("in the danger zone", "share_in_danger", ".1%"),
        ("mean tail-miss risk", "mean_risk", ".1%"),
    )
    rows = [[label, *(format(getattr(one, name), form) for one in reports.values())] for label, name, form in told]
    for tenth in range(10):
        shares = [f"{report.histogram[tenth] / report.num_prompts:.1%}" for report in reports.values()]
        rows.append([f"success rate {tenth / 10:.1f}-{(tenth + 1) / 10:.1f}", *shares])
    return markdown_table(["", *reports], rows)
