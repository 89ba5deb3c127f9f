"""The covariance that is kept is that of the inputs: blocks in full, else as nearly as its rank allows."""

import numpy as np
import pytest
from thirteen.runtime.calibration.activation_covariance import PROBES, RANK, CovarianceTap, block_width
from thirteen.runtime.llama.eval_callback import MatMul


def seen(inputs, name="blk.0.attn_q.weight"):
    """What the tap has of some inputs, given in two parts."""
    tap = CovarianceTap()
    for part in np.array_split(inputs, 2):
        tap(MatMul(name, part, np.empty((len(part), 1), np.float32)))
    return tap


def unit(inputs):
    length = np.linalg.norm(inputs, axis=1, keepdims=True)
    return np.divide(inputs, length, out=np.zeros_like(inputs), where=length > 0)


def inputs_of_rank(rank, columns, noise):
    random = np.random.default_rng(5)
    mixed = random.standard_normal((500, rank)) @ random.standard_normal((rank, columns))
    return (mixed + noise * random.standard_normal((500, columns))).astype(np.float32)


def test_blocks_are_the_mean_products_of_inputs_of_length_1():
    inputs = inputs_of_rank(6, 1024, 0.5)
    inputs[7] = 0  # a token that gives nothing
    (blocks,) = seen(inputs).blocks().values()
    whole = unit(inputs).T @ unit(inputs) / len(inputs)
    assert blocks.shape == (2, 512, 512)
    for block in range(2):
        span = slice(512 * block, 512 * block + 512)
        assert np.allclose(blocks[block], whole[span, span], atol=1e-6)


def test_a_sketch_of_low_rank_is_exact():
    inputs = inputs_of_rank(20, 768, 0)
    (low,) = seen(inputs).sketches().values()
    whole = unit(inputs).T @ unit(inputs) / len(inputs)
    assert low.shape == (768, RANK)
    assert np.linalg.norm(low @ low.T - whole) < 1e-3 * np.linalg.norm(whole)


def test_a_sketch_is_nearly_the_best_of_its_rank_and_never_more_than_the_covariance():
    inputs = inputs_of_rank(200, 768, 1)
    (low,) = seen(inputs).sketches().values()
    whole = (unit(inputs).T @ unit(inputs) / len(inputs)).astype(np.float64)
    values = np.linalg.eigvalsh(whole)
    best = values[:-RANK].sum()
    assert PROBES < 200 and np.trace(whole - low @ low.T) < 1.5 * best
    assert np.linalg.eigvalsh(whole - low.astype(np.float64) @ low.T).min() > -1e-5 * values.max()


def test_one_block_of_all_columns_needs_no_sketch():
    tap = seen(inputs_of_rank(2, 576, 1))
    assert tap.blocks() and not tap.sketches()


def test_what_is_given_the_same_is_kept_once():
    assert not seen(inputs_of_rank(2, 64, 1), "blk.0.ffn_up.weight").blocks()


@pytest.mark.parametrize(
    ("columns", "width"), [(576, 576), (1536, 512), (2048, 512), (8192, 512), (896, 448), (4864, 256), (7, 7)]
)
def test_blocks_are_whole_blocks_of_any_type_that_the_columns_take(columns, width):
    assert block_width(columns) == width
