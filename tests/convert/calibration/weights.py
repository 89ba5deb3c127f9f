"""Test helpers: the weights of a checkpoint, as calibration reads them, and its activation statistics."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from thirteen.convert.calibration.activation_stats import ActivationStats, collect_activation_stats
from thirteen.convert.calibration.hidden_states import Chunk, compute_hidden_states
from thirteen.convert.calibration.weights import WeightsByGgufName
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.source.checkpoint import open_checkpoint


def weights_of(path: Path) -> WeightsByGgufName:
    return WeightsByGgufName(MergedModel(open_checkpoint(path), None, ""))


def stats_of(path: Path, chunks: Sequence[Chunk], threads: int = 1, **options: Any) -> ActivationStats:
    """The activation statistics of a checkpoint over chunks."""
    weights = weights_of(path)
    with TemporaryDirectory() as folder:
        hidden = compute_hidden_states(weights, chunks, Path(folder), threads=threads)
        return collect_activation_stats(weights, chunks, hidden, threads=threads, **options)
