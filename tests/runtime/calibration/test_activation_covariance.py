"""CovarianceTap: exact diagonal blocks and a low-rank sketch of the input covariance."""

import numpy as np
import pytest
from thirteen.runtime.calibration.activation_covariance import PROBES, RANK, CovarianceTap, block_width
from thirteen.runtime.llama.eval_callback import MatMul


def tap_of(inputs, name="blk.0.attn_q.weight"):
    """A tap that saw the inputs in two parts."""
    tap = CovarianceTap()
    for part in np.array_split(inputs, 2):
        tap(MatMul(name, part, np.empty((len(part), 1), np.float32)))
    return tap


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
    (blocks,) = tap_of(inputs).blocks().values()
    covariance = normalized(inputs).T @ normalized(inputs) / len(inputs)
    assert blocks.shape == (2, 512, 512)
    for block in range(2):
        span = slice(512 * block, 512 * block + 512)
        assert np.allclose(blocks[block], covariance[span, span], atol=1e-6)


def test_the_sketch_of_a_low_rank_covariance_is_exact():
    inputs = inputs_of_rank(20, 768, 0)
    (factor,) = tap_of(inputs).sketches().values()
    covariance = normalized(inputs).T @ normalized(inputs) / len(inputs)
    assert factor.shape == (768, RANK)
    assert np.linalg.norm(factor @ factor.T - covariance) < 1e-3 * np.linalg.norm(covariance)


def test_the_sketch_is_near_the_optimum_of_its_rank_and_never_exceeds_the_covariance():
    inputs = inputs_of_rank(200, 768, 1)
    (factor,) = tap_of(inputs).sketches().values()
    covariance = (normalized(inputs).T @ normalized(inputs) / len(inputs)).astype(np.float64)
    values = np.linalg.eigvalsh(covariance)
    optimum = values[:-RANK].sum()
    assert PROBES < 200 and np.trace(covariance - factor @ factor.T) < 1.5 * optimum
    assert np.linalg.eigvalsh(covariance - factor.astype(np.float64) @ factor.T).min() > -1e-5 * values.max()


def test_a_single_block_needs_no_sketch():
    tap = tap_of(inputs_of_rank(2, 576, 1))
    assert tap.blocks() and not tap.sketches()


def test_shared_inputs_are_stored_once():
    assert not tap_of(inputs_of_rank(2, 64, 1), "blk.0.ffn_up.weight").blocks()


@pytest.mark.parametrize(
    ("columns", "width"), [(576, 576), (1536, 512), (2048, 512), (8192, 512), (896, 448), (4864, 256), (7, 7)]
)
def test_quantization_blocks_divide_the_block_width(columns, width):
    assert block_width(columns) == width
