"""F-GRPO for verl: multiply a group's advantages by a focal weight, so that RL does not forget rare correct solutions.

    A_focal_i = (1 - success rate of the group) ** focal_gamma * A_i        (arXiv 2602.06717, eq. 11-13)

Installing the package is enough: verl loads `verl_fgrpo.host.register` through the entry-point group `verl.plugins`.
"""

__version__ = "0.2.0"

__all__ = ["__version__"]
