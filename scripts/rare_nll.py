"""`verl-fgrpo eval nll` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", "nll", *sys.argv[1:]]))
