"""Packages that run their `__init__` when an attribute of them is asked for, and not for a module in them.

For processes of this project's own: what it changes in sys.modules holds for the whole process.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

_LOCK = RLock()


class _LazyPackage(ModuleType):
    __spec__: ModuleSpec

    def __getattr__(self, name: str) -> Any:
        with _LOCK:
            if self.__class__ is _LazyPackage and not (name.startswith("__") and name != "__version__"):
                self.__class__ = ModuleType  # type: ignore[assignment]
                assert self.__spec__.loader, "a package on the path has a loader"
                self.__spec__.loader.exec_module(self)
                return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def import_lazily() -> None:
    """Make llama_cpp and gguf lazy, unless they are imported or missing.

    They import all that they have, which takes a third of a second; an answer needs one module of each.
    Whoever imports such a package gets it as usual.
    """
    for name in ("gguf", "llama_cpp"):
        if name not in sys.modules and (spec := find_spec(name)):
            package = module_from_spec(spec)
            package.__class__ = _LazyPackage
            sys.modules[name] = package
