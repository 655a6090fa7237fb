"""Tests start a Ray of their own, also where another cluster runs on the machine; unless RAY_ADDRESS names one."""

import os

os.environ.setdefault("RAY_ADDRESS", "local")
