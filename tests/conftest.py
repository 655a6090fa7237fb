"""Tests start a Ray of their own, also where another cluster runs on the machine; unless RAY_ADDRESS names one."""

import os

from hypothesis import settings

os.environ.setdefault("RAY_ADDRESS", "local")
settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")
