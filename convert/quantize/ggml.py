"""Quantization and dequantization of rows by ggml itself, through the library that llama-cpp-python ships.

Its functions release the GIL, so several threads can call them at once.
"""

import ctypes
import importlib.util
from ctypes import c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from ...errors import FileError, OutputError
from ...files.gguf.header import row_bytes
from ...stats import Floats

_LIBRARIES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
F16_MAX = 65504.0  # the largest finite value
_LIMITS = {"F32": (np.inf, "F32", ""), "BF16": (3.3895314e38, "BF16", "F32")}
_IMPORTANCE_MIN = 1e-6  # relative to the mean importance
# As in llama.cpp's `tensor_requires_imatrix`. ggml accepts the first three without one: slow, and with poor
# results.
NEED_IMPORTANCE = {
    GGMLQuantizationType[name] for name in ("IQ3_XXS", "IQ2_S", "IQ1_M", "IQ2_XS", "IQ2_XXS", "IQ1_S")
}


def quantize_rows(
    rows: Floats, type_: GGMLQuantizationType, where: str, importance: Floats | None = None
) -> bytes:
    """Quantize rows.

    Args:
        rows: (n, columns) or (n,).
        type_: the type to quantize to.
        where: names the tensor in error messages.
        importance: weight of each column's error, (columns,), not all zero.

    Raises:
        FileError: a value is not finite, or too large for the type.
        OutputError: the type needs an importance matrix.
    """
    check_values(rows, type_, where)
    if type_ is GGMLQuantizationType.F32:
        return rows.astype("<f4", copy=False).tobytes()
    if type_ in NEED_IMPORTANCE and importance is None:
        raise OutputError(f"{where}: {type_.name} needs an importance matrix")
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


def dequantize_rows(data: NDArray[np.uint8], type_: GGMLQuantizationType) -> Floats:
    """Dequantize rows, (n, row bytes) to (n, columns): 4 to 20 times as fast as gguf's dequantize()."""
    function = getattr(_ggml(), f"dequantize_row_{type_.name.lower().replace('_k', '_K')}", None)
    if function is None:  # not a quantized type
        return np.asarray(dequantize(data, type_), np.float32)
    data = np.ascontiguousarray(data)
    block_size, block_bytes = GGML_QUANT_SIZES[type_]
    rows = np.empty((len(data), data.shape[1] // block_bytes * block_size), np.float32)
    function.argtypes, function.restype = [c_void_p, c_void_p, c_int64], None
    function(data.ctypes.data, rows.ctypes.data, rows.size)
    return rows


def check_values(rows: Floats, type_: GGMLQuantizationType, where: str) -> None:
    """Raise FileError if a value is not finite, or too large for the type."""
    peak = float(np.abs(rows).max(initial=0.0))  # NaN and infinity propagate, so one pass is enough
    if not np.isfinite(peak):
        raise FileError(f"{where}: holds a value that is not finite")
    # F16, and the types whose blocks have a float16 scale: ggml would write infinity, or abort. MXFP4's
    # exponent would reach further; it has the same limit.
    limit, name, others = _LIMITS.get(type_.name, (F16_MAX, "F16", "BF16 or F32"))
    if peak > limit:
        raise FileError(f"{where}: holds {peak:g}, more than {name}'s {limit:g}; use {others}")


def floored_importance(importance: Floats) -> Floats:
    """The importance with a positive floor: a block of columns with importance 0 would get no scale."""
    if not 1e-10 < (mean := importance.mean(dtype=np.float64)) < 1e10:  # products in the kernels overflow
        importance = (importance / mean).astype(np.float32)  # only ratios count
    return np.maximum(importance, np.float32(_IMPORTANCE_MIN * importance.mean()))


@cache
def _ggml() -> ctypes.CDLL:
    """The base library of ggml, loaded without the rest of llama-cpp-python."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "lib"
    library = ctypes.CDLL(str(next(folder / name for name in _LIBRARIES if (folder / name).exists())))
    # Type, source and target, first element, rows and columns, importance of each column or null.
    library.ggml_quantize_chunk.argtypes = [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library
