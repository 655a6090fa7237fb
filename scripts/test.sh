#!/usr/bin/env bash
# The tests that every commit must pass: lint, types, unit tests and real runs of verl's trainer on the CPU.
#   bash scripts/test.sh [pytest arguments]      e.g. bash scripts/test.sh -k advantages
# Makes .venv and installs what is missing (see scripts/setup_env.sh). The long tests are in scripts/test_full.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg

if [ "$#" -eq 0 ]; then
    say "ruff"
    "$PYTHON" -m ruff check .
    "$PYTHON" -m ruff format --check .
    say "mypy"
    "$PYTHON" -m mypy
    say "house: layers, long functions, rooms that say what they hold"
    "$PYTHON" scripts/house.py --check >/dev/null
    "$PYTHON" -c "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
fi
say "pytest"
"$PYTHON" -m pytest -m "not full" "$@"
