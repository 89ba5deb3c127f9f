"""The matrices of a layer that multiply the same inputs."""

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
        for place, bias in enumerate(self._biases):
            if bias is not None:
                outputs[place] += bias
        return np.split(outputs[0], self._bounds, 1) if self._fused else outputs

    def backward(self, gradients: Parts) -> tuple[Floats, Gradients]:
        """The gradient of the inputs, from those of the outputs, and those of the matrices' outputs."""
        if self._fused:
            gradients = [np.concatenate(gradients, 1)]
        products = (one @ matrix for one, matrix in zip(gradients, self._matrices, strict=True))
        return reduce(np.add, products), dict(zip(self.names, gradients, strict=True))
