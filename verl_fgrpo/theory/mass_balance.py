"""Where probability mass goes in one policy-gradient step on a softmax policy (arXiv 2602.06717, App. C-H).

Setting: p = softmax(z) over actions. A group of N rollouts has shown the distinct correct actions A and the distinct
wrong actions B; U are the actions it did not show, whose reward counts as 0. The step ascends
(1/N) * sum_{sampled i} R_i p_i:

    dz_i = (eta / N) * p_i * (R_i - S),     S = R_c * P_pos + R_w * P_neg

with P_pos, P_neg the probability of A and of B. The results are first order in eta. X2 = sum_{i in X} p_i^2 is the sum
of squares over a set X, and Q_pos, Q_neg are the total correct and wrong mass.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class CorrectMassChange(NamedTuple):
    """Change of the total correct mass, dQ_pos, split into the four terms of eq. 17 (`total` is their sum)."""

    sampled_correct: float  # (eta/N) * (R_c - S) * Q_neg * A2
    sampled_wrong: float  # (eta/N) * (S - R_w) * Q_pos * B2
    unsampled_wrong: float  # (eta/N) * S * Q_pos * Uneg2
    unsampled_correct: float  # -(eta/N) * S * Q_neg * Upos2

    @property
    def total(self) -> float:
        """dQ_pos."""
        return sum(self)


class UnsampledCorrectMassChange(NamedTuple):
    """Change of the unsampled correct mass, dQ_u,pos, split into the terms of Prop. 3.2 (`total` is their sum)."""

    own_logits: float  # -(eta/N) * S * Upos2: the unsampled correct actions' own logits move by -S
    pull_of_sampled_correct: float  # -(eta/N) * Q_u,pos * (R_c - S) * A2: mass taken by sampled correct actions
    push_of_sampled_wrong: float  # -(eta/N) * Q_u,pos * (R_w - S) * B2: mass freed by sampled wrong actions
    unsampled_normaliser: float  # +(eta/N) * Q_u,pos * S * U2: mass freed as all unsampled logits move

    @property
    def total(self) -> float:
        """dQ_u,pos."""
        return sum(self)


@dataclass(frozen=True)
class MassBalance:
    """Everything eq. 17 and Prop. 3.2 are made of, for one step.

    `logit_change` is dz of shape [actions]; the masses are plain floats.
    """

    baseline: float  # S
    q_pos: float
    q_neg: float
    logit_change: FloatArray
    correct: CorrectMassChange
    unsampled_correct: UnsampledCorrectMassChange


def one_step_mass_balance(
    probabilities: ArrayLike,
    is_correct: ArrayLike,
    is_sampled: ArrayLike,
    *,
    group_size: int,
    learning_rate: float,
    reward_correct: float = 1.0,
    reward_wrong: float = -1.0,
) -> MassBalance:
    """First-order change of the correct and the unsampled correct mass in one step, with every term.

        dQ_pos   = (eta/N) * [(R_c - S) Q_neg A2 + (S - R_w) Q_pos B2 + S (Q_pos Uneg2 - Q_neg Upos2)]      (eq. 17)
        dQ_u,pos = (eta/N) * [-S Upos2 - Q_u,pos ((R_c - S) A2 + (R_w - S) B2 - S U2)]                     (Prop. 3.2)

    from arXiv 2602.06717. Multiply a term by the focal weight (1 - X/N)^focal_gamma for the focal step.

    Args:
        probabilities: p, shape [actions], non-negative, summing to 1.
        is_correct: bool, shape [actions].
        is_sampled: bool, shape [actions]: the action occurs at least once in the group.
        group_size: N >= 1.
        learning_rate: eta.
        reward_correct: R_c, above reward_wrong.
        reward_wrong: R_w.

    Raises:
        ValueError: shapes differ, p is no distribution, N < 1, more distinct samples than N, R_c <= R_w.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    correct, sampled = np.asarray(is_correct, dtype=bool), np.asarray(is_sampled, dtype=bool)
    if p.ndim != 1 or correct.shape != p.shape or sampled.shape != p.shape:
        raise ValueError(
            f"probabilities, is_correct and is_sampled must be vectors of one length, got shapes {p.shape}, "
            f"{correct.shape}, {sampled.shape}"
        )
    if p.size == 0 or not np.all(p >= 0) or abs(p.sum() - 1.0) > 1e-6:
        raise ValueError(f"probabilities must be non-negative and sum to 1, got sum {p.sum()!r}: pass softmax(logits)")
    if group_size < 1 or sampled.sum() > group_size:
        raise ValueError(f"group_size must be >= 1 and >= the {sampled.sum()} sampled actions, got {group_size!r}")
    if not reward_correct > reward_wrong:
        raise ValueError(f"reward_correct must exceed reward_wrong, got {reward_correct!r} and {reward_wrong!r}")

    parts = [correct & sampled, ~correct & sampled, correct & ~sampled, ~correct & ~sampled]
    p_pos, p_neg, q_u_pos, q_u_neg = (float(p[part].sum()) for part in parts)
    a2, b2, u_pos2, u_neg2 = (float(np.square(p[part]).sum()) for part in parts)
    q_pos, q_neg = p_pos + q_u_pos, p_neg + q_u_neg
    s = reward_correct * p_pos + reward_wrong * p_neg
    rewards = np.where(sampled, np.where(correct, reward_correct, reward_wrong), 0.0)
    rate = learning_rate / group_size
    return MassBalance(
        baseline=s,
        q_pos=q_pos,
        q_neg=q_neg,
        logit_change=rate * p * (rewards - s),
        correct=CorrectMassChange(
            sampled_correct=rate * (reward_correct - s) * q_neg * a2,
            sampled_wrong=rate * (s - reward_wrong) * q_pos * b2,
            unsampled_wrong=rate * s * q_pos * u_neg2,
            unsampled_correct=-rate * s * q_neg * u_pos2,
        ),
        unsampled_correct=UnsampledCorrectMassChange(
            own_logits=-rate * s * u_pos2,
            pull_of_sampled_correct=-rate * q_u_pos * (reward_correct - s) * a2,
            push_of_sampled_wrong=-rate * q_u_pos * (reward_wrong - s) * b2,
            unsampled_normaliser=rate * q_u_pos * s * (u_pos2 + u_neg2),
        ),
    )


