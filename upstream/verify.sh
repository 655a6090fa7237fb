#!/usr/bin/env bash
# Does the patch to verl work? Applies it to a temporary copy of the installed verl 0.9.1 and tests the copy:
# the patch's own tests, then gamma 0 against the installed verl and gamma > 0 against this plugin, bit for bit.
#   bash upstream/verify.sh      half a minute; changes nothing but a temporary folder, which it removes
set -xeuo pipefail

{ set +x; } 2>/dev/null   # quiet while the environment is found or made
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup_env.sh
VERSION=0.9.1
PATCH=$PWD/upstream/verl-$VERSION-focal-weight.patch

require_version() {   # an environment without verl passes: setup_env installs it
    local found
    found=$("$1" -c 'import importlib.metadata as m; print(*(d.version for d in m.distributions(name="verl")))')
    found=${found%% *}
    [ "${found:-$VERSION}" = "$VERSION" ] ||
        die "the installed verl is $found, but the patch is made against $VERSION; use an environment with verl==$VERSION"
}

command -v git >/dev/null || die "git is missing, and git apply applies the patch; install it"
if [ -n "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    require_version "${PYTHON:-python}"   # before setup_env, which would install the tested version
fi
setup_env
require_version "$PYTHON"
INSTALLED=$("$PYTHON" -c 'import importlib.util as u; print(u.find_spec("verl").submodule_search_locations[0])')
COPY=$(mktemp -d)
trap 'rm -rf "$COPY"' EXIT
export GIT_CEILING_DIRECTORIES=${COPY%/*}   # or git would take the copy for a part of a repository around it
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore

say "the installed verl $VERSION is copied to $COPY, patched and tested there"
set -x
cp -R "$INSTALLED" "$COPY/verl"
(cd "$COPY" && git apply --verbose "$PATCH")
# the patch's own tests
(cd "$COPY" && PYTHONPATH="$COPY" "$PYTHON" -m pytest -q --disable-warnings -p no:cacheprovider tests/trainer/ppo/test_focal_weight_on_cpu.py)
# the patched verl against the installed one (gamma 0) and against the plugin (gamma > 0)
PYTHONPATH="$PWD" "$PYTHON" upstream/check_patch.py record "$COPY/unpatched.pt"
PYTHONPATH="$COPY:$PWD" "$PYTHON" upstream/check_patch.py compare "$COPY/unpatched.pt"

{ set +x; } 2>/dev/null
say "all good: the patch applies to verl $VERSION, its tests pass, gamma 0 changes nothing, gamma > 0 is the plugin's result"
