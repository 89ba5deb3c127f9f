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
    from .runtime.engine.engine import Engine
    from .runtime.options import Options

__all__ = ["Answer", "Engine", "Options", "ThirteenError"]

_MODULES = {"Answer": "runtime.answer", "Engine": "runtime.engine.engine", "Options": "runtime.options"}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `import thirteen` loads no native library."""
    if name not in _MODULES:
        raise AttributeError(f"module 'thirteen' has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    if name == "Engine":
        value.find_files = _find_files
    return value


def _find_files(*model_and_options: Any) -> Any:
    """Turn the name of a model, and adapters of any form, into files; see Engine.find_files."""
    return import_module(".models.resolve", __name__).engine_files(*model_and_options)
