"""Test helper: the weights of a checkpoint, as calibration reads them."""

from pathlib import Path

from thirteen.convert.calibration_weights import WeightsByGgufName
from thirteen.convert.merged_view import MergedView
from thirteen.convert.source.checkpoint import open_checkpoint


def weights_of(path: Path) -> WeightsByGgufName:
    return WeightsByGgufName(MergedView(open_checkpoint(path), None, ""))
