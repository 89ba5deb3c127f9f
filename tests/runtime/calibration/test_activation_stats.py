"""The statistics are those of llama-imatrix, over chunks cut as it cuts them.

The files in tests/data were made by the llama-imatrix of llama-cpp-python 0.3.36's llama.cpp:

    llama-imatrix -m UNTIED -f tests/data/imatrix.txt -c 32 --process-output --no-ppl -ngl 0 -t 2 \
        -o tests/data/imatrix-tiny.gguf
    llama-imatrix -m SmolLM2-135M-Instruct.Q4_1.gguf -f tests/data/imatrix.txt -c 64 --no-ppl -ngl 0 -t 2 \
        -o imatrix-smollm2.gguf

UNTIED is the model of the fixture below. Of the second file only layers 0, 15 and 29 were kept, by
write_importance().
"""

from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.quantize.importance import read_importance
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.calibration import activation_stats as tracing
from thirteen.runtime.calibration.activation_stats import (
    SquaresTap,
    chunk_passages,
    collect_activation_stats,
    run_chunks,
)
from thirteen.runtime.calibration.corpus import Passage
from thirteen.runtime.llama.model import Model

from ..conftest import byte_names, tensors

DATA = Path(__file__).parents[2] / "data"
TEXT = Passage((DATA / "imatrix.txt").read_text())
BOS = 256  # of the tiny model


@pytest.fixture(scope="module")
def untied(tmp_path_factory, write_tiny):
    output = np.random.default_rng(7).normal(0, 0.3, (259, 64)).astype(np.float32)
    return write_tiny(tmp_path_factory.mktemp("untied") / "untied.gguf", {}, {"output.weight": output})


def spelt(text):
    """The tiny model's tokens of plain text: one a byte."""
    return [byte_names().index(character) for character in text]


def check(statistics, oracle):
    """Every tensor's mean squares are the oracle's but for rounding, which differs between processors."""
    assert (statistics.chunk, statistics.chunks) == (oracle.chunk_size, oracle.chunk_count)
    for name, expected in oracle.mean_squares.items():
        assert statistics.counts[name] == oracle.token_counts[name]
        means = statistics.sums[name] / statistics.counts[name]
        assert np.linalg.norm(means - expected) < 0.01 * np.linalg.norm(expected), name


def test_all_are_llama_imatrixs_where_a_text_begins_with_a_token_of_its_own(untied):
    statistics, oracle = (
        collect_activation_stats(untied, [TEXT], chunk=32, threads=1),
        read_importance(DATA / "imatrix-tiny.gguf"),
    )
    check(statistics, oracle)
    assert statistics.sums.keys() == oracle.mean_squares.keys()


def test_the_real_models_are_llama_imatrixs(smollm2):
    oracle = read_importance(DATA / "imatrix-smollm2.gguf")
    check(collect_activation_stats(smollm2, [TEXT], chunk=64, threads=1), oracle)
    assert len(oracle.mean_squares) == 21


def test_the_model_decides_whether_a_chunk_begins_with_its_token(tiny):
    """An oracle that could not tell would prove nothing: with another token there the sums differ."""
    with Model(tiny) as model:
        chunks = chunk_passages(model, [TEXT], 32)
        wrong, right = SquaresTap(), SquaresTap()
        run_chunks(model, [(65, *chunk[1:]) for chunk in chunks], wrong, threads=1)
        run_chunks(model, chunks, right, threads=1)
    name = "blk.0.attn_q.weight"
    assert np.linalg.norm(wrong.sums[name] - right.sums[name]) > 0.02 * np.linalg.norm(right.sums[name])


def test_chunks_are_the_tokens_end_to_end(tiny):
    with Model(tiny) as model:
        chunks = chunk_passages(model, [Passage("abcd"), Passage("efghij")], 4)
        alone = chunk_passages(model, [Passage("ab")], 4)
    text = [BOS, *spelt("abcd"), BOS, *spelt("efghij")]
    assert chunks == [(BOS, *text[start + 1 : start + 4]) for start in (0, 4, 8)]
    assert alone == [(BOS, *spelt("ab"))]


def test_a_chunk_longer_than_a_batch_is_the_same_in_parts(tiny, monkeypatch):
    """But for flash attention's rounding, which depends on how many tokens a batch has."""
    whole = collect_activation_stats(tiny, [TEXT], chunk=100, threads=1)
    monkeypatch.setattr(tracing, "BATCH", 32)
    parts = collect_activation_stats(tiny, [TEXT], chunk=100, threads=1)
    assert whole.counts == parts.counts
    for name, sums in whole.sums.items():
        assert np.linalg.norm(sums - parts.sums[name]) < 0.01 * np.linalg.norm(sums), name


def test_progress_is_told_after_each_chunk(tiny):
    told = []
    statistics = collect_activation_stats(
        tiny, [TEXT], chunk=256, threads=1, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(n + 1, statistics.chunks) for n in range(statistics.chunks)]
    assert set(statistics.counts.values()) == {statistics.chunks * 256}


def test_tied_embeddings_are_traced_as_the_output_they_are(tiny):
    sums = collect_activation_stats(tiny, [Passage("x")], chunk=8, threads=1).sums
    assert sums.keys() == {name for name, array in tensors().items() if array.ndim == 2}
    assert all(values.dtype == np.float32 for values in sums.values())


def test_tokens_are_counted_as_they_are_read(tiny):
    with Model(tiny) as model:
        chunks = chunk_passages(model, [TEXT], 32)
    tokens = collect_activation_stats(tiny, [TEXT], chunk=32, threads=1).tokens
    read = [token for chunk in chunks for token in chunk]
    assert tokens.tolist() == [read.count(token) for token in range(259)]
    assert tokens[BOS] == len(chunks)


@pytest.mark.parametrize(
    ("passages", "chunk", "says"),
    [
        ([TEXT], 0, "chunk must be from 1 to the 256 tokens that the model was trained for, not 0"),
        ([TEXT], 257, "not 257"),
        ([], 32, "the passages have no tokens"),
    ],
)
def test_what_cannot_be_traced_is_refused(tiny, passages, chunk, says):
    with pytest.raises(RequestError, match=says):
        collect_activation_stats(tiny, passages, chunk=chunk, threads=1)


def test_activations_that_are_not_numbers_are_refused(tmp_path, write_tiny):
    broken = tensors()["blk.1.ffn_up.weight"]
    broken[3, 5] = np.nan
    path = write_tiny(tmp_path / "nan.gguf", {}, {"blk.1.ffn_up.weight": broken})
    with pytest.raises(ModelFileError, match=r"nan\.gguf: the model's activations are not finite"):
        collect_activation_stats(path, [TEXT], chunk=32, threads=1)
