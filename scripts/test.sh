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
if [ "$#" -gt 0 ]; then
    say "pytest"
    exec "$PYTHON" -m pytest -m "not full" "$@"
fi
say "pytest: all but real starts of verl's trainer; these run beside it and are shown after it"
STARTS_LOG=$(mktemp)
set -m # a process group of its own, which an interrupt can end as a whole
"$PYTHON" -m pytest -m "not full and verl_start" -p no:cacheprovider --durations=8 >"$STARTS_LOG" 2>&1 &
STARTS=$!
set +m
trap 'kill -INT -- "-$STARTS" 2>/dev/null || true; rm -f "$STARTS_LOG"' EXIT
trap 'exit 130' INT TERM
STATUS=0
"$PYTHON" -m pytest -m "not full and not verl_start" --durations=8 || STATUS=$?
wait "$STARTS" || STATUS=$?
say "pytest: real starts of verl's trainer"
cat "$STARTS_LOG"
exit "$STATUS"
