"""`verl-fgrpo maze study` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["maze", "study", *sys.argv[1:]]))
