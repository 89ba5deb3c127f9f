"""Normal numbers drawn with NumPy match PyTorch's."""

import numpy as np
import pytest
import torch
from thirteen.convert.adapter.torch_random import torch_normal


# PyTorch draws fewer than 16 numbers one by one, and more in blocks of 16, the last of which may overlap.
@pytest.mark.parametrize(
    "shape", [(1,), (3, 1, 1), (15,), (16,), (17,), (31,), (33,), (13, 2, 2), (64, 2, 2), (10007,)]
)
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**32 + 7, 2**63 - 1])
def test_the_numbers_match_pytorch(seed, shape):
    drawn = torch_normal(seed, 0.5**0.5, shape)
    expected = torch.normal(0.0, 0.5**0.5, shape, generator=torch.Generator().manual_seed(seed)).numpy()
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=5e-7)
    assert np.linalg.norm(drawn - expected) < 1e-7 * np.linalg.norm(expected)
