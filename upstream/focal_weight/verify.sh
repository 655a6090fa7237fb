#!/usr/bin/env bash
# bash upstream/focal_weight/verify.sh [--verl CHECKOUT]: see upstream/verify.sh
exec bash "$(dirname "${BASH_SOURCE[0]}")/../verify.sh" focal_weight "$@"
