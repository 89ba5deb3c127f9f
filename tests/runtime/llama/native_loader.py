"""Loads GGUF files whose paths come on standard input, as the engine does, and prints the outcome of each.

A script, not a test: a signal that ends it is the test's finding. What the check of this project accepts is
also read by ggml's own parser, and both must have found the same.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["GGML_NO_BACKTRACE"] = "1"  # otherwise each abort starts a debugger, which takes seconds

from gguf import GGUFValueType as Kind
from llama_cpp._ggml import libggml
from thirteen.errors import ThirteenError
from thirteen.files.gguf.header import Field, Header, read_header
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.gguf_checks import check_adapter, check_model, is_checked
from thirteen.runtime.llama.model import LoraAdapter, Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.request import Sampling

TIME_LIMIT_S = 60
TOKENS = (1, 2, 3, 4, 5)
LAYOUTS = {
    Kind.UINT8: "B",
    Kind.INT8: "b",
    Kind.UINT16: "H",
    Kind.INT16: "h",
    Kind.UINT32: "I",
    Kind.INT32: "i",
    Kind.FLOAT32: "f",
    Kind.BOOL: "?",
    Kind.UINT64: "Q",
    Kind.INT64: "q",
    Kind.FLOAT64: "d",
}


class _Params(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def _bind() -> Iterator[tuple[str, Any]]:
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_size_t
    returns: dict[str, tuple[Any, ...]] = {
        "init_from_file": (pointer, text, _Params),
        "free": (None, pointer),
        "get_version": (ctypes.c_uint32, pointer),
        "get_data_offset": (size, pointer),
        "get_n_kv": (number, pointer),
        "find_key": (number, pointer, text),
        "get_key": (text, pointer, number),
        "get_kv_type": (ctypes.c_int, pointer, number),
        "get_arr_type": (ctypes.c_int, pointer, number),
        "get_arr_n": (size, pointer, number),
        "get_arr_data": (pointer, pointer, number),
        "get_arr_str": (text, pointer, number, size),
        "get_val_str": (text, pointer, number),
        "get_val_data": (pointer, pointer, number),
        "get_n_tensors": (number, pointer),
        "get_tensor_name": (text, pointer, number),
        "get_tensor_type": (ctypes.c_int, pointer, number),
        "get_tensor_offset": (size, pointer, number),
        "get_tensor_size": (size, pointer, number),
    }
    for name, (result, *arguments) in returns.items():
        function = libggml[f"gguf_{name}"]
        function.restype, function.argtypes = result, arguments
        yield name, function


gguf = dict(_bind())


def differences(header: Header) -> Iterator[str]:
    """Where ggml's parser reads something else than read_header()."""
    context = gguf["init_from_file"](os.fsencode(header.path), _Params(True, None))
    if not context:
        yield "ggml refuses the file"
        return
    try:
        if gguf["get_version"](context) != header.version:
            yield "version"
        if gguf["get_n_kv"](context) != len(header.fields):
            yield "number of metadata keys"
        for index, (key, field) in enumerate(header.fields.items()):
            name = key.encode()
            if gguf["get_key"](context, index) != name or gguf["find_key"](context, name) != index:
                yield f"metadata key {key!r}"
            elif _read(context, index) != _shown(field):
                yield f"metadata key {key!r}: {_read(context, index)} is {_shown(field)} here"
        yield from _tensor_differences(context, header)
    finally:
        gguf["free"](context)


def _tensor_differences(context: Any, header: Header) -> Iterator[str]:
    if gguf["get_n_tensors"](context) != len(header.tensors):
        yield "number of tensors"
    for index, tensor in enumerate(header.tensors.values()):
        found = (
            gguf["get_tensor_name"](context, index),
            gguf["get_tensor_type"](context, index),
            gguf["get_data_offset"](context) + gguf["get_tensor_offset"](context, index),
            gguf["get_tensor_size"](context, index),
        )
        if found != (tensor.name.encode(), tensor.type, tensor.offset, tensor.nbytes):
            yield f"tensor {tensor.name!r}: {found}"


def _read(context: Any, index: int) -> tuple[object, ...]:
    """Type, element type and value of a key in ggml; numbers as bytes, strings up to a zero byte."""
    kind = Kind(gguf["get_kv_type"](context, index))
    if kind is Kind.STRING:
        return kind, None, gguf["get_val_str"](context, index)
    if kind is not Kind.ARRAY:
        nbytes = struct.calcsize(f"<{LAYOUTS[kind]}")
        return kind, None, ctypes.string_at(gguf["get_val_data"](context, index), nbytes)
    element, count = Kind(gguf["get_arr_type"](context, index)), gguf["get_arr_n"](context, index)
    if element is Kind.STRING:
        return kind, element, [gguf["get_arr_str"](context, index, item) for item in range(count)]
    nbytes = count * struct.calcsize(f"<{LAYOUTS[element]}")
    return kind, element, ctypes.string_at(gguf["get_arr_data"](context, index), nbytes) if nbytes else b""


def _shown(field: Field) -> tuple[object, ...]:
    """A field as _read() returns it."""
    if Kind.STRING in (field.type, field.element):
        values = field.value if field.type is Kind.ARRAY else [field.value]
        texts = [value.encode("utf-8", "surrogateescape").split(b"\0")[0] for value in values]
        return field.type, field.element, texts if field.type is Kind.ARRAY else texts[0]
    if field.type is Kind.ARRAY and field.element is not None:
        layout = f"<{len(field.value)}{LAYOUTS[field.element]}"
        return field.type, field.element, struct.pack(layout, *field.value)
    return field.type, None, struct.pack(f"<{LAYOUTS[field.type]}", field.value)


def run(model: Model, adapter: LoraAdapter | None = None) -> None:
    """Compute a batch, sample from its logits, and restore its KV cache."""
    model.tokenize("ab 12 <|im_end|>\n é", special=True, bos=True)
    params = Settings(min(32, model.context_trained), 1, 8, threads=1, outputs=1)
    tokens = tuple(token % model.vocabulary_size for token in TOKENS)[: params.context]
    with Context(model, params, adapter) as context:
        (row,) = context.decode([Span(0, 0, tokens, rows=1)])
        with Sampler(model, Sampling(temperature=1.0, seed=13)) as sampler:
            sampler.sample(context, row)
            sampler.sample(context, row, no_digit=True)
        state = context.save(0)
        context.clear(0)
        assert not context.restore(0, state[:-1], len(tokens))
        assert context.restore(0, state, len(tokens) - 1)
        context.decode([Span(0, len(tokens) - 1, tokens[-1:], rows=1)])


def load(path: Path, base: Model) -> str:
    """The outcome of one file, a model or an adapter of `base`."""
    try:
        header = read_header(path)
        adapter = "adapter.type" in header.fields
        if adapter:
            check_adapter(header, base.header)
        else:
            check_model(header)
            if not is_checked(header):
                return "refused: the trial in another process decides"
    except ThirteenError as error:
        return f"refused: {error}"
    if different := list(differences(header)):
        return f"different: {different}"
    try:
        if adapter:
            with LoraAdapter(base, path) as lora:
                run(base, lora)
        else:
            with Model(path) as model:
                run(model)
    except ThirteenError as error:
        return f"llama.cpp refused: {error}"
    return "ran"


def main(base_path: str) -> None:
    """Load one file for each line of standard input."""
    with Model(Path(base_path)) as base:
        for line in sys.stdin:
            signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_S)  # of processor time
            try:
                outcome = load(Path(line.rstrip("\n")), base)
            except BaseException as error:
                outcome = f"raised {error!r}"
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
