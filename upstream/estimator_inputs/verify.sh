#!/usr/bin/env bash
# bash upstream/estimator_inputs/verify.sh [--verl CHECKOUT]: see upstream/verify.sh
exec bash "$(dirname "${BASH_SOURCE[0]}")/../verify.sh" estimator_inputs "$@"
