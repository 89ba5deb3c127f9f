"""Models and adapters in llama.cpp: what this project accepts loads and runs there without a signal.

native_loader.py also compares the keys, values and tensors that ggml's parser finds with those found here.
"""

from thirteen.errors import ThirteenError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.llama.gguf_checks import check_adapter, check_model

from ...runtime.llama.loader_process import LoaderProcess, is_survived
from ..mutators import mutate_gguf
from ..target import BASE, Target, refused, scratch_file

_load = LoaderProcess(BASE)
_BASE_HEADER = read_header(BASE)


def check(data: bytes) -> bool:
    path = scratch_file("native.gguf", data)
    try:  # here too, so that the fuzzer sees which lines an input reaches
        header = read_header(path)
        if "adapter.type" in header.fields:
            check_adapter(header, _BASE_HEADER)
        else:
            check_model(header)
    except ThirteenError as error:
        return refused(error)
    outcome = _load(path)
    assert is_survived(outcome), outcome
    return outcome == "ran"


TARGET = Target(check, max_bytes=1 << 14, mutate=mutate_gguf)
