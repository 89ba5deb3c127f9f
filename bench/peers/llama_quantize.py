"""Quantize with llama.cpp's own quantizer, to one type (`--pure`) or one of its mixes.

`python -m thirteen.bench.peers.llama_quantize --kind mix --name Q4_K_M FULL.gguf QUANTIZED.gguf` does what
`llama-quantize` does. It runs in a process of its own, because the native call takes minutes and cannot be
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
from ...files.gguf_header import read_header
from ...files.output import check_target
from ...runtime.llama.gguf_checks import check_model
from ...runtime.llama.library import LOG
from ...runtime.threads import physical_cores
from ..harness import isolated

StockKind = Literal["uniform", "mix"]

# The mix whose ground type this is, where it has another name than the type.
_MIX_OF = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "MXFP4": "MXFP4_MOE"}
_ERROR = 4  # of ggml_log_level in ggml.h; llama_cpp/_logger.py has older numbers
_TEXT_MAX = 127  # bytes of a text that llama.cpp takes as a metadata value


@dataclass(frozen=True, slots=True)
class StockFormat:
    """What llama.cpp is to make.

    Attributes:
        kind: whether all matrices have one type as far as their rows fit it (`--pure`), or llama.cpp chooses.
        name: of the type, or of the mix as `llama-quantize` has it.
    """

    kind: StockKind
    name: str

    @property
    def file_type(self) -> int:
        """llama.cpp's number for it."""
        return int(LlamaFileType[f"MOSTLY_{_MIX_OF.get(self.name, self.name)}"])


# Without those below 3 bits that llama.cpp would end the process over where an importance is missing.
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
_KNOWN = (*UNIFORM, *MIXES)


def quantize_stock(
    source: Path,
    target: Path,
    stock: StockFormat,
    *,
    importance: Path | None = None,
    threads: int | None = None,
) -> None:
    """Make a stock file, which appears whole or not at all.

    Args:
        source: a model in F32, F16 or BF16.
        target: the GGUF to write.
        stock: one of UNIFORM or MIXES.
        importance: an importance file, as for `llama-quantize --imatrix`.
        threads: that quantize; by default one for each physical core.

    Raises:
        ModelFileError: `source` is not a model that this build can run, or `importance` no importance file.
        OutputError: there is no such type or mix, the target cannot be written, or llama.cpp refuses: it does
            where the importance is for another model, or lacks what a type needs.
    """
    if stock not in _KNOWN:
        names = ", ".join(known.name for known in _KNOWN if known.kind == stock.kind)
        raise OutputError(f"{stock.name!r}: llama.cpp makes no such {stock.kind} file; there are {names}")
    check_model(read_header(source))
    check_target(target, source)
    arguments = [f"--kind={stock.kind}", f"--name={stock.name}", f"--threads={threads or physical_cores()}"]
    arguments += [] if importance is None else [f"--importance={importance}"]
    with atomic_write(target, exclusive=True) as part:
        isolated.run_isolated(
            __name__,
            [*arguments, "--", str(source), part.name],
            lambda status, output: OutputError(
                f"{target}: llama.cpp's quantizer ended with status {status} over {stock.name}: {output}"
            ),
        )


def _quantize_here(
    source: Path, target: Path, stock: StockFormat, importance: Path | None, threads: int
) -> None:
    params = _params(stock, read_importance(importance) if importance else None, threads)
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise OutputError(f"{source}: llama.cpp did not quantize it to {stock.name}: {LOG.take_errors()}")


def _params(stock: StockFormat, importance: Importance | None, threads: int) -> Any:
    """The call's parameters, which point into the importance."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = stock.file_type
    params.pure = stock.kind == "uniform"
    if importance is not None:
        params.imatrix, params.kv_overrides = _entries(importance), _overrides(importance)
    return params


def _entries(importance: Importance) -> Any:
    """The mean squares of each matrix' inputs, as `llama-quantize` passes them; an empty entry ends them."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance.mean_squares) + 1))()
    pointer = ctypes.POINTER(ctypes.c_float)
    for entry, (name, means) in zip(entries, importance.mean_squares.items(), strict=False):
        entry.name, entry.size = name.encode("utf-8", "surrogateescape"), means.size
        entry.data = means.ctypes.data_as(pointer)
    return entries


def _overrides(importance: Importance) -> Any:
    """What `llama-quantize` writes of the importance into the file; an empty key ends it."""
    facts: dict[str, str | int] = {
        "file": str(importance.path),
        "dataset": importance.datasets[0] if importance.datasets else "",
        "entries_count": len(importance.mean_squares),
        "chunks_count": importance.chunk_count,
    }
    told = {key: value for key, value in facts.items() if value}
    overrides = (llama_cpp.llama_model_kv_override * (len(told) + 1))()
    for override, (key, value) in zip(overrides, told.items(), strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
        else:
            override.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
            override.value.val_str = value.encode("utf-8", "surrogateescape")[:_TEXT_MAX]
    return overrides


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="FULL.gguf")
    parser.add_argument("target", type=Path, metavar="QUANTIZED.gguf")
    parser.add_argument("--kind", choices=("uniform", "mix"), required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--importance", type=Path)
    parser.add_argument("--threads", type=int, default=physical_cores())
    return parser.parse_args()


def main() -> int:
    """Make the file that the command line names; an error is JSON as well, with exit status 2."""
    given = _arguments()

    def made() -> dict[str, Any]:
        stock = StockFormat(given.kind, given.name)
        _quantize_here(given.source, given.target, stock, given.importance, given.threads)
        return {"file_bytes": given.target.stat().st_size}

    return isolated.print_outcome(made)


if __name__ == "__main__":
    sys.exit(main())
