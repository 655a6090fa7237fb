"""Success rates and focal weights of a verl run, recomputed from its rollout dumps, against what the run logged.

    verl-fgrpo audit RUN --focal-gamma 0.5                        also a folder of STEP.jsonl (trainer.rollout_data_dir)
    verl-fgrpo audit RUN --focal-gamma 0.5 --csv groups.csv --figure audit.png
    verl-fgrpo audit RUN --focal-gamma 1 --threshold 0 --threshold-by-source code=0.99

For any run of verl, with F-GRPO or without: what would the weight (1 - mu)^gamma have done? Exit code 1 if the run
logged focal/weight_mean and it differs by more than 1e-6 at any step.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from verl_fgrpo.core.command import command_parser, finite
from verl_fgrpo.core.dumps import DumpRow, Group, find_dumps, read_groups, read_whole
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.numbers import check_gamma
from verl_fgrpo.core.passk import pass_at_k
from verl_fgrpo.core.sources import PromptSources, run_files
from verl_fgrpo.core.tables import csv_text, markdown_table
from verl_fgrpo.core.tail_miss import tail_miss_estimate
from verl_fgrpo.methods.settings import FocalConfig
from verl_fgrpo.runs.logged import logged_values

TOLERANCE = 1e-6
METRIC = "focal/weight_mean"
BINS = ("mu = 0", "to 1/4", "to 1/2", "to 3/4", "under 1", "mu = 1")
SHOWN_GROUPS = 64  # more are in the CSV alone
BLOCKS, POINTS = 10, 25  # lines of the table and points of the figure, at most


@dataclass(frozen=True)
class AuditedGroup:
    """One group and its weight; the columns of the CSV."""

    step: int  # this and the next three: as in `core.dumps.Group`
    uid: str
    problem_id: str
    data_source: str | None
    rollouts: int  # N, sessions counted once, without padding
    correct: int  # X
    success_rate: float  # mu = X / N, or by the mean reward
    weight: float  # (1 - mu) ** gamma
    active: bool  # the scores differ, so the group has advantages
    unexplained: bool  # active, although mu is 0 or 1: what tells success and what gives the reward disagree
    magnitude: float  # sum over rollouts of |A| before weighting, A = (R - mean R) / (std R + 1e-6)


@dataclass(frozen=True)
class StepSummary:
    """Some steps together; shares and means are over groups."""

    first: int
    last: int
    groups: int
    success_rate: float
    weight: float
    active: float
    unexplained: int
    update_scale: float  # sum g |A| / sum |A|, each rollout once; NaN without an active group
    tail_miss_risk: float
    bins: tuple[float, ...]


def audit_group(group: Group, gamma: float, rewards: tuple[float, float] | None = None) -> AuditedGroup:
    """Success rate and weight of a group (arXiv 2602.06717, eq. 11 and 12).

    Args:
        group: from the dump.
        gamma: focal exponent.
        rewards: (wrong, correct) of the official keys: mu = clamp((mean R - Rw) / (Rc - Rw), 0, 1).
    """
    scores = np.array(group.scores)
    mu = group.success_rate
    if rewards is not None:
        wrong, correct = rewards
        mu = float(np.clip((scores.mean() - wrong) / (correct - wrong), 0.0, 1.0))
    deviation = scores.std(ddof=1) if group.size > 1 else 0.0
    return AuditedGroup(
        step=group.step,
        uid=group.uid,
        problem_id=group.problem_id,
        data_source=group.data_source,
        rollouts=group.size,
        correct=group.num_correct,
        success_rate=mu,
        weight=float((1.0 - mu) ** gamma),
        active=group.is_active,
        unexplained=group.is_active and mu in (0.0, 1.0),
        magnitude=float(np.abs(scores - scores.mean()).sum() / (deviation + 1e-6)),
    )


def summarize(groups: Sequence[AuditedGroup]) -> StepSummary:
    """What the weight does to these groups."""
    mu = np.array([group.success_rate for group in groups])
    weight, magnitude = (np.array([getattr(group, name) for group in groups]) for name in ("weight", "magnitude"))
    correct, rollouts = (np.array([getattr(group, name) for group in groups]) for name in ("correct", "rollouts"))
    places = np.where(mu == 1, 5, np.ceil(4 * mu).astype(int))
    return StepSummary(
        first=min(group.step for group in groups),
        last=max(group.step for group in groups),
        groups=len(groups),
        success_rate=float(mu.mean()),
        weight=float(weight.mean()),
        active=float(np.mean([group.active for group in groups])),
        unexplained=sum(group.unexplained for group in groups),
        update_scale=float((weight * magnitude).sum() / magnitude.sum()) if magnitude.any() else math.nan,
        tail_miss_risk=float(np.mean(tail_miss_estimate(correct, rollouts))),
        bins=tuple((np.bincount(places, minlength=6) / len(groups)).tolist()),
    )


def disagreements(weights: Mapping[int, float], logged: Mapping[int, float]) -> list[str]:
    """Steps whose logged mean weight differs from the dumps' by more than 1e-6, one line each."""
    return [
        f"step {step}: logged {logged[step]:.8f}, from the dump {weights[step]:.8f}"
        for step in sorted(weights.keys() & logged.keys())
        if not abs(logged[step] - weights[step]) <= TOLERANCE
    ]


