"""`verl-fgrpo val-passk` from a checkout."""

import sys

from verl_fgrpo.cli import main

if __name__ == "__main__":
    sys.exit(main(["val-passk", *sys.argv[1:]]))
