"""Tests that need a Lean kernel are skipped by name where there is none."""

import pytest

from verl_fgrpo.tasks.proofs.lean import kernel_report


@pytest.fixture(scope="session")
def kernel():
    works, line = kernel_report()
    if not works:
        pytest.skip(f"needs a Lean kernel: {line}")
