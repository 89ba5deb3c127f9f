"""The calls that an engine needs of a library. A further library is one file with such a class."""

from typing import TYPE_CHECKING, Any, Protocol

from .error_log import ErrorLog

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import GpuLayers, Settings

Handle = Any  # a pointer of the library; 0 or None where it could not make one


class NativeLibrary(Protocol):
    """The calls that an engine needs, over one binding. Nothing is checked here: the library may abort.

    Tokenizers, sampling and grammars are always llama.cpp's.

    Attributes:
        name: its name, as users choose it.
        log: its error messages.
        batch: ctypes' type of a batch, with at least the fields of llama.cpp's.
        joins_sequences: whether sequences share one KV cache: batches may then name them in any order, and
            each looks at the cells of all.
    """

    name: str
    log: ErrorLog
    batch: Any
    joins_sequences: bool

    def load_model(self, path: "Path", *, repack: bool, gpu_layers: "GpuLayers") -> Handle: ...
    def free_model(self, model: Handle) -> None: ...
    def new_context(self, model: Handle, settings: "Settings", gpu_layers: "GpuLayers") -> Handle: ...
    def free_context(self, context: Handle) -> None: ...
    def keeps_text(self, context: Handle) -> bool: ...  # whether a context keeps anything of a text
    def load_adapter(self, model: Handle, path: "Path") -> Handle: ...  # a LoRA in a GGUF file
    def free_adapter(self, adapter: Handle) -> None: ...
    def decode(self, context: Handle, batch: Any) -> int: ...  # 0 if it went well
    def length(self, context: Handle, slot: int) -> int: ...  # position after the last cell of a sequence
    def state_bytes(self, context: Handle, slot: int) -> int: ...  # size of the state of a sequence

    def set_adapter(self, context: Handle, adapter: Handle | None) -> int:
        """Apply an adapter, or none, to all sequences; returns 0 if that went well."""

    def set_threads(self, context: Handle, decode: int, prefill: int) -> None:
        """Set the number of threads for batches of one token, and for larger ones."""

    def logits(self, context: Handle, row: int) -> int:
        """Address of the logits at a batch index, (vocab,) float32; 0 if there are none."""

    def clear(self, context: Handle, slot: int, start: int) -> bool:
        """Remove the cells of a sequence from position `start` on; returns whether that is possible."""

    def read_state(self, context: Handle, data: Any, nbytes: int, slot: int) -> int:
        """Copy the state of a sequence to `data`; returns the bytes that were written."""

    def write_state(self, context: Handle, data: Any, nbytes: int, slot: int) -> int:
        """Copy a state into an empty sequence; returns the bytes that were read, 0 if it was refused."""
