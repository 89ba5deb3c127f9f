"""Importance files in the cache, and the number of tokens that loses the least at a size."""

import shutil
from pathlib import Path

import pytest
from thirteen.convert.convert import convert
from thirteen.convert.fit_size import FileSize, FitSize
from thirteen.convert.quantize.costs import costs_for
from thirteen.convert.quantize.importance import ImportanceStats, read_importance, write_importance
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.errors import FileError, OptionError
from thirteen.models import vocabulary_choice
from thirteen.models.conversion import CHUNKS, cached_importance
from thirteen.models.vocabulary_choice import SizeLoss, choose_vocabulary_size

from ..json_changes import change_json, put
from ..json_lines import write_rows


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vocabulary_choice, "POSITIONS", 200)
    few = vocabulary_choice.vocabulary_passages()[:20]
    monkeypatch.setattr(vocabulary_choice, "vocabulary_passages", lambda: few)
    monkeypatch.setattr(vocabulary_choice, "HELD_OUT_POSITIONS", 100)
    monkeypatch.setattr(vocabulary_choice, "SIZES", (1, 265, 268, 5000))  # of 272; the first is too small


@pytest.fixture
def choose(base, small, tmp_path):
    """choose(importance, size): choose for a size in bytes, by default that of the whole model in Q5_0."""

    def choose(importance: Path, size: int = 0) -> tuple[VocabularyList | None, tuple[SizeLoss, ...]]:
        folder = base("llama")
        size = size or convert(Recipe(folder, tmp_path / "a.gguf", Uniform("Q5_0"))).layout.file_bytes
        target = FitSize(FileSize(f"{size}B", size, 1), "quality", costs_for("x86"))
        return choose_vocabulary_size(
            Recipe(folder, None, target, importance=importance), open_checkpoint(folder)
        )

    return choose


def test_the_least_predicted_loss_wins(choose, measured):
    kept, losses = choose(measured("llama"))
    assert [loss.tokens for loss in losses] == [265, 268, 272]
    assert losses[-1].outside == 0 < losses[1].outside < losses[0].outside
    assert all(loss.total == loss.quantization + loss.outside for loss in losses)
    best = min(losses, key=lambda loss: loss.total)
    assert (272 if kept is None else len(kept.tokens)) == best.tokens


def test_an_importance_matrix_without_sensitivities_is_refused(choose, measured, tmp_path):
    found, plain = read_importance(measured("llama")), tmp_path / "plain.gguf"
    write_importance(plain, ImportanceStats(found.mean_squares, 1, 64, 1), ["a"])
    with pytest.raises(FileError, match=r"plain\.gguf: has no sensitivities"):
        choose(plain)


def test_a_size_that_no_vocabulary_can_have_is_named(choose, measured):
    """It was said of the importance file that it has no sensitivities."""
    with pytest.raises(OptionError, match=r"size 1000B: 1,000 bytes cannot be met .* the smallest file poss"):
        choose(measured("llama"), 1000)


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


@pytest.mark.usefixtures("small")
def test_damaged_statistics_are_measured_again(base, tmp_path):
    """The user got a traceback until the file was deleted."""
    checkpoint, texts = open_checkpoint(base("llama")), vocabulary_choice.read_texts(None)
    order = vocabulary_choice.rank_vocabulary(checkpoint, texts).order
    (path,) = (tmp_path / "cache").glob("vocabulary-*.npz")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-100], whole[:200] + bytes(8) + whole[208:], b"no archive"):
        path.write_bytes(damaged)
        assert vocabulary_choice.rank_vocabulary(checkpoint, texts).order == order
        assert path.read_bytes() == whole


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
