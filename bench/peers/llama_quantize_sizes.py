"""Tensor sizes of llama.cpp's own quantized files, by a dry run of its quantizer.

`python -m thirteen.bench.peers.llama_quantize_sizes FILE.gguf` prints the sizes for all of llama.cpp's types
and mixes as JSON, and with `--mix NAME` the types of one mix. It reads no weights: shapes decide. It runs
in a process of its own, as llama_quantize.py does.
"""

import argparse
import ctypes
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import llama_cpp
from gguf import GGMLQuantizationType

from ...errors import ModelFileError
from ...files.gguf_header import Header, read_header, row_bytes
from ...runtime.llama.gguf_checks import check_model
from ..harness import isolated
from .llama_quantize import MIXES, UNIFORM, StockKind, StockFormat

# "[   3/ 290]  blk.0.attn_k.weight - [ 576, 192, 1, 1], type = f16, size = 0.211 MiB -> 0.056 MiB (q4_K)"
_LINE = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[[^]]*\], type = +\S+, size = [^()]*?(?:\((\w+)\))?$")


@dataclass(frozen=True, slots=True)
class StockTensorSizes:
    """The tensors of one stock file.

    Attributes:
        kind: see Stock.
        name: likewise.
        nbytes: of each tensor, by its name.
    """

    kind: StockKind
    name: str
    nbytes: Mapping[str, int]


def stock_tensor_sizes(model: Path) -> tuple[StockTensorSizes, ...]:
    """The tensors of all stock files of a model, as llama.cpp makes them with an importance matrix.

    Args:
        model: a GGUF file, of whatever types.

    Raises:
        ModelFileError: it is not a GGUF, is damaged, or not a model that this build can run.
    """
    return tuple(StockTensorSizes(**one) for one in _call(model)["stock"])


def mix_tensor_types(model: Path, mix: str) -> dict[str, GGMLQuantizationType]:
    """The type of each tensor in one of llama.cpp's mixes, by the tensor's name.

    Args:
        model: a GGUF file with these tensors, of whatever types.
        mix: its name, one of MIXES.

    Raises:
        ModelFileError: it is not a GGUF, is damaged, or not a model that this build can run.
    """
    said = _call(model, f"--mix={mix}")
    return {name: GGMLQuantizationType[type_] for name, type_ in said["types"].items()}


def _call(model: Path, *options: str) -> dict[str, Any]:
    return isolated.run_isolated(
        __name__,
        [*options, "--", str(model)],
        lambda status, last: ModelFileError(
            f"{model}: llama.cpp's dry run ended with status {status}: {last}"
        ),
    )


def _types_here(model: Path, mix: str) -> dict[str, Any]:
    header = read_header(model)
    check_model(header)
    new = _dry_run(model, StockFormat("mix", mix), _Messages())
    old = {name: tensor.type.name for name, tensor in header.tensors.items()}
    return {"types": old | {name: type_.upper() for name, type_ in new.items()}}


def _sizes_here(model: Path) -> dict[str, Any]:
    header = read_header(model)
    check_model(header)
    messages = _Messages()
    made = []
    for stock in (*UNIFORM, *MIXES):
        types = _dry_run(model, stock, messages)
        nbytes = {name: _nbytes(header, name, types.get(name)) for name in header.tensors}
        made.append({"kind": stock.kind, "name": stock.name, "nbytes": nbytes})
    return {"stock": made}


class _Messages:
    """What the library says, kept as one text."""

    def __init__(self) -> None:
        self.text = ""
        self._callback = llama_cpp.llama_log_callback(self._receive)  # the library keeps only a pointer
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, _level: int, text: bytes, _: ctypes.c_void_p) -> None:
        self.text += text.decode("utf-8", "replace")


def _dry_run(model: Path, stock: StockFormat, messages: _Messages) -> dict[str, str]:
    """The new type of each tensor that would get another one, as llama.cpp names it."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.dry_run = 1, True
    params.ftype, params.pure = stock.file_type, stock.kind == "uniform"
    params.imatrix = (llama_cpp.llama_model_imatrix_data * 1)()  # given, though of no tensor: choices know it
    messages.text = ""
    source = os.fsencode(model)
    if llama_cpp.llama_model_quantize(source, source, ctypes.byref(params)):  # it writes nothing
        raise ModelFileError(f"{model}: llama.cpp makes no {stock.name} of it")
    lines = filter(None, map(_LINE.search, messages.text.splitlines()))
    return {line[1]: line[2] for line in lines if line[2]}


def _nbytes(header: Header, name: str, new_type: str | None) -> int:
    tensor = header.tensors[name]
    if new_type is None:
        return tensor.nbytes
    type_ = GGMLQuantizationType[new_type.upper()]
    return prod(tensor.shape[:-1]) * row_bytes(tensor.shape[-1], type_)


def main() -> int:
    """Tell what the command line asks of a model; an error is JSON too, with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--mix", choices=[stock.name for stock in MIXES])
    given = parser.parse_args()
    return isolated.print_outcome(
        lambda: _types_here(given.model, given.mix) if given.mix else _sizes_here(given.model)
    )


if __name__ == "__main__":
    sys.exit(main())
