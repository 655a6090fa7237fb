# Sourced by the two commands of the README: find or make a Python environment that can run verl on this machine.
#
#   PYTHON=/path/to/python   use exactly this interpreter
#   an active virtualenv     is used as it is (VIRTUAL_ENV or CONDA_PREFIX)
#   otherwise                .venv in the checkout is made once and reused
#
# Sets PYTHON. Packages of requirements/cpu.txt are installed only where verl_fgrpo cannot be imported with all it needs.
# BASE_PYTHON=python3.12 chooses the interpreter that .venv is made from.

say() { printf '>> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

python_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

ray_can_start() { # Ray hands the path of the interpreter to a shell, unquoted
    [[ $1 != *[[:space:]\'\"\`\$\\\(\)\<\>\|\&\;\*\?\[\]\{\}]* ]] ||
        die "Ray cannot start workers with $1, because it does not quote spaces, quotes and brackets in this path; set PYTHON to one of an environment elsewhere, e.g. python3.11 -m venv ~/venv-fgrpo and PYTHON=~/venv-fgrpo/bin/python"
}

environment_is_complete() {
    "$1" "$ROOT/scripts/check_env.py" "$ROOT" >/dev/null 2>&1
}

setup_env() {
    if [ -n "${PYTHON:-}" ]; then
        say "Python environment: $PYTHON (from PYTHON)"
    elif [ -n "${VIRTUAL_ENV:-}" ] || [ -n "${CONDA_PREFIX:-}" ]; then
        PYTHON=$(command -v python) || die "an environment is active but has no python; deactivate it or set PYTHON"
        say "Python environment: $PYTHON (active)"
    else
        local venv="$ROOT/.venv"
        ray_can_start "$venv/bin/python"
        if [ ! -x "$venv/bin/python" ]; then
            local base="${BASE_PYTHON:-}" candidate
            if [ -z "$base" ]; then
                for candidate in python3.11 python3.12 python3.10 python3; do
                    if command -v "$candidate" >/dev/null && python_is_supported "$candidate"; then base=$candidate; break; fi
                done
            fi
            [ -n "$base" ] || die "no Python 3.10, 3.11 or 3.12 found (python3 is $(python3 --version 2>&1)); install one or set BASE_PYTHON"
            python_is_supported "$base" || die "$base is $("$base" --version 2>&1), but verl needs Python 3.10 to 3.12; set BASE_PYTHON"
            say "making the virtual environment .venv with $base"
            "$base" -m venv "$venv" || die "could not make $venv; on Debian and Ubuntu install python3-venv"
        fi
        PYTHON="$venv/bin/python"
        say "Python environment: .venv"
    fi
    ray_can_start "$("$PYTHON" -c 'import sys; print(sys.executable)' 2>/dev/null)"
    python_is_supported "$PYTHON" || die "$PYTHON is $("$PYTHON" --version 2>&1), but verl needs Python 3.10 to 3.12"

    if ! environment_is_complete "$PYTHON"; then
        say "installing verl, torch and the rest of requirements/cpu.txt (about two minutes and 2.5 GB, or 6 GB where pip takes the CUDA build of torch; log: .setup.log)"
        # torch first: whether a CPU or a CUDA build is taken is the business of the user's pip configuration.
        if ! {
            "$PYTHON" -m pip install --upgrade "pip>=24" "setuptools>=77" wheel &&
                "$PYTHON" -m pip install "$(grep '^torch==' "$ROOT/requirements/cpu.txt")" &&
                "$PYTHON" -m pip install -r "$ROOT/requirements/cpu.txt" -c "$ROOT/requirements/cpu.lock" &&
                (cd "$ROOT" && "$PYTHON" -m pip install --no-deps --no-build-isolation -e .) # pip reads "[" in a path as extras
        } >"$ROOT/.setup.log" 2>&1; then
            tail -n 20 "$ROOT/.setup.log" >&2
            die "installation failed; the whole log is .setup.log. Check the network and disk space, then run the command again"
        fi
        environment_is_complete "$PYTHON" || {
            "$PYTHON" "$ROOT/scripts/check_env.py" "$ROOT" >&2 || true
            die "the environment is still incomplete after the installation; the log is .setup.log"
        }
    fi
    export PYTHON
}
