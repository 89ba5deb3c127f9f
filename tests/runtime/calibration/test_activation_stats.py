"""Activation statistics equal those of llama-imatrix, over the same chunks.

The files in tests/data were made by the llama-imatrix of llama-cpp-python 0.3.36's llama.cpp:

    llama-imatrix -m UNTIED -f tests/data/imatrix.txt -c 32 --process-output --no-ppl -ngl 0 -t 2 \
        -o tests/data/imatrix-tiny.gguf
    llama-imatrix -m SmolLM2-135M-Instruct.Q4_1.gguf -f tests/data/imatrix.txt -c 64 --no-ppl -ngl 0 -t 2 \
        -o imatrix-smollm2.gguf

UNTIED is the model of the fixture below. The second file was reduced to layers 0, 15 and 29 by
write_importance().
"""

from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.quantize.importance import read_importance
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.calibration import activation_stats
from thirteen.runtime.calibration.activation_stats import (
    SquaresTap,
    chunk_passages,
    collect_activation_stats,
    run_chunks,
)
from thirteen.runtime.calibration.corpus import Passage
from thirteen.runtime.llama.model import Model

from ...byte_level import byte_names
from ..conftest import tensors

DATA = Path(__file__).parents[2] / "data"
TEXT = Passage((DATA / "imatrix.txt").read_text())
BOS = 256  # of the tiny model


@pytest.fixture(scope="module")
def untied(tmp_path_factory, write_tiny):
    output = np.random.default_rng(7).normal(0, 0.3, (259, 64)).astype(np.float32)
    return write_tiny(tmp_path_factory.mktemp("untied") / "untied.gguf", {}, {"output.weight": output})


def byte_tokens(text):
    """Tokens of plain text in the tiny model: one per byte."""
    return [byte_names().index(character) for character in text]


def check(stats, oracle):
    """Compare mean squares with the oracle's, up to rounding, which differs between processors."""
    assert (stats.chunk_size, stats.chunk_count) == (oracle.chunk_size, oracle.chunk_count)
    for name, expected in oracle.mean_squares.items():
        assert stats.counts[name] == oracle.token_counts[name]
        means = stats.sums[name] / stats.counts[name]
        assert np.linalg.norm(means - expected) < 0.01 * np.linalg.norm(expected), name


def test_all_stats_equal_llama_imatrix_with_a_begin_of_text_token(untied):
    stats, oracle = (
        collect_activation_stats(untied, [TEXT], chunk_size=32, threads=1),
        read_importance(DATA / "imatrix-tiny.gguf"),
    )
    check(stats, oracle)
    assert stats.sums.keys() == oracle.mean_squares.keys()


@pytest.mark.slow
def test_stats_of_the_real_model_equal_llama_imatrix(smollm2):
    oracle = read_importance(DATA / "imatrix-smollm2.gguf")
    check(collect_activation_stats(smollm2, [TEXT], chunk_size=64, threads=1), oracle)
    assert len(oracle.mean_squares) == 21


def test_chunks_start_with_the_begin_of_text_token(tiny):
    """Another first token changes the sums, so the comparison with the oracle would detect it."""
    with Model(tiny) as model:
        chunks = chunk_passages(model, [TEXT], 32)
        wrong, right = SquaresTap(), SquaresTap()
        run_chunks(model, [(65, *chunk[1:]) for chunk in chunks], wrong, threads=1)
        run_chunks(model, chunks, right, threads=1)
    name = "blk.0.attn_q.weight"
    assert np.linalg.norm(wrong.sums[name] - right.sums[name]) > 0.02 * np.linalg.norm(right.sums[name])


def test_chunks_cut_the_concatenated_passages(tiny):
    with Model(tiny) as model:
        chunks = chunk_passages(model, [Passage("abcd"), Passage("efghij")], 4)
        single = chunk_passages(model, [Passage("ab")], 4)
    text = [BOS, *byte_tokens("abcd"), BOS, *byte_tokens("efghij")]
    assert chunks == [(BOS, *text[start + 1 : start + 4]) for start in (0, 4, 8)]
    assert single == [(BOS, *byte_tokens("ab"))]


def test_chunks_longer_than_a_batch_give_the_same_stats(tiny, monkeypatch):
    """Up to the rounding of flash attention, which depends on the batch size."""
    whole = collect_activation_stats(tiny, [TEXT], chunk_size=100, threads=1)
    monkeypatch.setattr(activation_stats, "BATCH_TOKENS", 32)
    parts = collect_activation_stats(tiny, [TEXT], chunk_size=100, threads=1)
    assert whole.counts == parts.counts
    for name, sums in whole.sums.items():
        assert np.linalg.norm(sums - parts.sums[name]) < 0.01 * np.linalg.norm(sums), name


def test_progress_is_reported_after_each_chunk(tiny):
    progress = []
    stats = collect_activation_stats(
        tiny, [TEXT], chunk_size=256, threads=1, progress=lambda done, total: progress.append((done, total))
    )
    assert progress == [(n + 1, stats.chunk_count) for n in range(stats.chunk_count)]
    assert set(stats.counts.values()) == {stats.chunk_count * 256}


def test_tied_embeddings_have_stats_as_the_output_matrix(tiny):
    sums = collect_activation_stats(tiny, [Passage("x")], chunk_size=8, threads=1).sums
    assert sums.keys() == {name for name, array in tensors().items() if array.ndim == 2}
    assert all(values.dtype == np.float32 for values in sums.values())


def test_token_counts_are_those_of_the_chunks(tiny):
    with Model(tiny) as model:
        chunks = chunk_passages(model, [TEXT], 32)
    tokens = collect_activation_stats(tiny, [TEXT], chunk_size=32, threads=1).token_counts
    read = [token for chunk in chunks for token in chunk]
    assert tokens.tolist() == [read.count(token) for token in range(259)]
    assert tokens[BOS] == len(chunks)


@pytest.mark.parametrize(
    ("passages", "chunk_size", "message"),
    [
        ([TEXT], 0, "chunk size must be from 1 to the 256 tokens that the model was trained for, not 0"),
        ([TEXT], 257, "not 257"),
        ([], 32, "the passages have no tokens"),
    ],
)
def test_invalid_input_is_rejected(tiny, passages, chunk_size, message):
    with pytest.raises(RequestError, match=message):
        collect_activation_stats(tiny, passages, chunk_size=chunk_size, threads=1)


def test_non_finite_activations_are_rejected(tmp_path, write_tiny):
    broken = tensors()["blk.1.ffn_up.weight"]
    broken[3, 5] = np.nan
    path = write_tiny(tmp_path / "nan.gguf", {}, {"blk.1.ffn_up.weight": broken})
    with pytest.raises(ModelFileError, match=r"nan\.gguf: the model's activations are not finite"):
        collect_activation_stats(path, [TEXT], chunk_size=32, threads=1)
