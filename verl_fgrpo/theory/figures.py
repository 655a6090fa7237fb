"""Draw figures 1a, 2, 3, 4 and 5 of arXiv 2602.06717 as PNG and SVG; here too: the success rates of a run.

    verl-fgrpo simulate && verl-fgrpo figures
    verl-fgrpo figures --quick       # runs a small simulation itself first
    verl-fgrpo figures --methods     # gradient_mass alone: every method's update against the success rate; needs verl

Files: tail_miss (figure 1a), simulation (2), tail_miss_by_success_rate (3), advantage_scale (4) and
simulation_tail_miss (5); simulation.csv holds the last step of every run, simulation.csv.json its settings.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.command import PROCESSES, command_parser
from verl_fgrpo.core.figures import COLOURS, GREY, figure_style, new_figure, save_figure
from verl_fgrpo.core.files import write_atomic
from verl_fgrpo.core.numbers import check_gamma
from verl_fgrpo.core.tail_miss import peak_group_size, tail_miss_probability
from verl_fgrpo.theory.gradient_mass import gradient_mass_figure
from verl_fgrpo.theory.rollouts import SuccessCounts, danger_report, danger_zone
from verl_fgrpo.theory.simulation import published_logits
from verl_fgrpo.theory.sweep import (
    COLUMNS,
    QUICK,
    default_output,
    final_rows,
    run_sweep,
    settings_path,
    stored_runs,
    stored_settings,
)

Figure = Any  # matplotlib ships no types that mypy may follow here
RARE_SHARES = (0.01, 0.05, 0.1, 0.2)
SUCCESS_RATES = (0.8, 0.5, 0.2)
GAMMA_COLOURS = {0.0: COLOURS[1], 0.5: COLOURS[2], 1.0: COLOURS[0]}
#: (group_size, focal_gamma) -> (q_pos, m_ret) at the last step, each [seeds]
Outcomes = Mapping[tuple[int, float], NDArray[np.float64]]


def mean_absolute_advantage(mu: ArrayLike, focal_gamma: float) -> NDArray[np.float64]:
    """Mean |advantage| of a GRPO group with success rate mu, after focal weighting.

        (1 - mu)^gamma * 2 * sqrt(mu * (1 - mu))                          (arXiv 2602.06717, eq. 3, 12; Fig. 4)

    GRPO gives sqrt((1 - mu) / mu) to the share mu of correct rollouts and -sqrt(mu / (1 - mu)) to the others
    (population standard deviation, eps = 0). Its mean over mu uniform on [0, 1], relative to gamma = 0, is
    `core.focal.update_scale(gamma)`.

    Args:
        mu: success rate of the group in [0, 1]; any shape.
        focal_gamma: gamma >= 0.

    Returns:
        float64 array of mu's shape; 0 at mu = 0 and mu = 1.

    Raises:
        ValueError: mu outside [0, 1], gamma negative or not finite.
    """
    mu_arr = np.asarray(mu, dtype=np.float64)
    if not np.all((mu_arr >= 0) & (mu_arr <= 1)):
        raise ValueError(f"mu must be a success rate in [0, 1], got {mu!r}")
    gamma = check_gamma(focal_gamma, "focal_gamma")
    return np.asarray((1.0 - mu_arr) ** gamma * 2.0 * np.sqrt(mu_arr * (1.0 - mu_arr)), dtype=np.float64)


@figure_style()
def tail_miss_figure(success_rates: Sequence[float] = (0.5,)) -> Figure:
    """Figures 1a (one success rate) and 3 (several): tail-miss probability against group size, peaks starred."""
    sizes = np.arange(1, 513)
    several = len(success_rates) > 1
    width, height = (3.4 * len(success_rates) + 1.6, 3.8) if several else (6.6, 4.0)
    figure, panels = new_figure(width, height, columns=len(success_rates), sharey=True)
    for axes, mu in zip(panels, success_rates, strict=True):
        for share, colour in zip(RARE_SHARES, COLOURS, strict=False):
            tau = share * mu
            axes.plot(sizes, tail_miss_probability(tau, mu, sizes), color=colour, label=f"{share:.0%}")
            peak, top = _star_worst(axes, tau, mu, colour)
            axes.annotate(
                f"{peak}", (peak, top), (0, 6), textcoords="offset points", ha="center", color=colour, fontsize=8
            )
        _group_size_axis(axes, 512)
        axes.set(ylim=(0, 1.08), title=f"success rate {mu:g}" if several else "")
    panels[0].set_ylabel("probability that the group updates the policy\nand holds no rare correct rollout")
    panels[-1].legend(title="rare share of\ncorrect answers", loc="center left", bbox_to_anchor=(1.0, 0.5))
    title = "Usual group sizes miss rare correct answers (stars: worst group size)"
    figure.suptitle(title if several else f"{title}\nfor a prompt solved {success_rates[0]:.0%} of the time")
    return figure


@figure_style()
def advantage_scale_figure() -> Figure:
    """Figure 4: mean |advantage| of a group against its success rate."""
    mu = np.linspace(0, 1, 501)
    figure, (axes,) = new_figure(6.0, 4.0)
    for gamma, colour in GAMMA_COLOURS.items():
        scale = mean_absolute_advantage(mu, gamma)
        name = "focal_gamma = 0 (plain GRPO)" if gamma == 0 else f"focal_gamma = {gamma:g}"
        axes.plot(mu, scale, color=colour, label=name)
        axes.plot(mu[np.argmax(scale)], np.max(scale), "o", color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1.05))
    axes.set(xlabel="success rate of the group", ylabel="mean |advantage| of its rollouts")
    axes.legend(loc="lower center")
    figure.suptitle("Focal weighting moves the update towards hard prompts (dots: largest)")
    return figure


@figure_style()
def simulation_tail_miss_figure() -> Figure:
    """Figure 5: tail-miss probability of the simulation's initial policy, for sets of its correct actions."""
    p = _softmax(published_logits())
    mu = float(p[:10_000].sum())
    sets = {
        "one correct action": p[1],
        "the anchor (likeliest correct action)": p[0],
        "1% of the correct actions": 100 * p[1],
        "10% of the correct actions": 1000 * p[1],
    }
    sizes = np.unique(np.geomspace(1, 131_072, 600).astype(int))
    figure, (axes,) = new_figure(7.0, 4.8)
    for (name, tau), colour in zip(sets.items(), COLOURS, strict=False):
        axes.plot(sizes, tail_miss_probability(tau, mu, sizes), color=colour, label=f"{name} (p = {tau:.2g})")
        _star_worst(axes, float(tau), mu, colour)
    _group_size_axis(axes, 131_072)
    axes.set(ylim=(0, 1.06), ylabel="probability that a group is active\nand holds none of the set")
    figure.legend(loc="outside lower center", ncols=2, title=f"missed set (success rate of the policy: {mu:.2f})")
    figure.suptitle("A group misses any one of 10,000 correct actions until it is huge (stars: worst)")
    return figure


