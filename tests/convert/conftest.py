"""Fixtures that several modules share."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.models.conversion import measure_importance

TEXT = '{"text": "Three pens cost $3.60, so one pen costs $1.20. Two pens cost $2.40."}\n'


@pytest.fixture(scope="session")
def measured(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """measured(name): importance file of a small random checkpoint, made at the first call."""

    @cache
    def importance(name: str) -> Path:
        folder = tmp_path_factory.mktemp("importance")
        (folder / "texts.jsonl").write_text(TEXT)
        path = folder / "importance.gguf"
        measure_importance(MergedModel(open_checkpoint(base(name)), None), path, folder / "texts.jsonl")
        return path

    return importance
