"""llama.cpp's own quantizer, to one type throughout (`--pure`) or to one of its mixes.

`python -m thirteen.bench.peers.llama_quantize --kind mix --name Q4_K_M FULL.gguf QUANTIZED.gguf` does what
`llama-quantize` does. It runs in a separate process, because the native call takes minutes and cannot be
interrupted.
"""

import argparse
import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import llama_cpp
from gguf import LlamaFileType

from ...convert.quantize.importance import Importance, read_importance
from ...errors import OutputError
from ...files.atomic_write import atomic_write
from ...files.gguf.header import read_header
from ...files.output import check_target
from ...files.trusted_files import trust_file
from ...runtime.llama.gguf_checks import check_model
from ...runtime.llama.library import LOG
from ...runtime.threads import physical_cores
from ..harness.isolated import print_outcome, run_in_subprocess

StockKind = Literal["uniform", "mix"]

# Types whose mix has another name.
_MIX_OF_TYPE = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "MXFP4": "MXFP4_MOE"}
_TEXT_BYTES_MAX = 127  # of a metadata value that llama.cpp overrides


@dataclass(frozen=True, slots=True)
class StockFormat:
    """A format of llama.cpp's quantizer.

    Attributes:
        kind: "uniform" for one type in all matrices whose rows fit it (`--pure`), "mix" for types that
            llama.cpp chooses.
        name: name of the type, or of the mix as `llama-quantize` spells it.
    """

    kind: StockKind
    name: str

    @property
    def file_type(self) -> int:
        """llama.cpp's number of the format."""
        return int(LlamaFileType[f"MOSTLY_{_MIX_OF_TYPE.get(self.name, self.name)}"])


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
_FORMATS = (*UNIFORM, *MIXES)


def quantize_stock(
    source: Path,
    target: Path,
    stock: StockFormat,
    *,
    importance: Path | None = None,
    threads: int | None = None,
) -> None:
    """Quantize a model with llama.cpp. The target is written atomically.

    Args:
        source: a model in F32, F16 or BF16.
        target: the GGUF to write.
        stock: one of UNIFORM or MIXES.
        importance: an importance file, as for `llama-quantize --imatrix`.
        threads: quantizer threads; by default one per physical core.

    Raises:
        ModelFileError: `source` is not a model that this build can run, or `importance` is not an importance
            file.
        OutputError: the format does not exist, the target cannot be written, or llama.cpp refuses, for
            example because the importance is for another model or lacks what a type requires.
    """
    if stock not in _FORMATS:
        names = ", ".join(known.name for known in _FORMATS if known.kind == stock.kind)
        raise OutputError(f"{stock.name!r}: llama.cpp has no such {stock.kind} format; it has {names}")
    check_model(read_header(source))
    check_target(target, source)
    arguments = [f"--kind={stock.kind}", f"--name={stock.name}", f"--threads={threads or physical_cores()}"]
    arguments += [] if importance is None else [f"--importance={importance}"]
    with atomic_write(target, exclusive=True) as part:
        run_in_subprocess(
            __name__,
            [*arguments, "--", str(source), part.name],
            lambda status, last: OutputError(
                f"{target}: llama.cpp's quantizer failed with exit status {status} for {stock.name}: {last}"
            ),
        )
    trust_file(target)


def quantize_params(stock: StockFormat, threads: int) -> Any:
    """Parameters of llama_model_quantize for a format."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.pure = threads, stock.file_type, stock.kind == "uniform"
    return params


def _quantize_in_worker(
    source: Path, target: Path, stock: StockFormat, importance: Path | None, threads: int
) -> dict[str, Any]:
    params = quantize_params(stock, threads)
    if importance is not None:
        statistics = read_importance(importance)  # the parameters point into its arrays
        params.imatrix, params.kv_overrides = _imatrix(statistics), _overrides(statistics)
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise OutputError(f"{source}: llama.cpp cannot quantize it to {stock.name}: {LOG.take_errors()}")
    return {"file_bytes": target.stat().st_size}


def _imatrix(importance: Importance) -> Any:
    """The mean squares of each matrix's inputs, as `llama-quantize` passes them, and an empty last entry."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance.mean_squares) + 1))()
    pointer = ctypes.POINTER(ctypes.c_float)
    for entry, (name, means) in zip(entries, importance.mean_squares.items(), strict=False):
        entry.name, entry.size = name.encode("utf-8", "surrogateescape"), means.size
        entry.data = means.ctypes.data_as(pointer)
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


def main() -> int:
    """Quantize the file given on the command line; errors are JSON too, with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="FULL.gguf")
    parser.add_argument("target", type=Path, metavar="QUANTIZED.gguf")
    parser.add_argument("--kind", choices=("uniform", "mix"), required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--importance", type=Path)
    parser.add_argument("--threads", type=int, default=physical_cores())
    args = parser.parse_args()
    stock = StockFormat(args.kind, args.name)
    return print_outcome(
        lambda: _quantize_in_worker(args.source, args.target, stock, args.importance, args.threads)
    )


if __name__ == "__main__":
    sys.exit(main())
