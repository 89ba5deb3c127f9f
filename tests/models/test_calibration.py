"""Importance files in the cache, one for each base, text and thoroughness."""

import pytest
from thirteen.convert.quantize.importance import read_importance
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.models.calibration import CHUNKS, Calibration, cached_importance

from ..json_lines import write_rows


@pytest.fixture
def texts(tmp_path):
    """Text of more chunks than any but the greatest reads."""
    text = "Three pens cost $3.60, so one pen costs $1.20. " * 400
    return write_rows(tmp_path / "texts.jsonl", [{"text": text}])


def test_each_thoroughness_reads_so_many_chunks_and_has_a_file_of_its_own(base, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    files = {
        name: cached_importance(open_checkpoint(base("llama")), None, Calibration(texts, name))
        for name in CHUNKS
    }
    counts = {name: read_importance(path).chunk_count for name, path in files.items()}
    assert (counts["quick"], counts["normal"]) == (CHUNKS["quick"], CHUNKS["normal"])
    assert CHUNKS["normal"] < counts["thorough"] <= CHUNKS["thorough"]
    assert len(set(files.values())) == len(CHUNKS)
    kept = {path: path.stat().st_mtime_ns for path in files.values()}
    assert cached_importance(open_checkpoint(base("llama")), None, Calibration(texts)) == files["normal"]
    assert {path: path.stat().st_mtime_ns for path in files.values()} == kept
