"""The short convolution of LFM2 between its matrices: Lfm2ShortConv of transformers."""

from functools import partial

from ...stats.arrays import Floats
from .projection import Backward, Parts


class ShortConvolution:
    """A Mixer. Of its parts b, c and x it makes c * (b * x, convolved), each column with its own kernel."""

    def __init__(self, kernel: Floats) -> None:
        """Convolve with `kernel`, (hidden, width), whose last entry is for the token itself."""
        self.widths = (len(kernel),) * 3
        self._kernel = kernel

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        b, c, x = parts
        convolved = self._convolve(b * x)
        return c * convolved, partial(self._backward, parts, convolved)

    def _backward(self, parts: Parts, convolved: Floats, gradient: Floats) -> Parts:
        b, c, x = parts
        product = self._convolve((gradient * c)[::-1])[::-1]
        return product * x, gradient * convolved, product * b

    def _convolve(self, rows: Floats) -> Floats:
        """The causal convolution of rows, (tokens, hidden)."""
        own, *earlier = self._kernel.T[::-1]
        result: Floats = rows * own
        for distance, weights in enumerate(earlier, 1):
            result[distance:] += rows[:-distance] * weights
        return result
