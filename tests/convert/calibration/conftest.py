"""The models of the runtime's tests, and the activation statistics of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from thirteen.convert.calibration.activation_stats import Chunk, collect_activation_stats
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.quantize.importance import ImportanceStats
from thirteen.convert.source.checkpoint import open_checkpoint

from ...runtime.conftest import smollm2, tiny, write_tiny

__all__ = ["smollm2", "stats_of", "tiny", "write_tiny"]


def stats_of(path: Path, chunks: Sequence[Chunk], threads: int = 1) -> ImportanceStats:
    """The activation statistics of a checkpoint over chunks."""
    return collect_activation_stats(MergedModel(open_checkpoint(path)), chunks, threads=threads)
