"""Test helpers: the weights of a checkpoint, as calibration reads them, and its activation statistics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thirteen.convert.calibration.activation_stats import Chunk, collect_activation_stats
from thirteen.convert.calibration.decoder import DecoderWeights
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.quantize.importance import ImportanceStats
from thirteen.convert.source.checkpoint import open_checkpoint


def weights_of(path: Path) -> DecoderWeights:
    return DecoderWeights(MergedModel(open_checkpoint(path), None, ""))


def stats_of(path: Path, chunks: Sequence[Chunk], threads: int = 1, **options: Any) -> ImportanceStats:
    """The activation statistics of a checkpoint over chunks."""
    model = MergedModel(open_checkpoint(path), None, "")
    return collect_activation_stats(model, chunks, threads=threads, **options)
