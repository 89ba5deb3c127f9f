"""The parts of a decoder layer that have weights, forward and backward: matrices and norms."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import accumulate

import numpy as np

from ...stats.arrays import Floats
from ..source.families import INPUTS

Parts = Sequence[Floats]  # outputs of the matrices that multiply the same inputs, (tokens, width) each
Backward = Callable[[Floats], Parts]  # from the gradient of what is computed from parts to theirs
Gradients = dict[str, Floats]  # by matrix: gradient of its outputs, (tokens, rows)


class Projection:
    """Matrices with the same inputs. Where a layer has them as one, its outputs are split.

    Attributes:
        names: the matrices.
        columns: width of their inputs.
    """

    def __init__(self, tensors: Mapping[str, Floats], field: str, widths: Sequence[int]) -> None:
        """Take the matrices whose inputs INPUTS calls `field`, with outputs of these widths."""
        self.names = tuple(
            name for name, read in INPUTS.items() if read == field and f"{name}.weight" in tensors
        )
        self._matrices = [tensors[f"{name}.weight"] for name in self.names]
        self._biases = [tensors.get(f"{name}.bias") for name in self.names]
        self.columns = self._matrices[0].shape[1]
        self._bounds = [*accumulate(widths[:-1])]
        self._fused = len(self.names) < len(widths)

    def forward(self, inputs: Floats) -> Parts:
        """The outputs, (tokens, width) each, of inputs, (tokens, columns)."""
        outputs = [inputs @ matrix.T for matrix in self._matrices]
        for output, bias in zip(outputs, self._biases, strict=True):
            if bias is not None:
                np.add(output, bias, out=output)
        return np.split(outputs[0], self._bounds, 1) if self._fused else outputs

    def backward(self, gradients: Parts) -> tuple[Floats, Gradients]:
        """The gradient of the inputs, from those of the outputs, and those of the matrices' outputs."""
        if self._fused:
            gradients = [np.concatenate(gradients, 1)]
        products = (one @ matrix for one, matrix in zip(gradients, self._matrices, strict=True))
        return reduce(np.add, products), dict(zip(self.names, gradients, strict=True))


class RmsNorm:
    """RMSNorm of vectors as wide as its weight, (width,); a row may hold several. No weight: the identity."""

    def __init__(self, weight: Floats | None, eps: float) -> None:
        self.weight, self._eps = weight, eps

    def forward(self, rows: Floats) -> Floats:
        """The normalized rows, (tokens, n * width)."""
        if self.weight is None:
            return rows
        vectors = rows.reshape(-1, len(self.weight))
        scaled: Floats = vectors * self._inverse_rms(vectors)
        scaled *= self.weight
        return scaled.reshape(rows.shape)

    def backward(self, rows: Floats, gradient: Floats) -> Floats:
        """The gradient of `rows` from that of what forward() makes of them."""
        if self.weight is None:
            return gradient
        vectors = rows.reshape(-1, len(self.weight))
        weighted = gradient.reshape(vectors.shape) * self.weight
        scale = self._inverse_rms(vectors)
        along = np.einsum("tc,tc->t", vectors, weighted)[:, None] * scale**2
        result: Floats = scale * (weighted - vectors * (along / np.float32(vectors.shape[1])))
        return result.reshape(rows.shape)

    def _inverse_rms(self, vectors: Floats) -> Floats:
        squares = np.einsum("tc,tc->t", vectors, vectors).astype(np.float64)[:, None]
        inverse: Floats = (1 / np.sqrt(squares / vectors.shape[1] + self._eps)).astype(np.float32)
        return inverse  # (vectors, 1)