def blocks_of(by_step: Mapping[int, Sequence[AuditedGroup]], most: int) -> list[list[AuditedGroup]]:
    """The groups of neighbouring steps together, in at most so many blocks."""
    parts = np.array_split(list(by_step), min(most, len(by_step)))
    return [[group for step in part for group in by_step[int(step)]] for part in parts]


def audit_figure(by_step: Mapping[int, Sequence[AuditedGroup]], logged: Mapping[int, float]) -> Any:
    """Four panels over training: success rates, weight and update scale, pass@1 and pass@N, groups that learn."""
    import matplotlib

    from verl_fgrpo.core.figures import COLOURS, GREY, figure_style, new_figure

    blocks = blocks_of(by_step, POINTS)
    points = [summarize(block) for block in blocks]
    x = [(point.first + point.last) / 2 for point in points]
    size = max(group.rollouts for block in blocks for group in block)
    shades = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.95, len(BINS)))
    with figure_style():
        figure, (rates, weight, passk, share) = new_figure(9.6, 6.2, 2, 2, sharex=True)
        rates.stackplot(x, np.array([point.bins for point in points]).T, colors=shades, labels=BINS)
        rates.set(title="Success rate mu of the groups", ylabel="share of groups", ylim=(0, 1))
        rates.legend(ncols=len(BINS), loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=8, handlelength=1)
        common = sorted(by_step.keys() & logged.keys())
        if common:
            logs = [logged[step] for step in common]
            weight.plot(common, logs, ".", color=GREY, markersize=4, label=f"logged {METRIC}, every step")
        weight.plot(x, [point.weight for point in points], color=COLOURS[0], label="mean weight")
        weight.plot(x, [point.update_scale for point in points], color=COLOURS[1], label="update scale")
        weight.set(title="What the focal weight does")
        for number, k in enumerate(sorted({1, size})):
            values = [_train_pass_at_k(block, k) for block in blocks]
            passk.plot(x, values, color=COLOURS[2 * number], label=f"pass@{k}")
        passk.set(title="Training prompts (other prompts every step)", xlabel="step")
        for name, colour in (("active", COLOURS[4]), ("tail_miss_risk", COLOURS[3])):
            values = [getattr(point, name) for point in points]
            share.plot(x, values, color=colour, label=name.replace("_", " "))
        share.set(title="Share of groups that learn, and their tail-miss risk", xlabel="step")
        for axes in (weight, passk, share):
            axes.set_ylim(0, 1.05)
            axes.legend()
    return figure


