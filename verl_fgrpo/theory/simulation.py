"""The categorical simulation of arXiv 2602.06717 (section 5.1, App. J): one softmax policy over 128,000 actions.

Each step draws N i.i.d. actions, centres their rewards within the group, r_j = R_j - mean(R), and takes an Adam step up

    g / N * sum_j r_j * p(a_j) / stop_grad(p(a_j)),     g = (1 - X / N) ** focal_gamma,     X = correct samples

The paper states the step size, 1e-2, not the optimiser. Adam with default betas on this on-policy ratio surrogate gives
the three regimes of the paper's figure 2. Two other readings do not: plain gradient ascent (`optimizer="sgd"`) at that
step size moves nothing; without the division by the old probability (tests/theory/plain_simulation.py does it) N = 2
loses correct mass and large groups forget as much as middle ones (one seed: Q_pos 0.63 -> 0.49 at N = 2, M_ret 0.02 at
N = 32768).

What makes it fast is exact, not approximate:

- The gradient of the surrogate for logit i is g / N * (c_i * (R_i - mean R) - p_i * sum_j r_j), where c_i counts the
  samples of action i. Centred rewards sum to zero, so the second term vanishes: counts are enough, no autograd.
- Large groups are drawn by inverting the CDF through a lookup table, which finds the same action as a binary search.
- Runs that share a seed share their random numbers whatever their gamma: drawn once, and the comparison is paired.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from verl_fgrpo.core.numbers import check_gamma

NUM_ACTIONS, NUM_CORRECT = 128_000, 10_000
# From this group size on, building the lookup table costs less than searching (both timed on one thread).
LOOKUP_FROM_GROUP_SIZE = 8192
LOOKUP_BUCKETS = 2**18  # a power of two: uniform * buckets is then exact, and so is the bucket


@dataclass(frozen=True)
class Trajectory:
    """One run. Index t of an array is the policy after t updates; `success_rate[t]` is the group drawn from it.

    `q_pos`, `m_ret`, `entropy`, `anchor` have steps + 1 entries, `success_rate` has steps. float64.
    """

    group_size: int
    focal_gamma: float
    seed: int
    q_pos: NDArray[np.float64]  # total correct mass
    m_ret: NDArray[np.float64]  # retained positive mass, eq. 26
    entropy: NDArray[np.float64]  # of the policy, in nats
    anchor: NDArray[np.float64]  # probability of action 0, the most likely correct one in the published set-up
    success_rate: NDArray[np.float64]  # X / N of each step's group


def published_logits(
    num_actions: int = NUM_ACTIONS,
    num_correct: int = NUM_CORRECT,
    *,
    anchor: float = 5.0,
    correct: float = 3.0,
    wrong: float = 0.0,
) -> NDArray[np.float64]:
    """Initial logits of the paper: one correct anchor (action 0), the other correct actions, then the wrong ones.

    Args:
        num_actions: length of the vector.
        num_correct: correct actions including the anchor, 1 <= num_correct < num_actions.
        anchor, correct, wrong: logits (arXiv 2602.06717, App. J: 5, 3, 0, so that Q_pos starts near 0.63).

    Returns:
        float64 vector of shape [num_actions].

    Raises:
        ValueError: num_correct outside [1, num_actions); a logit beyond 500, whose exponential is no float64.
    """
    _check_num_correct(num_correct, num_actions)
    for name, value in (("anchor", anchor), ("correct", correct), ("wrong", wrong)):
        if not abs(value) <= 500:
            raise ValueError(
                f"the {name} logit is {value}, but it must lie in [-500, 500], where exp does not overflow"
            )
    logits = np.full(num_actions, wrong, dtype=np.float64)
    logits[:num_correct] = correct
    logits[0] = anchor
    return logits


def simulate(group_size: int, focal_gamma: float, steps: int = 1000, seed: int = 0, **settings: Any) -> Trajectory:
    """Train one categorical policy and record how its correct mass moves (see the module's formula).

        M_ret(t) = 1 - sum_correct max(0, p_0(a) - p_t(a)) / sum_correct p_0(a)        (arXiv 2602.06717, eq. 26)

    Args:
        group_size: N >= 2, samples per step.
        focal_gamma: gamma >= 0; 0 is the unweighted baseline.
        steps: number of updates; 0 records the initial policy.
        seed: with group_size it fixes every random number. Same seed, device and thread count: same numbers.
        **settings: the keywords of `simulate_batch`, e.g. logits, learning_rate, device.

    Raises:
        ValueError: an argument outside its range.
    """
    return simulate_batch(group_size, [(focal_gamma, seed)], steps, **settings)[0]


def simulate_batch(
    group_size: int,
    runs: Sequence[tuple[float, int]],
    steps: int = 1000,
    *,
    logits: ArrayLike | None = None,
    num_correct: int = NUM_CORRECT,
    reward_correct: float = 1.0,
    reward_wrong: float = -1.0,
    learning_rate: float = 1e-2,
    optimizer: Literal["adam", "sgd"] = "adam",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Trajectory]:
    """`simulate` for several (focal_gamma, seed) pairs of one group size at once; each run's numbers stay the same.

    Args:
        group_size: N >= 2, shared by all runs.
        runs: (focal_gamma, seed) pairs.
        steps: see `simulate`.
        logits: initial logits, shape [actions]; default `published_logits()`.
        num_correct: the first num_correct actions are correct.
        reward_correct, reward_wrong: R_c > R_w. The paper's simulation uses +1 / -1.
        learning_rate: Adam's step size (or the plain gradient's).
        optimizer: "adam" (betas 0.9 / 0.999, eps 1e-8) or "sgd".
        device: torch device of the whole run.
        dtype: of logits and optimiser state. The CDF is float64 in any case.

    Raises:
        ValueError: an argument outside its range.
    """
    start = published_logits() if logits is None else np.asarray(logits, dtype=np.float64)
    _check(group_size, runs, steps, start, num_correct, reward_correct, reward_wrong, learning_rate, optimizer)
    gammas_R1 = torch.tensor([[gamma] for gamma, _ in runs], dtype=torch.float64, device=device)
    generators = {seed: _generator(seed, group_size, device) for _, seed in runs}
    logits_RA = torch.tensor(start, dtype=dtype, device=device).repeat(len(runs), 1)
    policies = _Policies(logits_RA, num_correct)
    update: torch.optim.Optimizer
    if optimizer == "adam":
        update = torch.optim.Adam([logits_RA], lr=learning_rate, maximize=True, fused=True)
    else:
        update = torch.optim.SGD([logits_RA], lr=learning_rate, maximize=True)

    measured = [policies.measure()]
    success: list[torch.Tensor] = []
    for _ in range(steps):
        uniforms = {seed: _uniforms(group_size, generator) for seed, generator in generators.items()}
        success_R1 = policies.draw_groups([uniforms[seed] for _, seed in runs])
        scale_R1 = (1.0 - success_R1) ** gammas_R1 * ((reward_correct - reward_wrong) / group_size)
        policies.weigh_gradient(scale_R1, success_R1)
        update.step()
        success.append(success_R1[:, 0])
        measured.append(policies.measure())

    series_4RT = torch.stack(measured, -1).cpu().numpy()
    success_RT = torch.stack(success, -1).cpu().numpy() if success else np.empty((len(runs), 0))
    return [
        Trajectory(group_size, gamma, seed, *(one[run].copy() for one in (*series_4RT, success_RT)))
        for run, (gamma, seed) in enumerate(runs)
    ]


class _Policies:
    """The softmax policies of R runs over A actions, C of them correct, and the buffers of a step."""

    def __init__(self, logits_RA: torch.Tensor, num_correct: int) -> None:
        self.logits_RA, self.num_correct = logits_RA, num_correct
        self.gradient_RA = logits_RA.grad = torch.zeros_like(logits_RA)
        self.probs_RA, self.scratch_RA = torch.empty_like(logits_RA), torch.empty_like(logits_RA)
        self.cdf_RA = torch.empty_like(logits_RA, dtype=torch.float64)
        self.correct_start_RC: torch.Tensor | None = None

    def measure(self) -> torch.Tensor:
        """Q_pos, M_ret, entropy and the anchor's probability of every run, [4, R]; leaves the CDF for `draw_groups`."""
        torch.softmax(self.logits_RA, 1, out=self.probs_RA)
        self.cdf_RA.copy_(self.probs_RA).cumsum_(1)
        total_R1 = self.cdf_RA[:, -1:].clone()  # a float32 softmax over 128,000 actions sums to 1 only within 1e-5
        self.cdf_RA.div_(total_R1)
        correct_RC = self.probs_RA[:, : self.num_correct] / total_R1
        q_pos_R = self.cdf_RA[:, self.num_correct - 1].clone()
        if self.correct_start_RC is None:
            self.correct_start_RC, self.q_pos_start_R = correct_RC, q_pos_R
        lost_R = (self.correct_start_RC - correct_RC).clamp_(min=0).sum(1)
        # -sum p log p = logsumexp(z) - sum p z, and log of the largest p is the largest z minus logsumexp(z).
        log_normaliser_R = self.logits_RA.amax(1) - (self.probs_RA.amax(1) / total_R1[:, 0]).log()
        mean_logit_R = torch.mul(self.probs_RA, self.logits_RA, out=self.scratch_RA).sum(1) / total_R1[:, 0]
        return torch.stack(
            [q_pos_R, 1.0 - lost_R / self.q_pos_start_R, log_normaliser_R - mean_logit_R, correct_RC[:, 0]]
        )

    def draw_groups(self, uniforms_RN: Sequence[torch.Tensor]) -> torch.Tensor:
        """Draw each run's group into the gradient, as the counts c_i of its actions; returns X / N, [R, 1]."""
        group_size = len(uniforms_RN[0])
        ones_N = torch.ones(1, dtype=self.probs_RA.dtype, device=self.probs_RA.device).expand(group_size)
        for row, uniforms_N in enumerate(uniforms_RN):
            self.gradient_RA[row].zero_().scatter_add_(0, draw_actions(self.cdf_RA[row], uniforms_N), ones_N)
        return self.gradient_RA[:, : self.num_correct].sum(1, keepdim=True, dtype=torch.float64) / group_size

    def weigh_gradient(self, scale_R1: torch.Tensor, success_R1: torch.Tensor) -> None:
        """Turn counts into the gradient: with X correct of N, R_c - mean R = gap (1 - X/N), R_w - mean R = -gap X/N."""
        self.gradient_RA[:, : self.num_correct] *= (scale_R1 * (1.0 - success_R1)).to(self.gradient_RA.dtype)
        self.gradient_RA[:, self.num_correct :] *= (-scale_R1 * success_R1).to(self.gradient_RA.dtype)


