"""Tensor sizes of llama.cpp's own quantized files, from a dry run of its quantizer.

`python -m thirteen.bench.peers.llama_quantize_sizes FILE.gguf` prints the sizes for all types and mixes of
llama.cpp as JSON, or with `--mix NAME` the tensor types of one mix. It reads no weights: shapes decide. Like
llama_quantize it runs in a separate process.
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
from ...files.gguf.header import Header, read_header, row_bytes
from ...runtime.llama.gguf_checks import check_model
from ..harness.isolated import print_outcome, run_in_subprocess
from .llama_quantize import MIXES, UNIFORM, StockFormat, StockKind, quantize_params

# "[   3/ 290]  blk.0.attn_k.weight - [ 576, 192, 1, 1], type = f16, size = 0.211 MiB -> 0.056 MiB (q4_K)"
_LINE = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[[^]]*\], type = +\S+, size = [^()]*?(?:\((\w+)\))?$")


@dataclass(frozen=True, slots=True)
class StockTensorSizes:
    """Tensor sizes of one stock file.

    Attributes:
        kind: kind of its format; see StockFormat.
        name: name of its format.
        nbytes: bytes by tensor name.
    """

    kind: StockKind
    name: str
    nbytes: Mapping[str, int]


def stock_tensor_sizes(model: Path) -> tuple[StockTensorSizes, ...]:
    """Tensor sizes of all stock files of a model, as llama.cpp makes them with an importance matrix.

    Args:
        model: a GGUF file, of any types.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
    """
    return tuple(StockTensorSizes(**sizes) for sizes in _run(model)["stock"])


def mix_tensor_types(model: Path, mix: str) -> dict[str, GGMLQuantizationType]:
    """Type of each tensor in one of llama.cpp's mixes, by tensor name.

    Args:
        model: a GGUF file with these tensors, of any types.
        mix: name of one of MIXES.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
    """
    types = _run(model, f"--mix={mix}")["types"]
    return {name: GGMLQuantizationType[type_] for name, type_ in types.items()}


def _run(model: Path, *options: str) -> dict[str, Any]:
    return run_in_subprocess(
        __name__,
        [*options, "--", str(model)],
        lambda status, last: ModelFileError(
            f"{model}: llama.cpp's dry run failed with exit status {status}: {last}"
        ),
    )


def _types_in_worker(header: Header, mix: str) -> dict[str, Any]:
    changed = _dry_run(header.path, StockFormat("mix", mix), _LogText())
    types = {name: tensor.type.name for name, tensor in header.tensors.items()}
    return {"types": types | {name: type_.upper() for name, type_ in changed.items()}}


def _sizes_in_worker(header: Header) -> dict[str, Any]:
    log, sizes = _LogText(), []
    for stock in (*UNIFORM, *MIXES):
        changed = _dry_run(header.path, stock, log)
        nbytes = {name: _nbytes(header, name, changed.get(name)) for name in header.tensors}
        sizes.append({"kind": stock.kind, "name": stock.name, "nbytes": nbytes})
    return {"stock": sizes}


class _LogText:
    """All log messages of the library as one text."""

    def __init__(self) -> None:
        self.text = ""
        self._callback = llama_cpp.llama_log_callback(self._receive)  # the library keeps only a pointer to it
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, _level: int, text: bytes, _: ctypes.c_void_p) -> None:
        self.text += text.decode("utf-8", "replace")


def _dry_run(model: Path, stock: StockFormat, log: _LogText) -> dict[str, str]:
    """The new type of each tensor whose type changes, in llama.cpp's spelling."""
    params = quantize_params(stock, 1)
    params.dry_run = True
    # llama.cpp chooses types by whether there is an importance matrix; an empty one is enough.
    params.imatrix = (llama_cpp.llama_model_imatrix_data * 1)()
    log.text = ""
    source = os.fsencode(model)
    if llama_cpp.llama_model_quantize(source, source, ctypes.byref(params)):  # writes nothing
        raise ModelFileError(f"{model}: llama.cpp cannot quantize it to {stock.name}")
    lines = filter(None, map(_LINE.search, log.text.splitlines()))
    return {line[1]: line[2] for line in lines if line[2]}


def _nbytes(header: Header, name: str, new_type: str | None) -> int:
    tensor = header.tensors[name]
    if new_type is None:
        return tensor.nbytes
    row = row_bytes(tensor.shape[-1], GGMLQuantizationType[new_type.upper()])
    return prod(tensor.shape[:-1]) * row


def main() -> int:
    """Print sizes or types for the file given on the command line; errors are JSON, with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--mix", choices=[stock.name for stock in MIXES])
    options = parser.parse_args()

    def outcome() -> dict[str, Any]:
        header = read_header(options.model)
        check_model(header)
        return _types_in_worker(header, options.mix) if options.mix else _sizes_in_worker(header)

    return print_outcome(outcome)


if __name__ == "__main__":
    sys.exit(main())
