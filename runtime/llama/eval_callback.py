"""What a model makes of its matrices, shown while it is computed, by llama.cpp's evaluation callback.

A `ggml_tensor` is read here as ggml.h of llama-cpp-python 0.3.36 lays it out; tests/runtime/test_product.py
compares that with tensors which the library makes.
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
    """The beginning of a `ggml_tensor`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),  # numbers in each dimension, the innermost first
        ("nb", ctypes.c_size_t * 4),  # bytes from one to the next
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
    """A weight matrix times what its layer was given, just computed and not yet read by anything.

    The arrays lie in the library's own memory and are valid only until the tap returns.

    Attributes:
        weight: the matrix' name in the GGUF; where embeddings are tied, the last is `token_embd.weight`.
        inputs: (tokens, columns), not to be written to: other matrices may be given the same.
        outputs: (tokens, rows); what is written here is what the model goes on with.
    """

    weight: str
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddingLookup:
    """Rows of the token embedding, just looked up and not yet read by anything.

    The arrays lie in the library's own memory and are valid only until the tap returns.

    Attributes:
        weight: the matrix' name in the GGUF.
        tokens: whose rows they are, (tokens,), not to be written to.
        outputs: (tokens, columns); what is written here is what the model goes on with.
    """

    weight: str
    tokens: NDArray[np.int32]
    outputs: NDArray[np.float32]


MatMulTap = Callable[[MatMul], None]
EmbeddingTap = Callable[[EmbeddingLookup], None]


class EvalCallback:
    """Taps as the native callback, which must live as long as the context that calls it."""

    def __init__(self, tap: MatMulTap | None, look_up_tap: EmbeddingTap | None = None) -> None:
        self._show: dict[int, Callable[[str, GgmlTensor], None]] = {}  # by ggml_op
        if tap:
            self._show[MUL_MAT] = lambda weight, of: tap(MatMul(weight, _inputs(of), _rows(of)))
        if look_up_tap:
            self._show[GET_ROWS] = lambda weight, of: look_up_tap(
                EmbeddingLookup(weight, _tokens(of), _rows(of))
            )
        self._failure: BaseException | None = None
        self.native = llama_cpp.llama_cpp.ggml_backend_sched_eval_callback(self._called)

    def raise_failure(self) -> None:
        """Raise what the tap raised, which could not pass through the library."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _called(self, address: int, ask: bool, _: Any) -> bool:
        """Whether to show a tensor, if asked; else it is shown, and False ends the computation."""
        if self._failure is not None:
            return ask  # so that the rest ends as soon as it can
        try:
            tensor = GgmlTensor.from_address(address)
            show = self._show.get(tensor.op)
            weight = _weight(tensor) if show else None
            if show and weight and not ask:
                show(weight, tensor)
        except BaseException as failure:  # an interrupt as well: ctypes would print it and go on
            self._failure = failure
            return ask
        return weight is not None


def _weight(tensor: GgmlTensor) -> str | None:
    """The name of the model's matrix that a product or look-up is of, however a backend has decorated it."""
    name = _WEIGHT.fullmatch(GgmlTensor.from_address(tensor.src[0]).name)
    return name[1].decode() if name else None


def _inputs(product: GgmlTensor) -> NDArray[np.float32]:
    rows = _rows(GgmlTensor.from_address(product.src[1]))
    rows.flags.writeable = False
    return rows


def _tokens(look_up: GgmlTensor) -> NDArray[np.int32]:
    tensor = GgmlTensor.from_address(look_up.src[1])
    count, *others = tensor.ne
    assert tensor.type == I32 and others == [1, 1, 1] and tensor.nb[0] == 4, (tensor.type, list(tensor.ne))
    tokens = np.frombuffer((ctypes.c_char * (4 * count)).from_address(tensor.data), np.int32)
    tokens.flags.writeable = False
    return tokens


def _rows(tensor: GgmlTensor) -> NDArray[np.float32]:
    """A view of a matrix of float32, whose rows need not lie close together."""
    columns, count, *others = tensor.ne
    assert tensor.type == F32 and others == [1, 1], (tensor.name, tensor.type, list(tensor.ne))
    step = tensor.nb[1]
    memory = (ctypes.c_char * ((count - 1) * step + 4 * columns)).from_address(tensor.data)
    return np.ndarray((count, columns), np.float32, memory, strides=(step, 4))  # (tokens, columns)