def draw_actions(cdf_A: torch.Tensor, uniforms_N: torch.Tensor) -> torch.Tensor:
    """Categorical samples by inverting the CDF: the first action whose cumulative probability exceeds a uniform number.

    Small groups use a binary search. Large ones look up, for each of 2^18 equal slices of [0, 1), how many cumulative
    probabilities lie before the slice: the search starts there and one comparison settles most samples. Same result.

    Args:
        cdf_A: cumulative probabilities, float64 [actions], non-decreasing, the last exactly 1.
        uniforms_N: float64 [samples] in [0, 1).

    Returns:
        int64 [samples], equal to `torch.searchsorted(cdf_A, uniforms_N, right=True)`.
    """
    if uniforms_N.numel() < LOOKUP_FROM_GROUP_SIZE:
        return torch.searchsorted(cdf_A, uniforms_N, right=True)
    end_slice_A = (cdf_A * LOOKUP_BUCKETS).long()
    before_B = torch.bincount(end_slice_A + 1, minlength=LOOKUP_BUCKETS + 2).cumsum_(0)
    actions_N = before_B.index_select(0, (uniforms_N * LOOKUP_BUCKETS).long())
    later = (cdf_A.index_select(0, actions_N) <= uniforms_N).nonzero()[:, 0]  # about a quarter
    next_action = actions_N.index_select(0, later).add_(1)
    later_uniforms = uniforms_N.index_select(0, later)
    actions_N[later] = next_action
    crowded = (cdf_A.index_select(0, next_action) <= later_uniforms).nonzero()[:, 0]  # slices with many small ones
    actions_N[later[crowded]] = torch.searchsorted(cdf_A, later_uniforms[crowded], right=True)
    return actions_N


