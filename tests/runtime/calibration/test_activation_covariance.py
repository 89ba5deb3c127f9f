"""InputSums: exact diagonal blocks and a low-rank sketch of the input covariance."""

import numpy as np
import pytest
from thirteen.runtime.calibration.activation_covariance import PROBES, RANK, InputSums, block_width


def stats_of(inputs, parts=2):
    """Statistics of inputs that were added in parts, the last one to other sums."""
    *first, last = np.array_split(inputs, parts)
    sums, other = InputSums(inputs.shape[1]), InputSums(inputs.shape[1])
    for part in first:
        sums.add(part)
    other.add(last)
    return sums.stats([other])


def normalized(inputs):
    length = np.linalg.norm(inputs, axis=1, keepdims=True)
    return np.divide(inputs, length, out=np.zeros_like(inputs), where=length > 0)


def inputs_of_rank(rank, columns, noise):
    random = np.random.default_rng(5)
    mixed = random.standard_normal((500, rank)) @ random.standard_normal((rank, columns))
    return (mixed + noise * random.standard_normal((500, columns))).astype(np.float32)


def test_blocks_are_the_mean_outer_products_of_normalized_inputs():
    inputs = inputs_of_rank(6, 1024, 0.5)
    inputs[7] = 0  # a zero vector has no direction
    blocks = stats_of(inputs).blocks
    covariance = normalized(inputs).T @ normalized(inputs) / len(inputs)
    assert blocks.shape == (2, 512, 512)
    for block in range(2):
        span = slice(512 * block, 512 * block + 512)
        assert np.allclose(blocks[block], covariance[span, span], atol=1e-6)


def test_the_sketch_of_a_low_rank_covariance_is_exact():
    inputs = inputs_of_rank(20, 768, 0)
    factor = stats_of(inputs).low_rank
    covariance = normalized(inputs).T @ normalized(inputs) / len(inputs)
    assert factor.shape == (768, RANK)
    assert np.linalg.norm(factor @ factor.T - covariance) < 1e-3 * np.linalg.norm(covariance)


def test_the_sketch_is_near_the_optimum_of_its_rank_and_never_exceeds_the_covariance():
    inputs = inputs_of_rank(200, 768, 1)
    factor = stats_of(inputs).low_rank
    covariance = (normalized(inputs).T @ normalized(inputs) / len(inputs)).astype(np.float64)
    values = np.linalg.eigvalsh(covariance)
    optimum = values[:-RANK].sum()
    assert PROBES < 200 and np.trace(covariance - factor @ factor.T) < 1.5 * optimum
    assert np.linalg.eigvalsh(covariance - factor.astype(np.float64) @ factor.T).min() > -1e-5 * values.max()


def test_a_single_block_needs_no_sketch():
    stats = stats_of(inputs_of_rank(2, 576, 1))
    assert stats.blocks.shape == (1, 576, 576) and stats.low_rank is None


def test_squares_are_those_of_the_inputs_as_they_are():
    inputs = inputs_of_rank(6, 64, 0.5)
    for parts in (2, 5):
        stats = stats_of(inputs, parts)
        assert stats.count == len(inputs)
        assert np.allclose(stats.squares, np.square(inputs).sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("columns", "width"), [(576, 576), (1536, 512), (2048, 512), (8192, 512), (896, 448), (4864, 256), (7, 7)]
)
def test_quantization_blocks_divide_the_block_width(columns, width):
    assert block_width(columns) == width
