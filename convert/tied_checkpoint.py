"""A base that stores one matrix twice, as its token embedding and as its output.

Many GGUF files of models with tied embeddings do, in types of their own. The two then differ by rounding.
"""

from dataclasses import replace

import numpy as np
from gguf import GGMLQuantizationType

from ..files.gguf.header import row_bytes
from ..stats.arrays import Floats
from .quantize.ggml import NEED_IMPORTANCE, dequantize_rows, quantize_rows
from .source.architecture import EMBEDDING, OUTPUT
from .source.checkpoint import Checkpoint

_BLOCK = 4096  # rows that are compared at a time
_ROUNDING_MAX = 2.0  # a row's difference may be so many times its rounding error in the smaller type


def matrix_names(base: Checkpoint) -> tuple[str, str]:
    """Names of the token embedding and the output of an untied base."""
    names = {spec.target: name for name, spec in base.specs.items()}
    return names[EMBEDDING], names[OUTPUT]


def tie_embeddings(base: Checkpoint) -> tuple[Checkpoint, list[str]]:
    """Present a matrix that an untied base stores twice, equal or differing by rounding only, as one.

    Returns:
        The base, tied or as it is, and messages for the user.
    """
    kept, dropped = _by_size(base)
    if not all(_is_one_matrix(base, start) for start in range(0, base.architecture.vocab, _BLOCK)):
        return base, []
    types = " and ".join(base.stored_type(name).name for name in matrix_names(base))
    embedding, _ = matrix_names(base)
    return Checkpoint(base, replace(base.architecture, tied=True), {embedding: kept}), [
        f"{EMBEDDING} and {OUTPUT} are one matrix, in {types}: it is stored once, which saves "
        f"{_stored_bytes(base, dropped):,} bytes of the base"
    ]


def _by_size(base: Checkpoint) -> tuple[str, str]:
    """The name of the matrix with more bits a weight, and that of the other one."""
    smaller, larger = sorted(matrix_names(base), key=lambda name: _stored_bytes(base, name))
    return larger, smaller


def _stored_bytes(base: Checkpoint, name: str) -> int:
    rows, columns = base.specs[name].shape
    return rows * row_bytes(columns, base.stored_type(name))


def _is_one_matrix(base: Checkpoint, start: int) -> bool:
    """Whether no row of a block differs by more than rounding."""
    stop = min(start + _BLOCK, base.architecture.vocab)
    names = _by_size(base)
    kept, dropped = (base.rows(name, start, stop) for name in names)
    rounding = _rounding_errors(kept, base.stored_type(names[1]))
    return bool((np.linalg.norm(dropped - kept, axis=1) <= _ROUNDING_MAX * rounding).all())


def _rounding_errors(rows: Floats, type_: GGMLQuantizationType) -> Floats:
    """What rounding to a type changes in each row, (rows,)."""
    importance = np.ones(rows.shape[1], np.float32) if type_ in NEED_IMPORTANCE else None
    data = quantize_rows(rows, type_, f"tensor {EMBEDDING!r}", importance)
    rounded = dequantize_rows(np.frombuffer(data, np.uint8).reshape(len(rows), -1), type_)
    return np.asarray(np.linalg.norm(rounded - rows, axis=1))
