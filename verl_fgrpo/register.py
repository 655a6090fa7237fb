"""Registration for releases of verl before 0.9: `VERL_USE_EXTERNAL_MODULES=verl_fgrpo.register`."""

import verl_fgrpo.host.register  # noqa: F401
