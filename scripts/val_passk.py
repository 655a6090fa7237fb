"""pass@k of a training run's validations, unbiased, while it trains.

python scripts/val_passk.py outputs/math/RUN            the table; writes RUN/passk.csv and TensorBoard scalars
python scripts/val_passk.py outputs/math/RUN --watch    and every new validation as it comes
"""

import sys

from verl_fgrpo.host.validation import main

if __name__ == "__main__":
    sys.exit(main())