def _generator(seed: int, group_size: int, device: str) -> torch.Generator:
    state = np.random.SeedSequence([seed, group_size]).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state >> np.uint64(1)))


def _uniforms(group_size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(group_size, dtype=torch.float64, generator=generator, device=generator.device)


def _check_num_correct(num_correct: int, num_actions: int) -> None:
    if not 1 <= num_correct < num_actions:
        raise ValueError(f"num_correct must lie in [1, {num_actions - 1}], got {num_correct!r}")


def _check(
    group_size: int,
    runs: Sequence[tuple[float, int]],
    steps: int,
    logits: NDArray[np.float64],
    num_correct: int,
    reward_correct: float,
    reward_wrong: float,
    learning_rate: float,
    optimizer: str,
) -> None:
    if group_size < 2:
        raise ValueError(f"group_size must be >= 2, got {group_size!r}: a group of one has no advantage")
    if not runs:
        raise ValueError("runs is empty: pass at least one (focal_gamma, seed) pair")
    for gamma, seed in runs:
        check_gamma(gamma, "focal_gamma")
        if seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed!r}")
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps!r}")
    if logits.ndim != 1 or not np.all(np.isfinite(logits)):
        raise ValueError(f"logits must be a finite vector, got shape {logits.shape}")
    _check_num_correct(num_correct, logits.size)
    if not (math.isfinite(reward_correct - reward_wrong) and reward_correct > reward_wrong):
        raise ValueError(f"reward_correct must exceed reward_wrong, got {reward_correct!r} and {reward_wrong!r}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate must be finite and > 0, got {learning_rate!r}")
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
