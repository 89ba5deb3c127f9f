"""Self-test of the C structs that are mirrored in Python, before the first model is loaded.

ctypes sees no header: with another llama.cpp, a field would be read from the wrong place, without an error.
So values that the library itself puts into its structs are read back.
"""

import ctypes
from collections.abc import Iterator
from functools import cache
from importlib.metadata import requires, version
from typing import Any

import llama_cpp

from ...errors import ModelFileError
from .eval_callback import F32, MUL_MAT, GgmlTensor

# Defaults of llama.cpp that have not changed for years, from the beginning to the end of each struct.
_MODEL_DEFAULTS = {
    **{"devices": None, "split_mode": 1, "main_gpu": 0, "progress_callback_user_data": None},
    **{"vocab_only": False, "check_tensors": False, "use_extra_bufts": True, "no_host": False},
}
_CONTEXT_DEFAULTS = {
    **{"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "rope_scaling_type": -1},
    **{"pooling_type": -1, "flash_attn_type": -1, "yarn_ext_factor": -1.0, "defrag_thold": -1.0},
    **{"cb_eval_user_data": None, "type_k": 1, "type_v": 1, "abort_callback_data": None},
    **{"embeddings": False, "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True},
    **{"kv_unified": False},
}
_TENSOR_BYTES = 1 << 16  # of the memory for the tensors that are read back


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def check_struct_layouts() -> None:
    """Check the layouts; a second call returns at once.

    Raises:
        ModelFileError: a value is not where it should be.
    """
    try:
        wrong = next(_differences(), None)
    except (AttributeError, ImportError, OSError) as error:  # a struct, a field or a function is gone
        wrong = str(error)
    if wrong:
        (supported,) = (one for one in requires("thirteen") or [] if one.startswith("llama-cpp-python"))
        raise ModelFileError(
            f"llama-cpp-python {version('llama-cpp-python')} has other struct layouts than those known here: "
            f"{wrong}; install {supported}"
        )


def _differences() -> Iterator[str]:
    yield from _compare(llama_cpp.llama_model_default_params(), _MODEL_DEFAULTS)
    yield from _compare(llama_cpp.llama_context_default_params(), _CONTEXT_DEFAULTS)
    yield from _batch_differences()
    yield from _tensor_differences()


def _compare(found: Any, expected: dict[str, Any]) -> Iterator[str]:
    for name, value in expected.items():
        if getattr(found, name) != value:
            yield f"{type(found).__name__}.{name} is {getattr(found, name)!r} by default, not {value!r}"


def _batch_differences() -> Iterator[str]:
    tokens = 4
    batch = llama_cpp.llama_batch_init(tokens, 0, 1)
    try:
        filled = [
            bool(getattr(batch, name)) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")
        ]
        # The library ends the list of sequence ids with a null.
        if batch.n_tokens or filled != [True, False, True, True, True, True] or batch.seq_id[tokens]:
            yield "llama_batch"
    finally:
        llama_cpp.llama_batch_free(batch)


def _tensor_differences() -> Iterator[str]:
    """Compare a product of matrices of 8 columns, with 3 and 5 rows."""
    pointer, int64 = ctypes.c_void_p, ctypes.c_int64
    new_tensor = ggml_function("ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, int64, int64)
    multiply = ggml_function("ggml_mul_mat", pointer, pointer, pointer, pointer)
    data_of = ggml_function("ggml_get_data", pointer, pointer)
    overhead = ggml_function("ggml_tensor_overhead", ctypes.c_size_t)()
    memory = ggml_function("ggml_init", pointer, _InitParams)(_InitParams(_TENSOR_BYTES, None, False))
    try:
        weight, inputs = new_tensor(memory, F32, 8, 3), new_tensor(memory, F32, 8, 5)
        ggml_function("ggml_set_name", pointer, pointer, ctypes.c_char_p)(weight, b"a weight")
        address = multiply(memory, weight, inputs)
        product = GgmlTensor.from_address(address)
        found = (product.type, product.op, *product.ne, *product.nb, *product.src[:3], product.data)
        expected = (F32, MUL_MAT, 3, 5, 1, 1, 4, 12, 60, 60, weight, inputs, None, data_of(address))
        name = GgmlTensor.from_address(weight).name
        # Each tensor follows a `ggml_object` of 32 bytes, and ends with a pointer and padding.
        if (found, name, overhead) != (expected, b"a weight", 32 + ctypes.sizeof(GgmlTensor) + 16):
            yield "ggml_tensor"
    finally:
        ggml_function("ggml_free", None, pointer)(memory)


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml, with the types of its result and arguments."""
    from llama_cpp._ggml import libggml  # noqa: PLC0415 - may be gone, which the check reports

    function = libggml[name]
    function.restype, function.argtypes = result, arguments
    return function
