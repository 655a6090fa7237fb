"""Entry point `verl_fgrpo_cpu` of the group `verl.plugins`: without VERL_PLATFORM=cpu it does and imports nothing."""

import os

if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    import logging

    try:
        from verl_fgrpo.cpu.install import install

        install()
    except Exception:
        # verl swallows a plugin's exception at DEBUG level
        logging.getLogger("verl_fgrpo").exception("the platform cpu could not be installed into verl")
        raise
