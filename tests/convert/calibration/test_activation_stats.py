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
from thirteen.errors import FileError, RequestError
from thirteen.models.passages import Passage, chunk_passages
from thirteen.runtime.llama.model import Model

from ...byte_level import byte_names
from ...runtime.conftest import tensors
from .weights import stats_of

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


def collect(path, passages=(TEXT,), chunk_size=32, **options):
    """Statistics of a model over passages."""
    with Model(path) as model:
        chunks = chunk_passages(model, passages, chunk_size)
    return stats_of(path, chunks, **options)


def check(stats, oracle, tolerance=0.01):
    """Compare mean squares with the oracle's, up to rounding, which differs between processors."""
    assert stats.chunk_count == oracle.chunk_count
    assert stats.tokens == stats.chunk_size * stats.chunk_count
    for name, expected in oracle.mean_squares.items():
        means = stats.sums[name] / stats.tokens
        assert np.linalg.norm(means - expected) < tolerance * np.linalg.norm(expected), name


def test_all_stats_equal_llama_imatrix_with_a_begin_of_text_token(untied):
    stats, oracle = collect(untied), read_importance(DATA / "imatrix-tiny.gguf")
    check(stats, oracle)
    assert stats.sums.keys() == oracle.mean_squares.keys()


@pytest.mark.exhaustive
def test_stats_of_the_real_model_equal_llama_imatrix(smollm2):
    oracle = read_importance(DATA / "imatrix-smollm2.gguf")
    check(collect(smollm2, chunk_size=64), oracle, tolerance=0.03)  # llama.cpp rounds activations to 8 bits
    assert len(oracle.mean_squares) == 21


def test_the_stats_are_the_same_for_any_number_of_threads(tiny):
    one, three = collect(tiny, threads=1), collect(tiny, threads=3)
    assert all(np.array_equal(sums, three.sums[name]) for name, sums in one.sums.items())
    assert all(np.array_equal(blocks, three.covariances[name]) for name, blocks in one.covariances.items())


def test_chunks_cut_the_concatenated_passages(tiny):
    with Model(tiny) as model:
        chunks = chunk_passages(model, [Passage("abcd"), Passage("efghij")], 4)
        single = chunk_passages(model, [Passage("ab")], 4)
    text = [BOS, *byte_tokens("abcd"), BOS, *byte_tokens("efghij")]
    assert chunks == [(BOS, *text[start + 1 : start + 4]) for start in (0, 4, 8)]
    assert single == [(BOS, *byte_tokens("ab"))]


@pytest.mark.parametrize(("passages", "chunk_size", "message"), [([], 32, "the passages have no tokens")])
def test_invalid_input_is_rejected(tiny, passages, chunk_size, message):
    with pytest.raises(RequestError, match=message):
        collect(tiny, passages, chunk_size)


@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_non_finite_activations_are_rejected(tmp_path, write_tiny, value):
    broken = tensors()["blk.1.ffn_up.weight"]
    broken[3, :] = value
    path = write_tiny(tmp_path / "nan.gguf", {}, {"blk.1.ffn_up.weight": broken})
    with pytest.raises(FileError, match="activations are not finite numbers: those after layer 1"):
        collect(path)
