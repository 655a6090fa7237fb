"""Run a function right after a module's first import, without importing the module (by wrapt)."""

import sys
from collections.abc import Callable
from types import ModuleType

from wrapt import register_post_import_hook


def when_imported(name: str, callback: Callable[[ModuleType], object]) -> None:
    """Call `callback(module)` once: now if module `name` is loaded, else right after its first import.

    What it raises, the import raises.

    Raises:
        ImportError: the module is half imported, and wrapt would call too early.
    """
    module = sys.modules.get(name)
    if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False):
        raise ImportError(f"{name} is half imported: register the hook before its import starts")
    register_post_import_hook(callback, name)
