"""`verl-fgrpo eval power`: how many problems and samples show which difference in pass@k? By simulation.

The assumed world. A problem's success rate under the base model is 0 with probability `unsolved`, else Beta(a, b).
The other model's rate is logit(p) + shift + spread * z with z standard normal per problem; problems with rate 0 stay
there. `shift` is chosen so that the mean of pass@k rises by the effect asked for. With spread = 0 every problem moves
alike and the power is far too good: two trainings differ problem by problem, in both directions.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import hypergeom, norm

from verl_fgrpo.core.command import COUNT, SEED
from verl_fgrpo.core.passk import pass_at_k, pass_at_k_table, sequential_pass_at_k
from verl_fgrpo.core.tables import markdown_table

Rates = NDArray[np.float64]
Row = dict[str, Any]
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """Success rates of problems, see the module's text."""

    unsolved: float = 0.2
    a: float = 0.25
    b: float = 0.9
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.unsolved < 1:
            raise ValueError(f"unsolved={self.unsolved} must lie in [0, 1): it is a share of problems")
        if not (self.a > 0 and self.b > 0):
            raise ValueError(f"a={self.a} and b={self.b} must be positive: they are the parameters of a Beta law")
        if not self.spread >= 0:
            raise ValueError(f"spread={self.spread} must not be negative")

    def draw(self, shift: float, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Rates, Rates]:
        """Success rates of both models on the same problems."""
        base = np.where(rng.random(shape) < self.unsolved, 0.0, rng.beta(self.a, self.b, shape))
        moved = expit(logit(np.clip(base, 1e-300, 1 - 1e-16)) + shift + self.spread * rng.standard_normal(shape))
        return base, np.where(base > 0, moved, 0.0)

    def shift_of(self, effect: float, k: int, seed: int = 0) -> float:
        """The shift at which the mean of pass@k over problems rises by `effect`, by bisection over 200,000 problems.

        Raises:
            ValueError: no shift within +-20 gives that effect.
        """

        def gain(shift: float) -> float:
            base, other = self.draw(shift, (200_000,), np.random.default_rng(seed))
            return float(np.mean((1 - base) ** k - (1 - other) ** k))

        low, high = -20.0, 20.0
        if not gain(low) <= effect <= gain(high):
            raise ValueError(
                f"effect={100 * effect:g} points of pass@{k} is out of reach: with these success rates it can change "
                f"by {100 * gain(low):.1f} to {100 * gain(high):+.1f} points"
            )
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if gain(middle) < effect else (low, middle)
        return (low + high) / 2


def power_rows(
    num_problems: int,
    effect: float,
    k: int,
    num_samples: Sequence[int],
    simulations: int = 500,
    m: int = 256,
    stop_after_correct: int | None = None,
    world: World | None = None,
    seed: int = 0,
) -> list[Row]:
    """Power of both paired tests at alpha = 0.05, and what the difference scatters by.

    Args:
        num_problems: P.
        effect: true difference in pass@k, a fraction.
        k: of pass@k.
        num_samples: values of n (the cap, with `stop_after_correct`), each at least k.
        simulations: pairs of runs drawn for each n.
        m: of the subsampling test; where n < m it is n // 4, and below k the test is left out.
        stop_after_correct: sample until so many correct.
        world: of the success rates.
        seed: of everything.

    Returns:
        Rows with num_samples, drawn (samples a problem), sd (of the estimated difference over simulations), power (of
        the bootstrap over problems, whose percentile interval is normal here: estimate +- 1.96 standard errors),
        smallest (the effect it would find with 80% power), m, paper_power (subsampling test; None where left out).
    """
    world = world or World()
    if num_problems < 2 or simulations < 2:
        raise ValueError(f"{num_problems=} and {simulations=} must be at least 2")
    if short := [n for n in num_samples if n < k]:
        raise ValueError(f"num_samples={short[0]} is below k={k}: pass@k needs at least k samples a problem")
    shift = world.shift_of(effect, k, seed)
    quantile = float(norm.ppf(1 - ALPHA / 2))
    rows = []
    for n in num_samples:
        rng = np.random.default_rng(seed)
        size = m if n >= 2 * m else n // 4
        variances = None if stop_after_correct or size < k else _subsample_variance(n, size, k)
        found = []
        for _ in range(simulations):
            rates = world.draw(shift, (num_problems,), rng)
            sides = [_sampled(side, n, stop_after_correct, k, rng) for side in rates]
            values = sides[1][1] - sides[0][1]
            estimate, error = values.mean(), values.std() / np.sqrt(num_problems)
            theirs = np.nan
            if variances is not None:
                theirs = np.sqrt(sum(variances[side[2]].sum() for side in sides)) / num_problems
            drawn = np.mean([side[0] for side in sides])
            found.append((estimate, abs(estimate) > quantile * error, error, theirs, drawn))
        estimates, rejected, errors, theirs_, sizes = np.array(found).T
        row: Row = {"num_samples": n, "drawn": float(sizes.mean()), "sd": float(estimates.std())}
        row |= {"power": float(rejected.mean()), "smallest": float((quantile + norm.ppf(0.8)) * errors.mean())}
        paper = None if variances is None else float(np.mean(np.abs(estimates) > quantile * theirs_))
        rows.append({**row, "m": None if variances is None else size, "paper_power": paper})
    return rows


