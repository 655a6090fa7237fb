"""Is there a Lean kernel, and does it tell right proofs from wrong ones?

verl-fgrpo proofs check
"""

from collections.abc import Sequence

from verl_fgrpo.core.command import command_parser
from verl_fgrpo.tasks.proofs.lean import kernel_report


def main(arguments: Sequence[str]) -> int:
    """Print one line; 0 if the kernel works.

    Raises:
        RuntimeError: it does not, or there is none.
    """
    command_parser("proofs check", __doc__).parse_args(arguments)
    works, line = kernel_report()
    if not works:
        raise RuntimeError(line)
    print(line)
    return 0
