#!/usr/bin/env bash
# bash upstream/rejected_rows/verify.sh [--verl CHECKOUT]: see upstream/verify.sh
exec bash "$(dirname "${BASH_SOURCE[0]}")/../verify.sh" rejected_rows "$@"
