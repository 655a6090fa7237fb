"""The paper's theory figures (arXiv 2602.06717, figures 1a, 2, 3, 4, 5) and the success rates of a run.

Every function returns a matplotlib Figure; `save_figure` writes it, `save_both` as PNG and SVG.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from verl_fgrpo.core.tail_miss import peak_group_size, tail_miss_probability
from verl_fgrpo.theory.rollouts import SuccessCounts, danger_report, danger_zone
from verl_fgrpo.theory.simulation import published_logits
from verl_fgrpo.theory.update_scale import mean_absolute_advantage

Axes = Any  # matplotlib ships no types that mypy may follow here
RARE_SHARES = (0.01, 0.05, 0.1, 0.2)
SUCCESS_RATES = (0.8, 0.5, 0.2)
# Okabe and Ito's colours: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GAMMA_COLOURS = {0.0: COLOURS[1], 0.5: COLOURS[2], 1.0: COLOURS[0]}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "verl_fgrpo",  # the same data gives the same file
    "svg.fonttype": "none",
}
Sweep = Mapping[tuple[int, float], tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write one file, replaced at once; the type follows the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    with matplotlib.rc_context(STYLE):
        no_date = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(temporary, dpi=115, metadata=no_date)
    temporary.replace(path)
    return path


def save_both(figure: Figure, path: Path) -> list[Path]:
    """Write path + ".png" and path + ".svg"."""
    return [save_figure(figure, path.with_name(path.name + ending)) for ending in (".png", ".svg")]


def tail_miss_figure(success_rates: Sequence[float] = (0.5,), max_group_size: int = 512) -> Figure:
    """Figures 1a (one success rate) and 3 (several): tail-miss probability against group size, peaks starred."""
    sizes = np.arange(1, max_group_size + 1)
    with matplotlib.rc_context(STYLE):
        several = len(success_rates) > 1
        figure = Figure(figsize=(3.4 * len(success_rates) + 1.6, 3.8) if several else (6.6, 4.0), layout="constrained")
        panels = figure.subplots(1, len(success_rates), sharey=True, squeeze=False)[0]
        for axes, mu in zip(panels, success_rates, strict=True):
            for share, colour in zip(RARE_SHARES, COLOURS, strict=False):
                tau = share * mu
                axes.plot(sizes, tail_miss_probability(tau, mu, sizes), color=colour, label=f"{share:.0%}")
                peak = peak_group_size(tau, mu)
                height = float(tail_miss_probability(tau, mu, peak))
                axes.plot(peak, height, "*", color=colour, markersize=12, markeredgecolor="white")
                axes.annotate(
                    f"{peak}", (peak, height), (0, 6), textcoords="offset points", ha="center", color=colour, fontsize=8
                )
            _group_size_axis(axes, max_group_size)
            axes.set_ylim(0, 1.08)
            axes.set_title(f"success rate {mu:g}")
        panels[0].set_ylabel("probability that the group updates the policy\nand holds no rare correct rollout")
        panels[-1].legend(title="rare share of\ncorrect answers", loc="center left", bbox_to_anchor=(1.0, 0.5))
        title = "Usual group sizes miss rare correct answers (stars: worst group size)"
        if not several:
            panels[0].set_title("")
            title += f"\nfor a prompt solved {success_rates[0]:.0%} of the time"
        figure.suptitle(title, fontsize=11)
    return figure


def advantage_scale_figure(focal_gammas: Sequence[float] = (0.0, 0.5, 1.0)) -> Figure:
    """Figure 4: mean |advantage| of a group against its success rate."""
    mu = np.linspace(0, 1, 501)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        axes = figure.subplots()
        for index, gamma in enumerate(focal_gammas):
            colour = GAMMA_COLOURS.get(gamma, COLOURS[index % len(COLOURS)])
            scale = mean_absolute_advantage(mu, gamma)
            name = "focal_gamma = 0 (plain GRPO)" if gamma == 0 else f"focal_gamma = {gamma:g}"
            axes.plot(mu, scale, color=colour, label=name)
            axes.plot(mu[np.argmax(scale)], scale.max(), "o", color=colour)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("success rate of the group")
        axes.set_ylabel("mean |advantage| of its rollouts")
        axes.legend(loc="lower center", frameon=True, framealpha=0.9)
        figure.suptitle("Focal weighting moves the update towards hard prompts (dots: largest)", fontsize=11)
    return figure


def simulation_tail_miss_figure() -> Figure:
    """Figure 5: tail-miss probability of the simulation's initial policy, for sets of its correct actions."""
    logits = published_logits()
    p = np.exp(logits - logits.max())
    p /= p.sum()
    mu = float(p[:10_000].sum())
    sets = {
        "one correct action": p[1],
        "the anchor (likeliest correct action)": p[0],
        "1% of the correct actions": 100 * p[1],
        "10% of the correct actions": 1000 * p[1],
    }
    sizes = np.unique(np.geomspace(1, 131_072, 600).astype(int))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.8), layout="constrained")
        axes = figure.subplots()
        for (name, tau), colour in zip(sets.items(), COLOURS, strict=False):
            axes.plot(sizes, tail_miss_probability(tau, mu, sizes), color=colour, label=f"{name} (p = {tau:.2g})")
            peak = peak_group_size(float(tau), mu)
            height = float(tail_miss_probability(tau, mu, peak))
            axes.plot(peak, height, "*", color=colour, markersize=12, markeredgecolor="white")
        _group_size_axis(axes, 131_072)
        axes.set_ylim(0, 1.06)
        axes.set_ylabel("probability that a group is active\nand holds none of the set")
        figure.legend(loc="outside lower center", ncols=2, title=f"missed set (success rate of the policy: {mu:.2f})")
        figure.suptitle("A group misses any one of 10,000 correct actions until it is huge (stars: worst)", fontsize=11)
    return figure


