"""`verl-fgrpo audit` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
