"""Scales, norms and biases of a GGUF: read, changed by gradients, and written back beside the same codes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType
from thirteen.convert.pipeline import convert
from thirteen.convert.quantize.block_codec import block_layout
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.tunable_weights import Parameters, TunableWeights, _Matrix, _Vector
from thirteen.files.gguf.header import Field, read_header

from ..runtime.calibration.weights import weights_of

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]


def quantized(type_: Type) -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((6, 512), np.float32) + np.float32(0.2)
    return np.frombuffer(quantize_rows(rows, type_, "test"), np.uint8).reshape(6, -1)


@pytest.mark.parametrize("name", TYPES)
def test_the_gradient_of_a_scale_is_the_change_of_the_weights(name: str) -> None:
    type_ = Type[name]
    layout = block_layout(type_)
    assert layout is not None
    matrix = _Matrix(quantized(type_), type_, layout)
    gradient = np.random.default_rng(2).standard_normal((3, 512), np.float32)
    before = matrix.rows(0, 6)
    matrix.add_gradient(2, gradient)
    expected = matrix.parameters.gradient.copy()
    assert not expected[:2].any() and not expected[5:].any()
    change = np.float32(2**-6)  # exact in float16
    for index in range(expected.shape[2]):
        factors = np.ones_like(expected)
        factors[..., index] += change
        moved = matrix.data.reshape(*expected.shape[:2], -1).copy()
        layout.scales.multiply_super(moved, factors)
        difference = _Matrix(moved.reshape(matrix.data.shape), type_, layout).rows(0, 6) - before
        product = (difference[2:5] * gradient).reshape(3, -1, layout.block_size).sum(-1) / change
        # The factors have 11 bits, so a change is only as exact as that.
        assert np.allclose(product, expected[2:5, :, index], atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize("name", TYPES)
def test_steps_lower_a_loss_and_keep_the_codes(name: str) -> None:
    type_ = Type[name]
    layout = block_layout(type_)
    assert layout is not None
    matrix = _Matrix(quantized(type_), type_, layout)
    first = matrix.data
    wanted = matrix.rows(0, 6) * np.float32(1.05)

    def loss() -> float:
        return float(np.square(matrix.rows(0, 6) - wanted).sum())

    losses = [loss()]
    for _ in range(20):
        matrix.add_gradient(0, 2 * (matrix.rows(0, 6) - wanted))
        matrix.step(0.005)
        losses.append(loss())
    assert losses[-1] < losses[0] / 2
    blocks, others = (data.reshape(*matrix.parameters.changes.shape[:2], -1) for data in (first, matrix.data))
    assert np.array_equal(layout.unpack_codes(blocks), layout.unpack_codes(others))


def test_a_vector_changes_relative_to_its_values() -> None:
    values = np.array([1, -2, 0, 4], np.float32)
    vector = _Vector(values.view(np.uint8).reshape(4, 4))
    vector.add_gradient(0, np.array([1, 1, 1, 1], np.float32))
    vector.step(0.01)
    changed = vector.rows(0, 4).ravel()
    assert (changed[[0, 3]] < values[[0, 3]]).all() and changed[1] < values[1] and changed[2] == 0


def test_a_number_without_gradient_stays() -> None:
    parameters = Parameters((2,))
    parameters.gradient[:] = 1, 0
    parameters.step(0.1)
    assert parameters.changes.tolist() == pytest.approx([-0.1 / np.sqrt(1.5), 0])
    assert not parameters.gradient.any()


@pytest.mark.parametrize("name", ["llama", "llama long", "llama untied", "qwen2", "qwen2 f16 tied"])
@pytest.mark.parametrize("type_", ["Q4_0", "Q8_0", "F16"])
def test_a_file_is_read_and_written_back(
    base: Callable[[str], Path], tmp_path: Path, name: str, type_: str
) -> None:
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    convert(base(name), path, quantization=type_, refine=True)
    weights, plain = TunableWeights(path), weights_of(path)
    for target, tensor in read_header(path).tensors.items():
        if target != "rope_freqs.weight":
            count = tensor.shape[0]
            assert np.array_equal(weights.rows(target, 0, count), plain.rows(target, 0, count))
    weights.write(other, weights.snapshot(), 0)
    assert other.read_bytes() == path.read_bytes()
    target = "blk.0.attn_k.weight"  # whose rows are in another order in the file
    rows = weights.rows(target, 0, weights.shape.layer_matrices["attn_k"][0])
    for _ in range(5):
        weights.add_gradient(target, 0, rows)
        weights.step(0.01)
    weights.write(path, weights.snapshot(), 5)
    assert read_header(path).metadata["thirteen.refine.steps"] == 5
    assert path.stat().st_size == other.stat().st_size
    smaller = weights_of(path).rows(target, 0, len(rows))
    assert np.array_equal(smaller, weights.rows(target, 0, len(rows)))
    if type_ == "F16":
        assert np.array_equal(smaller, rows)
    else:
        assert np.square(smaller).sum() < 0.99 * np.square(rows).sum()
    changed = {name for name, t in read_header(path).tensors.items() if data(path, t) != data(other, t)}
    assert changed <= {target}


def test_a_file_with_another_alignment_is_written_with_ours(
    base: Callable[[str], Path], tmp_path: Path
) -> None:
    """The key was copied, so that a reader looked for the tensors at other offsets."""
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    convert(base("llama"), path, quantization="Q8_0")
    weights = TunableWeights(path)
    weights._header.fields["general.alignment"] = Field(4096, GGUFValueType.UINT32)
    weights.write(other, weights.snapshot(), 0)
    for name, tensor in read_header(path).tensors.items():
        assert data(other, read_header(other).tensors[name]) == data(path, tensor)


def data(path: Path, tensor: object) -> bytes:
    with path.open("rb") as file:
        file.seek(tensor.offset)  # type: ignore[attr-defined]
        return file.read(tensor.nbytes)  # type: ignore[attr-defined]
