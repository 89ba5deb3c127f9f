"""Thirteen: on-device inference for models adapted by a handful of numbers.

>>> from thirteen import Engine
>>> with Engine("model.gguf") as engine:
...     print(engine.answer("What is 12 * 13?").value)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ThirteenError

if TYPE_CHECKING:
    from .runtime.answer import Answer
    from .runtime.request import Sampling
    from .workflows.named_engine import Engine

__all__ = ["Answer", "Engine", "Sampling", "ThirteenError"]

_MODULES = {"Answer": "runtime.answer", "Engine": "workflows.named_engine", "Sampling": "runtime.request"}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `import thirteen` loads no native library."""
    if name not in _MODULES:
        raise AttributeError(f"module 'thirteen' has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
