"""How the inputs of a matrix vary together: in full within blocks of neighbouring columns, else by low rank.

With D the blocks on the diagonal and L of few columns, the covariance is L L' everywhere but in the blocks,
where it is D.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Covariance:
    """Of the inputs of one matrix, over tokens whose inputs have length 1.

    Attributes:
        blocks: (blocks, width, width); their traces together are 1.
        low: (columns, rank); rank 0 where nothing is known of how the blocks go together.
    """

    blocks: Floats
    low: Floats

    @property
    def variances(self) -> Floats:
        """Of each input, (columns,)."""
        return np.diagonal(self.blocks, axis1=1, axis2=2).ravel()

    def times(self, vectors: Floats) -> Floats:
        """The covariance times `vectors`, (columns, n)."""
        count, width, _ = self.blocks.shape
        low = self.low.reshape(count, width, -1)
        parts = vectors.reshape(count, width, -1)
        coupled = low.transpose(0, 2, 1) @ parts  # (blocks, rank, n)
        out: Floats = (self.blocks @ parts + low @ (coupled.sum(0) - coupled)).reshape(vectors.shape)
        return out

    def stressing(self, directions: Floats, weight: float) -> "Covariance":
        """As if errors of the outputs that inputs cause along `directions`, (r, columns), counted more.

        What is added is `weight` times the energy of the part of the error that, over the tokens, goes with
        the inputs' components along the directions: of an adapter's A, the part that looks like its effect.
        """
        seen = self.times(np.ascontiguousarray(directions.T))  # (columns, r)
        values, vectors = np.linalg.eigh(directions.astype(np.float64) @ seen)  # of the components' energy
        kept = values > 1e-6 * values.max(initial=0)
        root = np.sqrt(weight) * (seen @ vectors[:, kept]) / np.sqrt(values[kept])  # (columns, at most r)
        added = root.astype(np.float32).reshape(*self.blocks.shape[:2], -1)
        return Covariance(
            self.blocks + added @ added.transpose(0, 2, 1),
            np.concatenate([self.low, root.astype(np.float32)], axis=1),
        )


def no_sketch(blocks: Floats) -> Floats:
    """The part of low rank where nothing is known of it, or one block has all: (columns, 0)."""
    return np.zeros((blocks.shape[0] * blocks.shape[1], 0), np.float32)
