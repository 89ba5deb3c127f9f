"""The tiny model, for targets that need a vocabulary."""

from functools import cache

from thirteen.runtime.llama.model import Model

from ..runtime.conftest import write_gguf
from .target import scratch_folder


@cache
def tiny_model() -> Model:
    """The model of the runtime's tests, loaded once."""
    return Model(write_gguf(scratch_folder("tiny") / "tiny.gguf", {}, {}))