def expected_sampled_mass(correct_probabilities: ArrayLike, num_correct_rollouts: ArrayLike) -> FloatArray:
    """Expected probability mass of the distinct correct solutions that k correct rollouts show.

        E[P_pos | X = k] = sum_o pi(o) * (1 - (1 - pi(o) / mu)^k),     mu = sum_o pi(o)    (arXiv 2602.06717, Lemma H.1)

    It never falls with k: an easier prompt exposes more of its correct mass to one group.

    Args:
        correct_probabilities: pi(o) of every correct solution, shape [solutions].
        num_correct_rollouts: k, whole numbers >= 0, any shape.

    Returns:
        float64 array with the shape of num_correct_rollouts, between 0 and mu.

    Raises:
        ValueError: no solution, negative or zero total mass, mass above 1, k negative or not whole.
    """
    pi = np.asarray(correct_probabilities, dtype=np.float64)
    k = np.asarray(num_correct_rollouts, dtype=np.float64)
    mu = pi.sum()
    if pi.ndim != 1 or not np.all(pi >= 0) or not 0 < mu <= 1 + 1e-9:
        raise ValueError(f"correct_probabilities must be a vector >= 0 with a sum in (0, 1], got sum {mu!r}")
    if not np.all((k >= 0) & (k == np.floor(k))):
        raise ValueError(f"num_correct_rollouts must be whole numbers >= 0, got {num_correct_rollouts!r}")
    share = np.minimum(pi / mu, 1.0)
    # A single solution (share 1): log1p(-1) = -inf, and 0 * -inf is not a number at k = 0, where nothing is shown.
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.where(k[..., None] == 0, 0.0, -np.expm1(k[..., None] * np.log1p(-share)))
    return np.asarray(shown @ pi, dtype=np.float64)
