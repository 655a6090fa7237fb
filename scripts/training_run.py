"""`verl-fgrpo run-folder` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["run-folder", *sys.argv[1:]]))
