#!/usr/bin/env bash
# Do the changes to verl work? Each is applied to a temporary copy of verl and tested there; nothing else is changed.
#   bash upstream/verify.sh                              all, on the installed verl 0.9.1 (three minutes)
#   bash upstream/verify.sh pass_at_k --verl CHECKOUT    one, on a checkout of verl
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$HERE/.."
source scripts/setup_env.sh
command -v git >/dev/null || die "git is missing, and git apply applies the patches; install it"
setup_env
exec "$PYTHON" upstream/verify.py "$@"
