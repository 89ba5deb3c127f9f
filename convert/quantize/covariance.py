"""Covariance of a matrix's inputs: full within blocks of neighbouring columns, low-rank between them.

With diagonal blocks D and a matrix L of few columns, the covariance is D within the blocks and L L'
elsewhere.
"""

from dataclasses import dataclass

import numpy as np

from ...stats.arrays import Floats


@dataclass(frozen=True)
class Covariance:
    """Covariance of the inputs of one matrix, over tokens whose inputs are normalized to length 1.

    Attributes:
        blocks: D, (blocks, width, width); the traces sum to 1.
        low_rank: L, (columns, rank); rank 0 where the coupling between blocks is unknown.
    """

    blocks: Floats
    low_rank: Floats

    @property
    def variances(self) -> Floats:
        """Variance of each input, (columns,)."""
        return np.diagonal(self.blocks, axis1=1, axis2=2).ravel()

    def multiply(self, vectors: Floats) -> Floats:
        """The covariance times `vectors`, (columns, n)."""
        count, width, _ = self.blocks.shape
        low_rank = self.low_rank.reshape(count, width, -1)
        parts = vectors.reshape(count, width, -1)
        coupled = low_rank.transpose(0, 2, 1) @ parts  # (blocks, rank, n)
        product: Floats = self.blocks @ parts + low_rank @ (coupled.sum(0) - coupled)
        return product.reshape(vectors.shape)

    def emphasized(self, directions: Floats, weight: float) -> "Covariance":
        """The covariance with a larger weight on errors that correlate with inputs along `directions`.

        The added term is `weight` times the energy of the part of the output error that, over the tokens,
        correlates with the inputs' components along the directions. With an adapter's A as directions, that
        is the part of the error that resembles the adapter's effect.

        Args:
            directions: rows that span the subspace, (r, columns).
            weight: factor of the added term.
        """
        projected = self.multiply(np.ascontiguousarray(directions.T))  # (columns, r)
        energies, vectors = np.linalg.eigh(directions.astype(np.float64) @ projected)
        nonzero = energies > 1e-6 * energies.max(initial=0)
        # (columns, ≤ r)
        root = np.sqrt(weight) * (projected @ vectors[:, nonzero]) / np.sqrt(energies[nonzero])
        added = root.astype(np.float32).reshape(*self.blocks.shape[:2], -1)
        return Covariance(
            self.blocks + added @ added.transpose(0, 2, 1),
            np.concatenate([self.low_rank, root.astype(np.float32)], axis=1),
        )


def empty_low_rank(blocks: Floats) -> Floats:
    """The low-rank part where it is unknown, or where one block covers all columns: (columns, 0)."""
    return np.zeros((blocks.shape[0] * blocks.shape[1], 0), np.float32)
