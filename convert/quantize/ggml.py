"""float32 rows to a ggml type's bytes, by ggml's own code in the library that llama-cpp-python ships.

`ggml_quantize_chunk` releases the GIL while it works, so threads run side by side.
"""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from ...errors import CheckpointError, OutputError
from ...files.gguf_header import row_bytes

_LIBRARIES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
MAX_HALF = 65504.0  # the largest finite F16
MAX_BRAIN = 3.3895314e38  # and BF16
_LEAST = 1e-6  # of the mean importance
# As in llama.cpp's `tensor_requires_imatrix`: the first three ggml would do without, badly and slowly.
_NEED_IMPORTANCE = {
    GGMLQuantizationType[name] for name in ("IQ3_XXS", "IQ2_S", "IQ1_M", "IQ2_XS", "IQ2_XXS", "IQ1_S")
}


def quantize_rows(
    rows: NDArray[np.float32],
    type_: GGMLQuantizationType,
    where: str,
    importance: NDArray[np.float32] | None = None,
) -> bytes:
    """`rows`, (n, columns) or (n,), as `type_`; `where` names the tensor in an error.

    `importance` is how much each column's error weighs, (columns,), not all of it zero.

    Raises:
        CheckpointError: a value that is not finite, or too large for the type.
        OutputError: a type that only works with an importance matrix.
    """
    check_values(rows, type_, where)
    if type_ is GGMLQuantizationType.F32:
        return rows.astype("<f4", copy=False).tobytes()
    if type_ in _NEED_IMPORTANCE and importance is None:
        raise OutputError(
            f"{where}: {type_.name} needs an importance matrix; take IQ3_S, Q2_K or a larger type"
        )
    rows = np.ascontiguousarray(rows)
    count, columns = rows.shape
    out = np.empty(count * row_bytes(columns, type_), np.uint8)
    if importance is not None:
        importance = np.ascontiguousarray(floored_importance(importance), np.float32)
    weights = None if importance is None else importance.ctypes.data
    written = _ggml().ggml_quantize_chunk(
        type_, rows.ctypes.data, out.ctypes.data, 0, count, columns, weights
    )
    assert written == out.nbytes, (where, written, out.nbytes)
    return out.tobytes()


def check_values(rows: NDArray[np.float32], type_: GGMLQuantizationType, where: str) -> None:
    """Raise CheckpointError unless all values are finite, and none is too large for the type."""
    peak = float(np.abs(rows).max(initial=0.0))  # NaN and infinity show in it, at the cost of one pass
    if not np.isfinite(peak):
        raise CheckpointError(f"{where}: holds a value that is not finite")
    if type_ is GGMLQuantizationType.F32:
        return
    # All other types but BF16 scale their blocks by a 16-bit float: ggml would write infinity, or abort.
    if type_ is not GGMLQuantizationType.BF16 and peak > MAX_HALF:
        raise CheckpointError(f"{where}: holds {peak:g}, more than F16's {MAX_HALF:g}; use BF16 or F32")
    if peak > MAX_BRAIN:
        raise CheckpointError(f"{where}: holds {peak:g}, more than BF16's {MAX_BRAIN:g}; use F32")


def floored_importance(importance: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same, none of it nothing: a block of columns that no token needed would have no scale."""
    return np.maximum(importance, np.float32(_LEAST * importance.mean()))


@cache
def _ggml() -> ctypes.CDLL:
    """The base library of ggml, without the rest of llama-cpp-python."""
    spec = importlib.util.find_spec("llama_cpp")
    folder = Path(spec.origin).parent / "lib" if spec and spec.origin else Path()
    path = next((folder / name for name in _LIBRARIES if (folder / name).exists()), None)
    if path is None:
        raise OutputError(f"{folder}: none of {', '.join(_LIBRARIES)} is there; reinstall llama-cpp-python")
    library = ctypes.CDLL(str(path))
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,  # type
        ctypes.c_void_p,  # source: float32 rows
        ctypes.c_void_p,  # target
        ctypes.c_int64,  # first element
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # columns
        ctypes.c_void_p,  # importance of each column, or none
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library