def read_sweep(
    path: Path,
) -> dict[tuple[int, float], tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Read a sweep's CSV: {(group_size, focal_gamma): (steps [T], q_pos [seeds, T], m_ret [seeds, T])}.

    Raises:
        FileNotFoundError: no CSV there; the message says how to make it.
    """
    import pandas as pd

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: make it with verl-fgrpo simulate")
    data = pd.read_csv(path)
    sweep = {}
    for (group_size, gamma), runs in data.groupby(["group_size", "focal_gamma"]):
        series = [runs.pivot(index="seed", columns="step", values=name) for name in ("q_pos", "m_ret")]
        sweep[int(group_size), float(gamma)] = (series[0].columns.to_numpy(), *(s.to_numpy() for s in series))
    return sweep


def simulation_figure(sweep: Sweep, setting: str = "", shown: Sequence[int] | None = None) -> Figure:
    """Figure 2, three panels: correct mass over steps, retained mass over steps, retained mass against the group size.

    Lines are means over seeds, bands reach from the lowest to the highest seed. A panel's title states the paper's
    finding only if the sweep shows it in every mean.

    Args:
        sweep: from `read_sweep`.
        setting: what was simulated, for the title.
        shown: group sizes of the first two panels; default the smallest, the largest and three in between.

    Raises:
        ValueError: the sweep lacks focal_gamma 0 (the baseline).
    """
    gammas = sorted({gamma for _, gamma in sweep})
    sizes = sorted({size for size, _ in sweep})
    if 0.0 not in gammas:
        raise ValueError(f"the sweep holds focal_gamma {gammas}, not the baseline 0: simulate it too")
    if shown is None:
        inner = [size for size in (32, 1024, 16384, 32768) if size in sizes[1:-1]]
        shown = [sizes[0], *inner[:3], sizes[-1]] if len(sizes) > 1 else sizes
    start = {key: (q_pos[:, 0].mean(), m_ret[:, 0].mean()) for key, (_, q_pos, m_ret) in sweep.items()}
    end = {key: (q_pos[:, -1].mean(), m_ret[:, -1].mean()) for key, (_, q_pos, m_ret) in sweep.items()}
    baseline = [end[size, 0.0][1] for size in sizes if (size, 0.0) in end]
    rises = all(end[key][0] > start[key][0] for key in end)
    collapses = min(baseline) < 0.5 * min(baseline[0], baseline[-1])
    keeps_more = len(gammas) > 1 and all(
        end[size, gamma][1] >= end[size, 0.0][1] - 1e-3 for size, gamma in end if (size, 0.0) in end
    )
    num_seeds = max(q_pos.shape[0] for _, q_pos, _ in sweep.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.0, 4.3), layout="constrained")
        over_steps = figure.subplots(1, 3)
        mass, kept, final = over_steps
        for size, colour in zip(shown, COLOURS, strict=False):
            for gamma in gammas:
                if (size, gamma) not in sweep:
                    continue
                steps, q_pos, m_ret = sweep[size, gamma]
                dashed = "-" if gamma == 0 else (0, (4, 1.5)) if gamma == gammas[-1] else ":"
                label = f"N = {size:,}" if gamma == 0 else None
                for axes, values in ((mass, q_pos), (kept, m_ret)):
                    axes.plot(steps, values.mean(0), color=colour, linestyle=dashed, label=label)
        mass.set_title("Correct actions get likelier at every size ..." if rises else "Correct mass")
        mass.set_ylabel("total probability of correct actions")
        kept.set_title("... but middle sizes forget most of them" if collapses else "Retained correct mass")
        kept.set_ylabel("share of the initial correct mass still there")
        for axes in (mass, kept):
            axes.set_xlabel("update step")
            axes.set_xlim(left=0)
        mass.set_ylim(0.6, 1.01)
        handles, labels = mass.get_legend_handles_labels()
        line = matplotlib.lines.Line2D
        handles += [line([], [], color="#555555"), line([], [], color="#555555", linestyle=(0, (4, 1.5)))]
        labels += ["focal_gamma = 0", f"focal_gamma = {gammas[-1]:g}"]
        figure.legend(handles, labels, loc="outside lower left", ncols=len(labels))
        for index, gamma in enumerate(gammas):
            colour = GAMMA_COLOURS.get(gamma, COLOURS[index % len(COLOURS)])
            own = [size for size in sizes if (size, gamma) in sweep]
            ends = [sweep[size, gamma][2][:, -1] for size in own]
            final.plot(
                own, [e.mean() for e in ends], "o-", color=colour, markersize=4, label=f"focal_gamma = {gamma:g}"
            )
            final.fill_between(own, [e.min() for e in ends], [e.max() for e in ends], color=colour, alpha=0.2, lw=0)
        last_step = int(next(iter(sweep.values()))[0][-1])
        _group_size_axis(final, sizes[-1], first=sizes[0])
        final.set_title("Focal weighting forgets less" if keeps_more else "Retained correct mass at the end")
        final.set_ylabel(f"share of the initial correct mass after {last_step:,} steps")
        final.legend(loc="center", bbox_to_anchor=(0.565, 0.75), fontsize=8, handlelength=1.2)
        for axes in (kept, final):
            axes.set_ylim(0, 1.04)
        seeds = f"{num_seeds} seeds: means, right with lowest to highest" if num_seeds > 1 else "1 seed"
        title = f"One policy trained with groups of N samples ({seeds})"
        figure.suptitle(f"{setting}: {title[0].lower()}{title[1:]}" if setting else title, fontsize=11)
    return figure


def success_rate_figure(
    sources: Mapping[str, SuccessCounts], *, rare_share: float, group_size: int, danger: float = 0.5
) -> Figure:
    """Histogram of success rates per prompt, one per source, with the danger zone shaded.

    Args:
        sources: success counts by name, for instance before and after training.
        rare_share, group_size, danger: see `rollouts.danger_report`.
    """
    zone = danger_zone(rare_share, group_size, danger)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.0), layout="constrained")
        axes = figure.subplots()
        if zone is not None:
            label = (
                f"danger zone: over {danger:.0%} of groups of {group_size}\nupdate and miss the rarest {rare_share:.0%}"
            )
            axes.axvspan(*zone, color="#f2d5c4", label=label, zorder=0)
        width = 0.1 / len(sources)
        for index, (name, counts) in enumerate(sources.items()):
            report = danger_report(counts, rare_share=rare_share, group_size=group_size, danger=danger)
            left = np.arange(10) / 10 + index * width
            shares = 100 * report.histogram / report.num_prompts
            axes.bar(left, shares, width * 0.92, align="edge", color=COLOURS[index % len(COLOURS)], label=name)
        axes.set_xlim(0, 1)
        axes.set_xticks(np.arange(11) / 10)
        axes.set_xlabel("success rate of the prompt")
        axes.set_ylabel("share of prompts (%)")
        axes.legend(frameon=True, framealpha=0.9)
        figure.suptitle("How often prompts are solved, and where rare correct answers get missed", fontsize=11)
    return figure


def _group_size_axis(axes: Axes, last: int, first: int = 1) -> None:
    axes.set_xscale("log", base=2)
    powers = np.arange(np.ceil(np.log2(first)), np.floor(np.log2(last)) + 1, 1 if last <= 1024 else 2)
    axes.set_xticks(2.0**powers, [f"{2 ** int(p):,}" for p in powers], rotation=0 if last <= 1024 else 45)
    axes.minorticks_off()
    axes.set_xlim(first * 0.9, last * 1.1)
    axes.set_xlabel("group size N (rollouts per prompt)")
