"""Run a function right after a module's first import, without importing the module."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Callback = Callable[[ModuleType], None]


class _PostImportFinder(importlib.abc.MetaPathFinder):
    """Leaves finding and loading to the other finders; adds the callbacks after the module's code has run."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callback]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        callbacks = self.callbacks.pop(fullname, None)
        if callbacks is None:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: importlib.machinery.ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                self._run_after_loading(spec.loader, callbacks)
                return spec
        return None

    @staticmethod
    def _run_after_loading(loader: importlib.abc.Loader, callbacks: list[Callback]) -> None:
        exec_module = loader.exec_module

        def exec_module_then_callbacks(module: ModuleType) -> None:
            exec_module(module)
            for callback in callbacks:
                callback(module)

        # On the instance: a loader belongs to one module, and keeps its type for inspect and pickle.
        loader.exec_module = exec_module_then_callbacks  # type: ignore[method-assign]


_finder = _PostImportFinder()


def when_imported(name: str, callback: Callback) -> None:
    """Call `callback(module)` once: now if module `name` is loaded, else right after its first import.

    Args:
        name: full dotted name of the module.
        callback: gets the module, whose code has run completely.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        callback(module)
        return
    if module is not None:
        raise ImportError(f"{name} is half imported: register the hook before its import starts")
    _finder.callbacks.setdefault(name, []).append(callback)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