def read_outcomes(path: Path) -> dict[tuple[int, float], NDArray[np.float64]]:
    """The last step of every run of a sweep's CSV: {(group_size, focal_gamma): (q_pos, m_ret), each [seeds]}.

    Raises:
        FileNotFoundError: no CSV there; the message says how to make it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: make it with verl-fgrpo simulate")
    q_pos, m_ret = COLUMNS.index("q_pos"), COLUMNS.index("m_ret")
    ends: defaultdict[tuple[int, float], list[tuple[float, float]]] = defaultdict(list)
    for (group_size, gamma, _), rows in stored_runs(path).items():
        ends[group_size, gamma].append((float(rows[-1][q_pos]), float(rows[-1][m_ret])))
    return {key: np.array(seeds).T for key, seeds in ends.items()}


@figure_style()
def simulation_figure(outcomes: Outcomes, settings: Mapping[str, Any]) -> Figure:
    """Figure 2 at the last step: total correct mass, and retained correct mass, against the group size.

    Lines are means over seeds, bands reach from the lowest to the highest seed. A panel's title states the paper's
    finding only if the sweep shows it in every mean.

    Args:
        outcomes: from `read_outcomes`.
        settings: of the sweep: steps, num_actions, num_correct and the three logits.

    Raises:
        ValueError: the sweep lacks focal_gamma 0 (the baseline).
    """
    gammas = sorted({gamma for _, gamma in outcomes})
    sizes = sorted({size for size, _ in outcomes})
    if 0.0 not in gammas:
        raise ValueError(f"the sweep holds focal_gamma {gammas}, not the baseline 0: simulate it too")
    logits = {name: settings[f"{name}_logit"] for name in ("anchor", "correct", "wrong")}
    actions, correct = settings["num_actions"], settings["num_correct"]
    start = float(_softmax(published_logits(actions, correct, **logits))[:correct].sum())
    means = {key: values.mean(1) for key, values in outcomes.items()}
    rises = all(q_pos > start for q_pos, _ in means.values())
    keeps_more = len(gammas) > 1 and all(
        m_ret >= means[size, 0.0][1] - 1e-3 for (size, _), (_, m_ret) in means.items() if (size, 0.0) in means
    )
    titles = (
        "Training makes correct actions likelier ..." if rises else "Total correct mass",
        "... and focal weighting forgets fewer of them" if keeps_more else "Retained correct mass",
    )
    labels = ("total probability of correct actions", "share of initial correct mass kept")
    figure, panels = new_figure(9.2, 4.0, columns=2)
    for number, axes in enumerate(panels):
        for index, gamma in enumerate(gammas):
            colour = GAMMA_COLOURS.get(gamma, COLOURS[index % len(COLOURS)])
            own = [size for size in sizes if (size, gamma) in outcomes]
            ends = [outcomes[size, gamma][number] for size in own]
            name = f"focal_gamma = {gamma:g}" + (" (unweighted)" if gamma == 0 else "")
            axes.plot(own, [e.mean() for e in ends], "o-", color=colour, markersize=4, label=name)
            axes.fill_between(own, [e.min() for e in ends], [e.max() for e in ends], color=colour, alpha=0.2, lw=0)
        axes.axhline(start if number == 0 else 1.0, color=GREY, linestyle=":", label="before training")
        _group_size_axis(axes, sizes[-1], first=sizes[0])
        axes.set(title=titles[number], ylabel=labels[number], ylim=(0, 1.04))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(gammas) + 1)
    seeds = max(values.shape[1] for values in outcomes.values())
    bands = f"means and range of {seeds} seeds" if seeds > 1 else "1 seed"
    figure.suptitle(
        f"One policy over {actions:,} actions, {correct:,} of them correct, after {settings['steps']:,} steps ({bands})"
    )
    return figure


@figure_style()
def success_rate_figure(
    sources: Mapping[str, SuccessCounts], *, rare_share: float, group_size: int, danger: float = 0.5
) -> Figure:
    """Histogram of success rates per prompt, one per source, with the danger zone (`rollouts.danger_zone`) shaded."""
    zone = danger_zone(rare_share, group_size, danger)
    figure, (axes,) = new_figure(6.5, 4.0)
    if zone is not None:
        label = f"danger zone: over {danger:.0%} of groups of {group_size}\nupdate and miss the rarest {rare_share:.0%}"
        axes.axvspan(*zone, color="#f2d5c4", label=label, zorder=0)
    width = 0.1 / len(sources)
    for index, (name, counts) in enumerate(sources.items()):
        report = danger_report(counts, rare_share=rare_share, group_size=group_size, danger=danger)
        left = np.arange(10) / 10 + index * width
        shares = 100 * report.histogram / report.num_prompts
        axes.bar(left, shares, width * 0.92, align="edge", color=COLOURS[index % len(COLOURS)], label=name)
    axes.set(xlim=(0, 1), xticks=np.arange(11) / 10)
    axes.set(xlabel="success rate of the prompt", ylabel="share of prompts (%)")
    axes.legend(frameon=True, framealpha=0.9)  # over the shaded zone
    figure.suptitle("How often prompts are solved, and where rare correct answers get missed")
    return figure


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.exp(logits - np.max(logits))
    return np.asarray(p / p.sum())


def _star_worst(axes: Any, tau: float, mu: float, colour: str) -> tuple[int, float]:
    """Mark the worst group size; returns it and its probability."""
    peak = peak_group_size(tau, mu)
    top = float(tail_miss_probability(tau, mu, peak))
    axes.plot(peak, top, "*", color=colour, markersize=12, markeredgecolor="white")
    return peak, top


def _group_size_axis(axes: Any, last: int, first: int = 1) -> None:
    axes.set_xscale("log", base=2)
    powers = np.arange(np.ceil(np.log2(first)), np.floor(np.log2(last)) + 1, 1 if last <= 1024 else 2)
    axes.set_xticks(2.0**powers, [f"{2 ** int(p):,}" for p in powers], rotation=0 if last <= 1024 else 45)
    axes.minorticks_off()
    axes.set(xlim=(first * 0.9, last * 1.1), xlabel="group size N (rollouts per prompt)")


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and write the figures."""
    parser = command_parser("figures", __doc__)
    parser.add_argument("--sweep", type=Path, help="CSV of verl-fgrpo simulate")
    parser.add_argument("--output", type=Path, default=Path("outputs/theory/figures"), help="folder")
    parser.add_argument("--quick", action="store_true", help="simulate 5 group sizes and 1 seed first, if not yet done")
    parser.add_argument("--workers", type=PROCESSES, default=os.cpu_count() or 1, help="processes, with --quick")
    parser.add_argument("--methods", action="store_true", help="draw gradient_mass alone, from verl's estimators")
    args = parser.parse_args(arguments)

    if args.methods:
        print(*save_figure(gradient_mass_figure(), args.output / "gradient_mass"), sep="\n")
        return
    sweep_path = args.sweep or default_output(args.quick)
    if args.quick:
        run_sweep(QUICK, sweep_path, args.workers)
    outcomes = read_outcomes(sweep_path)
    settings = stored_settings(sweep_path)
    drawn = {
        "tail_miss": tail_miss_figure(),
        "tail_miss_by_success_rate": tail_miss_figure(SUCCESS_RATES),
        "advantage_scale": advantage_scale_figure(),
        "simulation": simulation_figure(outcomes, settings),
        "simulation_tail_miss": simulation_tail_miss_figure(),
    }
    for name, figure in drawn.items():
        print(*save_figure(figure, args.output / name), sep="\n")
    numbers = args.output / "simulation.csv"
    write_atomic(numbers, final_rows(sweep_path))
    write_atomic(settings_path(numbers), settings_path(sweep_path).read_text())
    print(numbers)
