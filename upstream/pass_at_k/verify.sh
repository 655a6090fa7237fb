#!/usr/bin/env bash
# bash upstream/pass_at_k/verify.sh [--verl CHECKOUT]: see upstream/verify.sh
exec bash "$(dirname "${BASH_SOURCE[0]}")/../verify.sh" pass_at_k "$@"
