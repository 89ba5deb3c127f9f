"""llama.cpp's own quantizer, to one type throughout (`--pure`) or to one of its mixes.

python lab/llama_quantize.py FULL.gguf QUANTIZED.gguf mix Q4_K_M [IMPORTANCE]

It does what `llama-quantize` does. Of a file's shapes alone it also tells the sizes of all its formats.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import llama_cpp
import typer
from gguf import GGMLQuantizationType, LlamaFileType
from thirteen.convert.quantize.importance import Importance, read_importance
from thirteen.convert.tensors import padded
from thirteen.errors import OutputError
from thirteen.files.gguf.header import Header, row_bytes
from thirteen.files.trusted_files import trust_file
from thirteen.runtime.machine.threads import default_threads
from thirteen.runtime.native.llama_cpp_library import LLAMA_CPP

# Types whose mix has another name.
_MIX_OF_TYPE = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "MXFP4": "MXFP4_MOE"}
_TEXT_BYTES_MAX = 127  # of a metadata value that llama.cpp overrides
# "[   3/ 290]  blk.0.attn_k.weight - [ 576, 192, 1, 1], type = f16, size = 0.211 MiB -> 0.056 MiB (q4_K)"
_LINE = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[[^]]*\], type = +\S+, size = [^()]*?(?:\((\w+)\))?$")


@dataclass(frozen=True, slots=True)
class StockFormat:
    """A format of llama.cpp's quantizer.

    Attributes:
        kind: "uniform" for one type in all matrices whose rows fit it, "mix" for what llama.cpp chooses.
        name: name of the type, or of the mix as `llama-quantize` spells it.
    """

    kind: str
    name: str


# Without the types below 3 bits for which llama.cpp aborts if an importance is missing.
UNIFORM = tuple(
    StockFormat("uniform", name)
    for name in (
        *("Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS", "MXFP4", "IQ4_NL", "Q4_0", "Q4_K"),
        *("Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0"),
    )
)
MIXES = tuple(
    StockFormat("mix", name)
    for name in (
        *("Q2_K", "IQ3_XXS", "IQ3_XS", "Q3_K_S", "IQ3_S", "IQ3_M", "Q3_K_M", "Q3_K_L", "IQ4_XS", "IQ4_NL"),
        *("Q4_0", "Q4_K_S", "Q4_K_M", "Q4_1", "Q5_0", "Q5_K_S", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0"),
    )
)


def quantize_stock(source: Path, target: Path, stock: StockFormat, importance: Path | None = None) -> None:
    """Quantize a model in F32 or F16, with an importance file as for `llama-quantize --imatrix`."""
    params = _params(stock, default_threads())
    if importance is not None:
        statistics = read_importance(importance)  # the parameters point into its arrays
        params.imatrix, params.kv_overrides = _imatrix(statistics), _overrides(statistics)
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise OutputError(
            f"{source}: llama.cpp cannot quantize it to {stock.name}: {LLAMA_CPP.log.take_errors()}"
        )
    trust_file(target)


def stock_sizes(header: Header) -> dict[StockFormat, int]:
    """Bytes of the file in each format, with this file's metadata."""
    tensors = header.tensors.values()
    metadata_bytes = header.file_bytes - sum(padded(tensor.nbytes) for tensor in tensors)
    sizes = {}
    for stock in (*UNIFORM, *MIXES):
        types = tensor_types(header, stock)
        nbytes = (prod(t.shape[:-1]) * row_bytes(t.shape[-1], types[t.name]) for t in tensors)
        sizes[stock] = metadata_bytes + sum(map(padded, nbytes))
    return sizes


def tensor_types(header: Header, stock: StockFormat) -> dict[str, GGMLQuantizationType]:
    """Type of each tensor in a format, with an importance matrix: shapes decide, no weights are read."""
    params = _params(stock, 1)
    params.dry_run = True
    # llama.cpp chooses types by whether there is an importance matrix; an empty one is enough.
    params.imatrix = (llama_cpp.llama_model_imatrix_data * 1)()
    source = os.fsencode(header.path)
    with _log_lines() as lines:
        if llama_cpp.llama_model_quantize(source, source, ctypes.byref(params)):  # writes nothing
            raise OutputError(f"{header.path}: llama.cpp cannot quantize it to {stock.name}")
        found = [_LINE.search(line) for line in "".join(lines).splitlines()]
    types = {name: tensor.type for name, tensor in header.tensors.items()}
    return types | {line[1]: GGMLQuantizationType[line[2].upper()] for line in found if line and line[2]}


@contextmanager
def _log_lines() -> Iterator[list[str]]:
    """Collect the library's messages."""
    texts = list[str]()

    def receive(_level: int, text: bytes, _: ctypes.c_void_p) -> None:
        texts.append(text.decode("utf-8", "replace"))

    callback = llama_cpp.llama_log_callback(receive)  # the library keeps only a pointer to it
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield texts
    finally:
        LLAMA_CPP.log.install()


def _params(stock: StockFormat, threads: int) -> Any:
    params = llama_cpp.llama_model_quantize_default_params()
    mix = _MIX_OF_TYPE.get(stock.name, stock.name)
    params.nthread, params.ftype = threads, int(LlamaFileType[f"MOSTLY_{mix}"])
    params.pure = stock.kind == "uniform"
    return params


def _imatrix(importance: Importance) -> Any:
    """The mean squares of each matrix's inputs, as `llama-quantize` passes them, and an empty last entry."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance.mean_squares) + 1))()
    for entry, (name, means) in zip(entries, importance.mean_squares.items(), strict=False):
        entry.name, entry.size = name.encode("utf-8", "surrogateescape"), means.size
        entry.data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


def _overrides(importance: Importance) -> Any:
    """The metadata that `llama-quantize` writes about the importance, and an empty last key."""
    facts: dict[str, str | int] = {
        "file": str(importance.path),
        "dataset": importance.datasets[0] if importance.datasets else "",
        "entries_count": len(importance.mean_squares),
        "chunks_count": importance.chunk_count,
    }
    present = {key: value for key, value in facts.items() if value}
    overrides = (llama_cpp.llama_model_kv_override * (len(present) + 1))()
    for override, (key, value) in zip(overrides, present.items(), strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
        else:
            override.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
            override.value.val_str = value.encode("utf-8", "surrogateescape")[:_TEXT_BYTES_MAX]
    return overrides


def main(
    source: Path,
    target: Path,
    kind: str,
    name: str,
    importance: Annotated[Path | None, typer.Argument()] = None,
) -> None:
    """Quantize a file."""
    quantize_stock(source, target, StockFormat(kind, name), importance)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    typer.run(main)
