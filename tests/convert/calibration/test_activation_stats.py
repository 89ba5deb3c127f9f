"""Activation statistics equal those of llama-imatrix; the covariance of inputs equals that of NumPy.

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
from thirteen.convert.calibration.activation_covariance import PROBES, RANK, InputSums, block_width
from thirteen.convert.quantize.importance import read_importance
from thirteen.errors import FileError, RequestError
from thirteen.models.passages import Passage, chunk_passages
from thirteen.runtime.llama.model import Model

from ...runtime.conftest import tensors
from .conftest import stats_of

DATA = Path(__file__).parents[2] / "data"
TEXT = Passage((DATA / "imatrix.txt").read_text())


@pytest.fixture(scope="module")
def untied(tmp_path_factory, write_tiny):
    output = np.random.default_rng(7).normal(0, 0.3, (259, 64)).astype(np.float32)
    return write_tiny(tmp_path_factory.mktemp("untied") / "untied.gguf", {}, {"output.weight": output})


def collect(path, passages=(TEXT,), chunk_size=32, threads=1):
    """Statistics of a model over passages."""
    with Model(path) as model:
        chunks = chunk_passages(model, passages, chunk_size)
    return stats_of(path, chunks, threads)


def check(stats, oracle, tolerance):
    """Compare mean squares with the oracle's, up to rounding, which differs between processors."""
    assert stats.chunk_count == oracle.chunk_count
    assert stats.tokens == stats.chunk_size * stats.chunk_count
    for name, expected in oracle.mean_squares.items():
        means = stats.sums[name] / stats.tokens
        assert np.linalg.norm(means - expected) < tolerance * np.linalg.norm(expected), name


def test_all_stats_equal_llama_imatrix_with_a_begin_of_text_token(untied):
    stats, oracle = collect(untied), read_importance(DATA / "imatrix-tiny.gguf")
    check(stats, oracle, tolerance=0.01)
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


def test_passages_without_tokens_are_refused(tiny):
    with pytest.raises(RequestError, match="the passages have no tokens"):
        collect(tiny, [], 32)


@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_non_finite_activations_are_rejected(tmp_path, write_tiny, value):
    broken = tensors()["blk.1.ffn_up.weight"]
    broken[3, :] = value
    path = write_tiny(tmp_path / "nan.gguf", {}, {"blk.1.ffn_up.weight": broken})
    with pytest.raises(FileError, match="activations are not finite numbers: those after layer 1"):
        collect(path)


GRADIENTS = np.random.default_rng(6).uniform(0.1, 10, 500)


def sums_of(inputs):
    """Statistics of inputs of two matrices; the second half is added to other sums."""
    halves = [InputSums(inputs.shape[1], 2) for _ in range(2)]
    for sums, part, gradients in zip(halves, np.split(inputs, 2), np.split(GRADIENTS, 2), strict=True):
        sums.add(part, [0.3 * gradients, 0.7 * gradients])
    return halves[0].finish("blk.0.ffn_down.weight", halves[1:])


def covariance_of(inputs):
    length = np.linalg.norm(inputs, axis=1)
    weights = np.divide(np.sqrt(GRADIENTS), length, out=np.zeros_like(GRADIENTS), where=length > 0)
    covariance = (weights[:, None] * inputs).T @ inputs
    return covariance / np.trace(covariance)


def inputs_of_rank(rank, columns, noise):
    random = np.random.default_rng(5)
    mixed = random.standard_normal((500, rank)) @ random.standard_normal((rank, columns))
    return (mixed + noise * random.standard_normal((500, columns))).astype(np.float32)


def test_blocks_are_those_of_the_covariance_weighted_by_gradients():
    inputs = inputs_of_rank(6, 1024, 0.5)
    inputs[7] = 0  # a zero vector has no direction
    blocks, covariance = sums_of(inputs).blocks, covariance_of(inputs)
    assert blocks.shape == (2, 512, 512)
    for block in range(2):
        span = slice(512 * block, 512 * block + 512)
        assert np.allclose(blocks[block], covariance[span, span], atol=1e-6)


def test_the_sketch_is_near_the_optimum_of_its_rank_and_never_exceeds_the_covariance():
    inputs = inputs_of_rank(200, 768, 1)
    factor, covariance = sums_of(inputs).low_rank, covariance_of(inputs)
    values = np.linalg.eigvalsh(covariance)
    optimum = values[:-RANK].sum()
    assert PROBES < 200 and np.trace(covariance - factor @ factor.T) < 1.5 * optimum
    assert np.linalg.eigvalsh(covariance - factor.astype(np.float64) @ factor.T).min() > -1e-5 * values.max()


@pytest.mark.parametrize(
    ("columns", "width"), [(576, 576), (1536, 512), (2048, 512), (8192, 512), (896, 448), (4864, 256), (7, 7)]
)
def test_quantization_blocks_divide_the_block_width(columns, width):
    assert block_width(columns) == width


@pytest.mark.parametrize("columns", [64, 768])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_sums_that_are_not_finite_are_an_error_that_names_the_weight(columns, value):
    """The sketch was computed first: "SVD did not converge"."""
    inputs = inputs_of_rank(6, columns, 0.5)
    inputs[3, 5] = value
    with np.errstate(all="ignore"), pytest.raises(FileError, match=r"not finite .* blk\.0\.ffn_down"):
        sums_of(inputs)
