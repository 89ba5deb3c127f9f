"""Taps that see and change a model's matrix products and embedding lookups, by llama.cpp's eval callback.

The layout of `ggml_tensor` is that of ggml.h in llama-cpp-python 0.3.36;
tests/runtime/llama/test_eval_callback.py compares it with tensors made by the library.
"""

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

F32, I32 = 0, 26  # of ggml_type
MUL_MAT, GET_ROWS = 29, 40  # of ggml_op
_WEIGHT = re.compile(rb"(?:[^#]*#)?((?:blk\.\d+\.\w+|output|token_embd)\.weight)(?:#.*)?")


class GgmlTensor(ctypes.Structure):
    """The first fields of a `ggml_tensor`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),  # elements in each dimension, innermost first
        ("nb", ctypes.c_size_t * 4),  # stride of each dimension in bytes
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


@dataclass(frozen=True, slots=True)
class MatMul:
    """Product of a weight matrix and its inputs, computed and not yet read by the rest of the graph.

    The arrays are views of the library's memory, valid until the tap returns.

    Attributes:
        weight: name of the matrix in the GGUF; with tied embeddings the last one is `token_embd.weight`.
        inputs: (tokens, columns), read-only: other matrices may share them.
        outputs: (tokens, rows), writable: the model continues with what a tap writes here.
    """

    weight: str
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddingLookup:
    """Rows of the token embedding, looked up and not yet read by the rest of the graph.

    The arrays are views of the library's memory, valid until the tap returns.

    Attributes:
        weight: name of the embedding in the GGUF.
        tokens: (tokens,), read-only.
        outputs: (tokens, columns), writable: the model continues with what a tap writes here.
    """

    weight: str
    tokens: NDArray[np.int32]
    outputs: NDArray[np.float32]


MatMulTap = Callable[[MatMul], None]
EmbeddingTap = Callable[[EmbeddingLookup], None]


class EvalCallback:
    """Taps wrapped as the native callback; must live as long as the context that calls it."""

    def __init__(self, tap: MatMulTap | None, embedding_tap: EmbeddingTap | None = None) -> None:
        self._taps: dict[int, Callable[[str, GgmlTensor], None]] = {}  # by ggml_op
        if tap:
            self._taps[MUL_MAT] = lambda weight, node: tap(MatMul(weight, _inputs(node), _rows(node)))
        if embedding_tap:
            self._taps[GET_ROWS] = lambda weight, node: embedding_tap(
                EmbeddingLookup(weight, _tokens(node), _rows(node))
            )
        self._failure: BaseException | None = None
        self.native = llama_cpp.llama_cpp.ggml_backend_sched_eval_callback(self._call)

    def raise_failure(self) -> None:
        """Raise the exception of a tap, which could not pass through the library."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _call(self, address: int, ask: bool, _: Any) -> bool:
        """Say whether a tensor is wanted, if `ask`; else pass it to its tap. False then ends the graph."""
        if self._failure is not None:
            return ask  # ends the graph as soon as possible
        try:
            tensor = GgmlTensor.from_address(address)
            tap = self._taps.get(tensor.op)
            weight = _weight(tensor) if tap else None
            if tap and weight and not ask:
                tap(weight, tensor)
        except BaseException as failure:  # KeyboardInterrupt too: ctypes would print it and continue
            self._failure = failure
            return ask
        return weight is not None


def _weight(tensor: GgmlTensor) -> str | None:
    """Return the name of the weight that a product or lookup reads, without a backend's decoration."""
    name = _WEIGHT.fullmatch(GgmlTensor.from_address(tensor.src[0]).name)
    return name[1].decode() if name else None


def _inputs(product: GgmlTensor) -> NDArray[np.float32]:
    rows = _rows(GgmlTensor.from_address(product.src[1]))
    rows.flags.writeable = False
    return rows


def _tokens(lookup: GgmlTensor) -> NDArray[np.int32]:
    tensor = GgmlTensor.from_address(lookup.src[1])
    count, *others = tensor.ne
    assert tensor.type == I32 and others == [1, 1, 1] and tensor.nb[0] == 4, (tensor.type, list(tensor.ne))
    tokens = np.frombuffer((ctypes.c_char * (4 * count)).from_address(tensor.data), np.int32)
    tokens.flags.writeable = False
    return tokens


def _rows(tensor: GgmlTensor) -> NDArray[np.float32]:
    """View a float32 matrix whose rows need not be contiguous."""
    columns, count, *others = tensor.ne
    assert tensor.type == F32 and others == [1, 1], (tensor.name, tensor.type, list(tensor.ne))
    stride = tensor.nb[1]
    memory = (ctypes.c_char * ((count - 1) * stride + 4 * columns)).from_address(tensor.data)
    return np.ndarray((count, columns), np.float32, memory, strides=(stride, 4))  # (tokens, columns)
