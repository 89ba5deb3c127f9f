"""Activation statistics equal those of llama-imatrix, over the same chunks.

The file in tests/data was made by the llama-imatrix of llama-cpp-python 0.3.36's llama.cpp:

    llama-imatrix -m UNTIED -f tests/data/imatrix.txt -c 32 --process-output --no-ppl -ngl 0 -t 2 \
        -o tests/data/imatrix-tiny.gguf

UNTIED is the model of the fixture below.
"""

from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.quantize.importance import read_importance
from thirteen.errors import FileError, RequestError
from thirteen.models.passages import Passage, chunk_passages
from thirteen.runtime.llama.model import Model

from ...runtime.conftest import tensors
from .weights import stats_of

DATA = Path(__file__).parents[2] / "data"
TEXT = Passage((DATA / "imatrix.txt").read_text())


@pytest.fixture(scope="module")
def untied(tmp_path_factory, write_tiny):
    output = np.random.default_rng(7).normal(0, 0.3, (259, 64)).astype(np.float32)
    return write_tiny(tmp_path_factory.mktemp("untied") / "untied.gguf", {}, {"output.weight": output})


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


def test_the_stats_are_the_same_for_any_number_of_threads(tiny):
    one, three = collect(tiny, threads=1), collect(tiny, threads=3)
    assert all(np.array_equal(sums, three.sums[name]) for name, sums in one.sums.items())
    assert all(np.array_equal(blocks, three.covariances[name]) for name, blocks in one.covariances.items())


@pytest.mark.parametrize(
    ("passages", "chunk_size", "message"),
    [
        ([TEXT], 0, "chunk size must be from 1 to the 256 tokens that the model was trained for, not 0"),
        ([], 32, "the passages have no tokens"),
    ],
)
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
