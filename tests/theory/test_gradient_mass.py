"""Gradient mass of the methods, from verl's registry, against the formulas on 0/1 rewards."""

import numpy as np
import pytest

from verl_fgrpo.host.registry import registered_estimator
from verl_fgrpo.theory.gradient_mass import METHODS, gradient_mass

N = 8
P = np.arange(N + 1) / N
VARIANCE = P * (1 - P)

#: m+ and m- as functions of the success rate p
EXPECTED = {
    "GRPO without std": (VARIANCE, VARIANCE),
    "Power 2: the same, gamma 1": (P * (1 - P) ** 2, P * (1 - P) ** 2),
    "FADE early: alpha 3, delta 1": (P * (1 - P) ** 3, P * (1 - P) ** 3),
    "FADE late: alpha 1, delta 0.3": (VARIANCE, VARIANCE / 0.3),
    # verl's std is Bessel-corrected
    "GRPO": (np.sqrt(VARIANCE * (N - 1) / N),) * 2,
    "F-GRPO, gamma 0.5": ((1 - P) ** 0.5 * np.sqrt(VARIANCE * (N - 1) / N),) * 2,
    "F-GRPO, gamma 1": ((1 - P) * np.sqrt(VARIANCE * (N - 1) / N),) * 2,
    "RLOO": (VARIANCE * N / (N - 1),) * 2,
    "MaxRL": (np.where(P > 0, 1 - P, 0),) * 2,
    "W-REINFORCE, lambda 0.1": (0.1 * P, 1 - P),
    "unlikeliness (equally likely)": (np.sqrt(VARIANCE * (N - 1) / N),) * 2,
}


@pytest.mark.parametrize("title", METHODS)
def test_the_mass_of_every_method(title):
    name, settings, fade = METHODS[title]
    positive, negative = gradient_mass(registered_estimator(name), N, settings, fade)
    if title in EXPECTED:
        np.testing.assert_allclose(positive, EXPECTED[title][0], atol=1e-5)
        np.testing.assert_allclose(negative, EXPECTED[title][1], atol=1e-5)
    else:  # pass@k training: balanced, and no mass once fewer than k rollouts are wrong
        np.testing.assert_allclose(positive, negative, atol=1e-6)
        assert not positive[N - 3 :].any() and positive[1:5].all()


def test_an_unknown_estimator_is_an_error():
    with pytest.raises(ValueError, match="nonsense"):
        registered_estimator("nonsense")
