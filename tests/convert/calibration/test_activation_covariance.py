"""InputSums: exact diagonal blocks and a low-rank sketch of the weighted input covariance."""

import numpy as np
import pytest
from thirteen.convert.calibration.activation_covariance import PROBES, RANK, InputSums
from thirteen.errors import FileError

GRADIENTS = np.random.default_rng(6).uniform(0.1, 10, 500)


def stats_of(inputs, gradients=GRADIENTS, parts=2):
    """Statistics of inputs that were added in parts, the last one to other sums."""
    spans = np.array_split(np.arange(len(inputs)), parts)
    sums, other = InputSums(inputs.shape[1], 2), InputSums(inputs.shape[1], 2)
    for span in spans[:-1]:
        sums.add(inputs[span], [0.3 * gradients[span], 0.7 * gradients[span]])
    other.add(inputs[spans[-1]], [0.3 * gradients[spans[-1]], 0.7 * gradients[spans[-1]]])
    return sums.stats("blk.0.ffn_down.weight", [other])


def covariance_of(inputs, gradients=GRADIENTS):
    length = np.linalg.norm(inputs, axis=1)
    weights = np.divide(np.sqrt(gradients), length, out=np.zeros_like(gradients), where=length > 0)
    covariance = (weights[:, None] * inputs).T @ inputs
    return covariance / np.trace(covariance)


def inputs_of_rank(rank, columns, noise):
    random = np.random.default_rng(5)
    mixed = random.standard_normal((500, rank)) @ random.standard_normal((rank, columns))
    return (mixed + noise * random.standard_normal((500, columns))).astype(np.float32)


def test_blocks_are_those_of_the_covariance_weighted_by_gradients():
    inputs = inputs_of_rank(6, 1024, 0.5)
    inputs[7] = 0  # a zero vector has no direction
    blocks, covariance = stats_of(inputs).blocks, covariance_of(inputs)
    assert blocks.shape == (2, 512, 512)
    for block in range(2):
        span = slice(512 * block, 512 * block + 512)
        assert np.allclose(blocks[block], covariance[span, span], atol=1e-6)


def test_the_sketch_is_near_the_optimum_of_its_rank_and_never_exceeds_the_covariance():
    inputs = inputs_of_rank(200, 768, 1)
    factor, covariance = stats_of(inputs).low_rank, covariance_of(inputs)
    values = np.linalg.eigvalsh(covariance)
    optimum = values[:-RANK].sum()
    assert PROBES < 200 and np.trace(covariance - factor @ factor.T) < 1.5 * optimum
    assert np.linalg.eigvalsh(covariance - factor.astype(np.float64) @ factor.T).min() > -1e-5 * values.max()


@pytest.mark.parametrize("columns", [64, 768])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_sums_that_are_not_finite_are_an_error_that_names_the_weight(columns, value):
    """The sketch was computed first: "SVD did not converge"."""
    inputs = inputs_of_rank(6, columns, 0.5)
    inputs[3, 5] = value
    with np.errstate(all="ignore"), pytest.raises(FileError, match=r"not finite .* blk\.0\.ffn_down"):
        stats_of(inputs)
