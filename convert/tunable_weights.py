"""Weights of a quantized GGUF that are tuned without new codes: block scales, norms and biases.

A tensor's parameters are relative changes of its blocks' float16 factors (`d`, and `m` or `dmin`), or of
the values of a vector in F32. So a step of one size suits all of them.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ..files.safetensors import Rows
from .calibration_weights import WeightsByGgufName
from .merged_view import MergedView
from .provenance import refine_fields
from .quantize.block_codec import BlockLayout, block_layout
from .quantize.ggml import dequantize_rows, quantize_rows
from .source.architecture import permute, unpermute
from .source.checkpoint import Checkpoint, GgufCheckpoint
from .tensors import TensorPlan, TensorSpec
from .write import write_gguf

Bytes = NDArray[np.uint8]

_MOMENTUM = 0.9
_SQUARES_DECAY = 0.98
_TINY = np.float32(1e-30)
_OF_THE_WRITER = ("general.architecture", "general.alignment")  # write_gguf() has its own


class Parameters:
    """Relative changes of numbers, and their gradients.

    The step is Adam's (arXiv 1412.6980), with the mean square of the tensor's gradients added to that of each
    number: numbers without a noticeable gradient, such as the scales of rare tokens, then hardly move.

    Attributes:
        changes: by how much each number differs from its original, relative to it.
        gradient: sum of the gradients since the last step.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.changes, self.gradient, self._momentum, self._squares = np.zeros((4, *shape), np.float32)
        self._steps = 0

    def step(self, size: float) -> None:
        """Change the numbers against the gradient, and clear it."""
        self._steps += 1
        self._momentum += (1 - _MOMENTUM) * (self.gradient - self._momentum)
        self._squares += (1 - _SQUARES_DECAY) * (np.square(self.gradient) - self._squares)
        correction = np.sqrt(1 - _SQUARES_DECAY**self._steps) / (1 - _MOMENTUM**self._steps)
        typical = np.sqrt(self._squares + self._squares.mean() + _TINY)
        self.changes -= np.float32(size * correction) * self._momentum / typical
        self.gradient[...] = 0


class _Tensor:
    """A tensor's bytes, (rows, bytes of a row). This one does not change.

    Attributes:
        data: the bytes; a step replaces the array.
        parameters: what changes them; None if nothing does.
    """

    def __init__(self, data: Bytes, type_: GGMLQuantizationType) -> None:
        self.data, self._original, self._type = data, data, type_
        self.parameters: Parameters | None = None

    def rows(self, start: int, stop: int) -> Rows:
        return dequantize_rows(self.data[start:stop], self._type)

    def add_gradient(self, start: int, gradient: Rows) -> None:
        """Add the gradient of rows `start` onward to that of the parameters, if there are any."""

    def step(self, size: float) -> None:
        """Change the parameters, and with them the bytes."""


class _Vector(_Tensor):
    """A norm or a bias, in F32."""

    def __init__(self, data: Bytes) -> None:
        super().__init__(data, GGMLQuantizationType.F32)
        self._values = self.rows(0, len(data)).ravel()
        self.parameters: Parameters = Parameters(self._values.shape)

    def add_gradient(self, start: int, gradient: Rows) -> None:
        stop = start + len(gradient)
        self.parameters.gradient[start:stop] += gradient.ravel() * self._values[start:stop]

    def step(self, size: float) -> None:
        self.parameters.step(size)
        values = self._values * (1 + self.parameters.changes)
        self.data = values.astype("<f4").view(np.uint8).reshape(self._original.shape)