def _train_pass_at_k(groups: Iterable[AuditedGroup], k: int) -> float:
    enough = [group for group in groups if group.rollouts >= k]
    if not enough:
        return math.nan
    return float(np.mean(pass_at_k([group.rollouts for group in enough], [group.correct for group in enough], k)))


def main(arguments: Sequence[str]) -> int:
    """Audit a run; 1 if its log disagrees."""
    given = _parser().parse_args(arguments)
    settings = _settings(given)
    threshold = _threshold(given, settings)
    found = read_whole(find_dumps(given.run, "rollout"), lambda path: read_groups(path, threshold))
    by_step = {
        step: [audit_group(group, settings.gamma, settings.rewards) for group in groups]
        for step, groups in found.items()
    }
    weights = {step: float(np.mean([group.weight for group in groups])) for step, groups in by_step.items()}
    logged, source = logged_values(given.run, METRIC, given.log)
    wrong = disagreements(weights, logged)
    print(_describe(by_step, given))
    print(_verdict(weights, logged, source, wrong))
    if given.csv is not None:
        write_atomic(given.csv, csv_text([vars(group) for groups in by_step.values() for group in groups]))
        print(given.csv)
    if given.figure is not None:
        from verl_fgrpo.core.figures import save_figure

        print(*save_figure(audit_figure(by_step, logged), given.figure), sep="\n")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("audit", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run, or of its rollout dumps")
    parser.add_argument("--focal-gamma", type=float, required=True, help="gamma of the run, or the one to try")
    parser.add_argument("--threshold", type=float, default=0.5, help="a score above it is correct, without acc (0.5)")
    parser.add_argument("--threshold-by-source", nargs="+", default=[], metavar="SOURCE=T", help="of single sources")
    parser.add_argument("--data-file", type=Path, nargs="+", help="parquet with sources; default: RUN/config.yaml")
    parser.add_argument("--reward-correct", type=float, help="f_grpo_reward_correct: success rate by the mean reward")
    parser.add_argument("--reward-wrong", type=float, help="f_grpo_reward_wrong")
    parser.add_argument("--log", type=Path, help="verl's metrics (.jsonl) or console log; default: sought in the run")
    parser.add_argument("--csv", type=Path, help="write one row a group")
    parser.add_argument("--figure", type=Path, help="draw it (.png, .svg or .pdf)")
    return parser


def _settings(given: argparse.Namespace) -> FocalConfig:
    """The settings of the run as the options tell them."""
    by_source: dict[str, float] = {}
    for entry in given.threshold_by_source:
        source, _, value = entry.rpartition("=")
        try:
            by_source[source] = finite(value)
        except (ValueError, argparse.ArgumentTypeError):
            source = ""
        if not source:
            raise ValueError(f"--threshold-by-source is {entry!r}, but it must be SOURCE=NUMBER, e.g. openai/gsm8k=0.5")
    rewards = None
    if given.reward_correct is not None or given.reward_wrong is not None:
        wrong, correct = given.reward_wrong or 0.0, 1.0 if given.reward_correct is None else given.reward_correct
        rewards = wrong, correct
        if not correct > wrong:
            raise ValueError(f"--reward-correct is {correct:g}, but it must exceed --reward-wrong, which is {wrong:g}")
    gamma = check_gamma(given.focal_gamma, "--focal-gamma")
    return FocalConfig(gamma, "", given.threshold, by_source, rewards)


def _threshold(given: argparse.Namespace, settings: FocalConfig) -> Callable[[DumpRow], float]:
    """The threshold of a row: that of its data source, which the row tells or the data file."""
    by_source = settings.threshold_by_source
    files = given.data_file or run_files(given.run, "data.train_files") if by_source else []
    sources = PromptSources.of_files(files) if files else None

    @cache
    def of_problem(prompt: str, gold: str) -> float:
        if sources is None:
            raise ValueError("the dumps do not tell data sources; name the training file with --data-file")
        found = {settings.threshold_of(source) for source in sources.of(prompt, json.loads(gold))}
        if len(found) > 1:
            raise ValueError(f"the prompt {prompt[-200:]!r} is of several data sources with thresholds {sorted(found)}")
        return found.pop()

    def of_row(row: DumpRow) -> float:
        if row.data_source is None and by_source and row.acc not in (0.0, 1.0):  # else acc decides
            return of_problem(row.input, json.dumps(row.gts))
        return settings.threshold_of(row.data_source)

    return of_row


def _describe(by_step: Mapping[int, Sequence[AuditedGroup]], given: argparse.Namespace) -> str:
    groups = [group for found in by_step.values() for group in found]
    everything = summarize(groups)
    sizes = [group.rollouts for group in groups]
    size = f"{sizes[0]}" if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
    lines = [
        f"{len(by_step)} steps ({everything.first} to {everything.last}), {len(groups)} groups, {sum(sizes)} rollouts, "
        f"group size {size}",
        f"success rate         {everything.success_rate:.6f}  mean over groups",
        f"weight               {everything.weight:.6f}  mean over groups of (1 - mu) ^ {given.focal_gamma:g}",
        f"update scale         {everything.update_scale:.6f}  against gamma 0; every rollout counts once",
        f"tail-miss risk       {everything.tail_miss_risk:.6f}  a group updates and misses the rarest tenth",
        f"active groups        {sum(group.active for group in groups)}  their scores differ",
        f"unexplained groups   {everything.unexplained}  active, although the success rate is 0 or 1",
    ]
    if everything.unexplained:
        lines.append("                     there the threshold tells nothing: is it between wrong and right scores?")
    if len(groups) <= SHOWN_GROUPS:
        columns = ["step", "group", "data source", "rollouts", "correct", "success rate", "weight"]
        rows = [
            [g.step, g.uid, g.data_source, g.rollouts, g.correct, f"{g.success_rate:.6f}", f"{g.weight:.6f}"]
            for g in groups
        ]
        lines += ["", markdown_table(columns, rows, left=3).rstrip()]
    return "\n".join([*lines, "", _over_training(by_step)])


def _over_training(by_step: Mapping[int, Sequence[AuditedGroup]]) -> str:
    """Histogram of success rates and the weight, over blocks of steps."""
    rows = []
    for block in map(summarize, blocks_of(by_step, BLOCKS)):
        steps = f"{block.first}" if block.first == block.last else f"{block.first} to {block.last}"
        shares = [f"{100 * share:.0f}%" for share in block.bins]
        numbers = [f"{block.weight:.3f}", f"{block.update_scale:.3f}", block.unexplained]
        rows.append([steps, f"{block.success_rate:.3f}", *shares, *numbers])
    return markdown_table(["steps", "success rate", *BINS, "weight", "update scale", "unexplained"], rows)


def _verdict(weights: Mapping[int, float], logged: Mapping[int, float], source: str, wrong: Sequence[str]) -> str:
    common = sorted(weights.keys() & logged.keys())
    if not common:
        return f"log: nothing to compare, {f'{source} holds none of these steps' if logged else source}"
    told = f"{METRIC} of {len(common)} steps ({common[0]} to {common[-1]}) in {source}"
    if missing := sorted(weights.keys() - logged.keys()):
        first = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        told += f"; {len(missing)} steps are not logged there ({first})"
    if not wrong:
        return f"log: agrees within {TOLERANCE:g}: {told}"
    more = [f"... and {len(wrong) - 10} more"] if len(wrong) > 10 else []
    advice = (
        "Is --focal-gamma that of the run? If its reward function returns acc, which v1 rollout dumps lack, give "
        "a --threshold that tells right scores from wrong ones."
    )
    return "\n".join([f"log: DISAGREES at {len(wrong)} steps: {told}", *wrong[:10], *more, advice])
