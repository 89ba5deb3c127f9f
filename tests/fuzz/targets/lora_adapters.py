"""LoRA adapters in GGUF files, for the model in the corpus of gguf_headers."""

from pathlib import Path

from thirteen.files.gguf.header import read_header
from thirteen.runtime.llama.gguf_checks import check_adapter

from ..gguf_mutator import mutate_gguf
from ..target import HERE, Target, accepts, scratch_file
from .gguf_headers import check_values

BASE = HERE / "corpus/gguf_headers/llama"
_BASE_HEADER = read_header(BASE)


def check(data: bytes) -> bool:
    return accepts(_read, scratch_file("adapter.gguf", data), data)


def _read(path: Path, data: bytes) -> None:
    header = read_header(path)
    check_values(header, data)
    check_adapter(header, _BASE_HEADER)


TARGET = Target(check, mutate=mutate_gguf)
