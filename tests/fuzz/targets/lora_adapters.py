"""LoRA adapters in GGUF files, for the model in the corpus of gguf_headers."""

from thirteen.errors import ThirteenError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.llama.gguf_checks import check_adapter

from ..gguf_mutator import mutate_gguf
from ..target import HERE, Target, refused, scratch_file
from .gguf_headers import check_values

BASE = HERE / "corpus/gguf_headers/llama"
_BASE_HEADER = read_header(BASE)


def check(data: bytes) -> bool:
    path = scratch_file("adapter.gguf", data)
    try:
        header = read_header(path)
        check_values(header, data)
        check_adapter(header, _BASE_HEADER)
    except ThirteenError as error:
        return refused(error)
    return True


TARGET = Target(check, mutate=mutate_gguf)
