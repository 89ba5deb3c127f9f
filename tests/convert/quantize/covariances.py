"""Covariances of inputs for tests."""

from pathlib import Path

import numpy as np
from thirteen.convert.quantize.importance import (
    Covariance,
    Importance,
    ImportanceStats,
    read_importance,
    write_importance,
)
from thirteen.stats import Floats


def correlated(columns: int, seed: int = 1) -> Floats:
    """The covariance of correlated inputs, (columns, columns)."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((4000, 12)) @ random.standard_normal((12, columns))
    inputs = (mixed + 0.3 * random.standard_normal((4000, columns))).astype(np.float32)
    return inputs.T @ inputs / np.float32(len(inputs))


def in_blocks(full: Floats, width: int, rank: int) -> Covariance:
    """A full covariance as diagonal blocks and its largest eigenvectors."""
    blocks = [full[at : at + width, at : at + width] for at in range(0, len(full), width)]
    values, vectors = np.linalg.eigh(full)
    low_rank = vectors[:, ::-1][:, :rank] * np.sqrt(np.maximum(values[::-1][:rank], 0))
    return Covariance(np.stack(blocks), low_rank.astype(np.float32))


def importance_with(covariance: Covariance, folder: Path, name: str = "m") -> Importance:
    """An importance file of one matrix whose inputs have this covariance."""
    sums, blocks = {name: covariance.variances}, {name: covariance.blocks}
    path, sketches = folder / "importance.gguf", {name: covariance.low_rank}
    stats = ImportanceStats(sums, 1, 64, 1, covariances=blocks, sketches=sketches)
    write_importance(path, stats, ["a"])
    return read_importance(path)
