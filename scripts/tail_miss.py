"""`verl-fgrpo tail-miss` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["tail-miss", *sys.argv[1:]]))