def _sampled(
    rates: Rates, n: int, stop: int | None, k: int, rng: np.random.Generator
) -> tuple[float, Rates, NDArray[np.int64]]:
    """(mean samples drawn, pass@k estimates, correct counts) of one run."""
    correct = rng.binomial(n, rates)
    if stop is None:
        return float(n), pass_at_k(n, correct, k), correct
    # Given c of n correct, the position of the r-th is the r-th smallest of c positions drawn without replacement.
    stopped = correct >= stop
    drawn = np.full(len(rates), n)
    for problem in np.flatnonzero(stopped):
        drawn[problem] = np.sort(rng.choice(n, correct[problem], replace=False))[stop - 1] + 1
    correct = np.minimum(correct, stop)
    return float(drawn.mean()), sequential_pass_at_k(drawn, correct, stop, n, k), correct


def _subsample_variance(n: int, m: int, k: int) -> Rates:
    """Variance of pass@k on m of n samples, for c = 0..n correct: the mean over problems of draws is normal then."""
    drawn = np.arange(m + 1)
    pmf = hypergeom.pmf(drawn, n, np.arange(n + 1)[:, None], m)
    table = pass_at_k_table(m, k)
    return np.asarray(np.maximum(0.0, pmf @ table**2 - (pmf @ table) ** 2))


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("power", help="how many samples show which difference in pass@k, by simulation")
    parser.add_argument("--problems", type=COUNT, default=1546, help="problems that both runs answer")
    parser.add_argument("--effect", type=float, required=True, help="true difference of pass@k in percentage points")
    parser.add_argument("--k", type=COUNT, required=True)
    parser.add_argument("--num-samples", type=COUNT, nargs="+", help="samples a problem; default k, 4k, 16k")
    parser.add_argument("--stop-after-correct", type=COUNT, help="as of `eval sample`; --num-samples is the cap then")
    parser.add_argument("--m", type=COUNT, default=256, help="of the subsampling test")
    parser.add_argument("--simulations", type=COUNT, default=500)
    parser.add_argument("--unsolved", type=float, default=0.2, help="share of problems that are never solved")
    parser.add_argument("--beta", type=float, nargs=2, default=(0.25, 0.9), help="success rates of the others")
    parser.add_argument("--spread", type=float, default=1.0, help="how differently problems move, sd in logits")
    parser.add_argument("--seed", type=SEED, default=0)
    parser.set_defaults(run_command=_power)


def _power(options: argparse.Namespace) -> None:
    world = World(options.unsolved, options.beta[0], options.beta[1], options.spread)
    sizes = options.num_samples or [options.k, 4 * options.k, 16 * options.k]
    how = options.simulations, options.m, options.stop_after_correct, world, options.seed
    rows = power_rows(options.problems, options.effect / 100, options.k, sizes, *how)
    print(
        f"{options.problems} problems, pass@{options.k}, a true difference of {options.effect:g} points, "
        f"{options.simulations} simulated pairs of runs, tests at 5%.\nAssumed success rates: {options.unsolved:.0%} "
        f"never solved, the others Beta({options.beta[0]:g}, {options.beta[1]:g}); problems move differently by "
        f"{options.spread:g} logits.\n"
    )
    cells = []
    for row in rows:
        shares = [f"{100 * row['sd']:.2f}", f"{100 * row['power']:.0f}%", f"{100 * row['smallest']:.2f}"]
        paper = "-" if row["paper_power"] is None else f"{100 * row['paper_power']:.0f}% (m = {row['m']})"
        cells.append([row["num_samples"], f"{row['drawn']:.0f}", *shares, paper])
    powers = ("power over problems", "found at 80% power", "power of subsampling")
    print(markdown_table(["samples", "drawn a problem", "sd of the difference", *powers], cells), end="")
