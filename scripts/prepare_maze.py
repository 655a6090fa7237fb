"""`verl-fgrpo maze prepare` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["maze", "prepare", *sys.argv[1:]]))
