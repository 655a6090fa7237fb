"""The doctor: `python -m verl_fgrpo`."""

import sys

from verl_fgrpo.host.doctor import main

if __name__ == "__main__":
    sys.exit(main())