class _Matrix(_Tensor):
    """A matrix, of which the factors of its blocks' scales and offsets are tuned."""

    def __init__(self, data: Bytes, type_: GGMLQuantizationType, layout: BlockLayout) -> None:
        super().__init__(data, type_)
        self._layout, self._block_bytes = layout, GGML_QUANT_SIZES[type_][1]
        blocks = data.shape[1] // self._block_bytes
        self.parameters: Parameters = Parameters((len(data), blocks, len(layout.scales.super_scales)))

    def add_gradient(self, start: int, gradient: Rows) -> None:
        stop, shape = start + len(gradient), (len(gradient), -1, self._layout.block_size)
        for index, term in enumerate(self._terms(start, stop)):
            product = np.einsum("rbs,rbs->rb", gradient.reshape(shape), term.reshape(shape))
            self.parameters.gradient[start:stop, :, index] += product

    def step(self, size: float) -> None:
        self.parameters.step(size)
        self.data = self._original.copy()
        blocks = self.data.reshape(len(self.data), -1, self._block_bytes)
        self._layout.scales.multiply_super(blocks, 1 + self.parameters.changes)

    def _terms(self, start: int, stop: int) -> list[Rows]:
        """The terms of rows that are proportional to each factor; they add up to the weights."""
        weights = self.rows(start, stop)
        if len(self._layout.scales.super_scales) == 1:
            return [weights]
        blocks = self.data[start:stop].reshape(stop - start, -1, self._block_bytes).copy()
        scale_at = self._layout.scales.super_scales[0]
        blocks[..., scale_at : scale_at + 2] = 0
        offsets = dequantize_rows(blocks.reshape(stop - start, -1), self._type)
        return [weights - offsets, offsets]


class TunableWeights(WeightsByGgufName):
    """The weights of a GGUF, which can be tuned and written back; see WeightsByGgufName for attributes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            CheckpointError: it is not a supported model.
            ModelFileError: it is damaged.
        """
        base = GgufCheckpoint(path, path.name)
        super().__init__(MergedView(base, None, ""))
        self._header, self._specs = base.header, {spec.target: spec for spec in base.specs.values()}
        self._tensors = {name: _tensor(base, spec) for name, spec in self._specs.items()}

    @property
    def parameters(self) -> int:
        """Number of numbers that are tuned."""
        return sum(t.parameters.changes.size for t in self._tensors.values() if t.parameters is not None)

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a tensor, (n, …); of a permuted one all."""
        spec = self._specs[name]
        rows = self._tensors[name].rows(start, stop).reshape(stop - start, *spec.shape[1:])
        return unpermute(rows, spec.heads) if spec.heads else rows

    def add_gradient(self, name: str, start: int, gradient: Rows) -> None:
        """Add a gradient of rows `start` onward of a tensor, (n, …), to those before."""
        heads = self._specs[name].heads
        self._tensors[name].add_gradient(start, permute(gradient, heads) if heads else gradient)

    def step(self, size: float) -> None:
        """Change all numbers against their gradients, and clear these.

        Args:
            size: typical change, relative to the numbers.
        """
        for tensor in self._tensors.values():
            tensor.step(size)

    def snapshot(self) -> dict[str, Bytes]:
        """The bytes of all tensors at this moment, by name."""
        return {name: tensor.data for name, tensor in self._tensors.items()}

    def write(self, target: Path, snapshot: dict[str, Bytes], steps: int) -> str:
        """Write a GGUF like the one that was read, with other bytes, atomically.

        Args:
            target: the file; it may be the one that was read.
            snapshot: the tensors' bytes, from snapshot().
            steps: number of steps that led there, for the provenance.

        Returns:
            The file's SHA-256.

        Raises:
            OutputError: the file cannot be written.
        """
        header = self._header
        fields = {key: field for key, field in header.fields.items() if key not in _OF_THE_WRITER}
        fields |= refine_fields(steps)
        plans = [TensorPlan(t.name, t.name, t.shape, t.type, t.nbytes) for t in header.tensors.values()]
        blocks = (
            snapshot[plan.target].tobytes() if plan.target in snapshot else self._stored(plan)
            for plan in plans
        )
        architecture = header.metadata["general.architecture"]
        return write_gguf(target, architecture, fields, plans, blocks, source=header.path)

    def _stored(self, plan: TensorPlan) -> bytes:
        """A tensor that is not a weight: the RoPE factors."""
        assert self.rope_factors is not None, plan
        return quantize_rows(self.rope_factors, plan.type, plan.target)


def _tensor(base: Checkpoint, spec: TensorSpec) -> _Tensor:
    stored, type_ = base.stored_rows(spec.source, 0, spec.shape[0]), base.stored_type(spec.source)
    assert stored is not None, "the base is a GGUF"
    data, layout = np.frombuffer(stored, np.uint8).reshape(spec.shape[0], -1), block_layout(type_)
    if len(spec.shape) == 1 and type_ is GGMLQuantizationType.F32:
        return _Vector(data)
    return _Matrix(data, type_, layout) if layout and layout.scales.super_scales else _Tensor(data, type_)
