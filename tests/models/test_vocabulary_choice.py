"""Importance files and statistics of tokens in the cache."""

import shutil
from pathlib import Path

import pytest
from thirteen.convert.quantize.importance import read_importance
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.models import vocabulary_choice
from thirteen.models.conversion import CHUNKS, cached_importance

from ..json_changes import change_json, put
from ..json_lines import write_rows


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vocabulary_choice, "POSITIONS", 200)
    few = vocabulary_choice.vocabulary_passages()[:20]
    monkeypatch.setattr(vocabulary_choice, "vocabulary_passages", lambda: few)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda tokenizer: tokenizer["model"]["merges"].reverse()),
        ("config.json", put("rms_norm_eps", value=0.1)),
    ],
)
def test_statistics_belong_to_tokenizer_and_configuration(base, tmp_path, file, change):
    """Two bases with the same weights shared them, although other merges give other tokens."""
    copy = Path(shutil.copytree(base("llama"), tmp_path / "copy"))
    change_json(copy / file, change)
    texts = vocabulary_choice.read_texts(None)
    for folder in (base("llama"), copy, base("llama")):
        vocabulary_choice.rank_vocabulary(open_checkpoint(folder), texts)
    assert len(list((tmp_path / "cache").glob("vocabulary-*.npz"))) == 2


def test_each_thoroughness_reads_so_many_chunks_and_has_a_file_of_its_own(base, tmp_path, monkeypatch):
    text = "Three pens cost $3.60, so one pen costs $1.20. " * 400  # more chunks than most of them read
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": text}])
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    files = {name: cached_importance(open_checkpoint(base("llama")), None, texts, name) for name in CHUNKS}
    counts = {name: read_importance(path).chunk_count for name, path in files.items()}
    assert (counts["quick"], counts["normal"]) == (CHUNKS["quick"], CHUNKS["normal"])
    assert CHUNKS["normal"] < counts["thorough"] <= CHUNKS["thorough"]
    assert len(set(files.values())) == len(CHUNKS)
    kept = {path: path.stat().st_mtime_ns for path in files.values()}
    assert cached_importance(open_checkpoint(base("llama")), None, texts, "normal") == files["normal"]
    assert {path: path.stat().st_mtime_ns for path in files.values()} == kept
