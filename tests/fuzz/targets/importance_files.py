"""Importance files, for the model in the corpus of gguf_headers."""

from pathlib import Path

import numpy as np
from thirteen.convert.quantize.importance import read_importance
from thirteen.convert.source.checkpoint import open_checkpoint

from ..mutators import mutate_gguf
from ..target import BASE, Target, accepts, scratch_file

_SPECS = tuple(open_checkpoint(BASE).specs.values())


def check(data: bytes) -> bool:
    return accepts(_read, scratch_file("importance.gguf", data))


def _read(path: Path) -> None:
    importance = read_importance(path)
    for values in importance.mean_squares.values():
        assert values.dtype == np.float32 and np.isfinite(values).all() and (values >= 0).all()
    importance.check_fits(_SPECS)
    for name, columns in ((spec.target, spec.shape[-1]) for spec in _SPECS if len(spec.shape) == 2):
        shares = importance.energy_shares(name, columns)
        assert shares.shape == (columns,) and np.isfinite(shares).all(), name


TARGET = Target(check, max_bytes=1 << 13, mutate=mutate_gguf)
