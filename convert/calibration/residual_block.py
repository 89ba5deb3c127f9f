"""A block of a layer: what it adds to the hidden state, and the gradient of that."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...stats.arrays import Floats
from ..source.architecture import Architecture
from .attention import Attention
from .feed_forward import FeedForward
from .projection import Backward, Gradients, Parts, Projection
from .rms_norm import NO_NORM, read_norm
from .short_convolution import ShortConvolution

# The computation of a block between its matrices: forward() takes parts of its `widths`, and gives the inputs
# of the last matrix and the function from their gradient to those of the parts.
Mixer = Attention | FeedForward | ShortConvolution
# Names of a block's parts: its norm, the inputs of its first and of its last matrices in INPUTS, and the norm
# after them. The norms may be missing.
Roles = tuple[str, str, str, str]


@dataclass(frozen=True)
class BlockActivations:
    """Activations of a block for one sequence; all have a row per token.

    Attributes:
        hidden: hidden state before the block, (tokens, hidden).
        inputs: what the first matrices multiply: `hidden`, normalized if there is a norm.
        parts: outputs of the first matrices.
        inner: what the last matrix multiplies.
        backward: from the gradient of `inner` to those of `parts`.
    """

    hidden: Floats
    inputs: Floats
    parts: Parts
    inner: Floats
    backward: Backward


class ResidualBlock:
    """First matrices, a mixer and a last matrix; norms before and after them; a factor of their result.

    Attributes:
        first, last: the matrices.
    """

    def __init__(
        self, architecture: Architecture, tensors: Mapping[str, Floats], mixer: Mixer, roles: Roles
    ) -> None:
        norm, inputs, inner, post_norm = roles
        self.first = Projection(tensors, inputs, mixer.widths)
        self.last = Projection(tensors, inner, (architecture.hidden,))
        self._mixer, self._scale = mixer, architecture.residual_scale
        self._norm = read_norm(tensors, norm, architecture.rms_eps)
        self._post_norm = read_norm(tensors, post_norm, architecture.rms_eps)

    def forward(self, hidden: Floats, parts: Parts | None = None) -> BlockActivations:
        """Compute what the block multiplies, for one sequence; `parts` if they are known."""
        inputs = self._norm.forward(hidden)
        parts = parts or self.first.forward(inputs)
        inner, backward = self._mixer.forward(*parts)
        return BlockActivations(hidden, inputs, parts, inner, backward)

    def output(self, made: BlockActivations) -> Floats:
        """The hidden state after the block, (tokens, hidden)."""
        (added,) = self.last.forward(made.inner)
        added = self._post_norm.forward(added)
        if self._scale != 1:
            added *= self._scale
        return made.hidden + added

    def backward(self, made: BlockActivations, gradient: Floats) -> tuple[Floats, Gradients]:
        """The gradient of the hidden state before the block from that after it, and those of the matrices."""
        added = gradient if self._scale == 1 else gradient * self._scale
        if self._post_norm is not NO_NORM:
            added = self._post_norm.backward(self.last.forward(made.inner)[0], added)
        inner, last = self.last.backward([added])
        inputs, first = self.first.backward(made.backward(inner))
        return gradient + self._norm.backward(made.hidden, inputs), first | last
