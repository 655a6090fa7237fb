#!/usr/bin/env bash
# The first ten minutes on a GPU: bash scripts/gpu_check.sh [PAGE]      one page of results, default outputs/gpu_check.md
# Estimators and losses on CUDA equal the CPU; f_X timed against X on CUDA; a maze run in miniature with vLLM. No download.
# Ours: docs/results/gpu_check.md.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv-gpu/bin/python ] && echo "$PWD/.venv-gpu/bin/python" || command -v python3)}
PAGE=${1:-outputs/gpu_check.md}
export PYTHON OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MPLBACKEND=Agg RAY_ADDRESS=${RAY_ADDRESS:-local}
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    { echo "error: torch of $PYTHON sees no GPU; bash scripts/setup_gpu.sh, or set PYTHON" >&2; exit 1; }
mkdir -p "$(dirname "$PAGE")"
FAILED=0

# part TITLE COMMAND...: its last lines and how it ended go into the page
part() {
    local title=$1 start=$SECONDS end=ok
    shift
    echo ">> $title" >&2
    "$@" >"$PAGE.part" 2>&1 || { end="FAILED (exit code $?)"; FAILED=1; }
    printf '\n## %s: %s, %s s\n```\n%s\n```\n' "$title" "$end" "$((SECONDS - start))" "$(tail -n "${LINES_SHOWN:-30}" "$PAGE.part")" >>"$PAGE"
}

printf '# GPU check, %s, commit %s\n' "$(date -u +%Y-%m-%d)" "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" >"$PAGE"
part "GPUs" nvidia-smi --query-gpu=index,name,driver_version,memory.total,memory.used --format=csv
part "versions" "$PYTHON" -c 'from importlib.metadata import version as v; print(*(f"{p} {v(p)}" for p in ("torch", "vllm", "transformers", "verl", "ray", "tensordict")), sep="\n")'
part "doctor" "$PYTHON" -m verl_fgrpo
part "estimators and losses: CUDA equals CPU" "$PYTHON" -m pytest tests/methods -q --no-header -k cuda -rs
part "f_X over X on CUDA" "$PYTHON" scripts/bench_estimators.py --device cuda --repeats 3 --only grpo grpo_vectorized rloo
LINES_SHOWN=40 part "maze in miniature, verl and vLLM on one GPU" env DEVICE=cuda SMOKE=1 STEPS=5 SAVE_FREQ=5 OUT=outputs/gpu_check_maze DATA=outputs/gpu_check_data bash recipes/run_fgrpo_maze.sh
rm -f "$PAGE.part"
cat "$PAGE"
exit "$FAILED"
