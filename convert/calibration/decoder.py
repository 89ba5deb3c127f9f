"""A decoder of any family in float32 with NumPy, one layer at a time, and its gradients.

Calibration passes all texts through a layer before it reads the next one. So only one layer's weights are in
memory, and every product of a matrix has its inputs at hand.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ...stats.arrays import Floats
from ..source.architecture import Architecture
from .attention import Attention, layer_rotation
from .feed_forward import FeedForward
from .projection import Backward, Gradients, Parts, Projection
from .rms_norm import NO_NORM, read_norm
from .short_convolution import ShortConvolution
from .weights import DecoderWeights

# The computation of a block between its matrices: forward() takes parts of its `widths`, and gives the inputs
# of the last matrix and the function from their gradient to those of the parts.
Mixer = Attention | FeedForward | ShortConvolution
# Names of a block's parts: its norm, the inputs of its first and of its last matrices in INPUTS, and the norm
# after them. The norms may be missing.
Roles = tuple[str, str, str, str]
_TOKENS: Roles = ("attn_norm", "attention_input", "context", "post_attention_norm")
_CHANNELS: Roles = ("ffn_norm", "ffn_input", "ffn_hidden", "post_ffw_norm")


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


# Activations of a layer for one sequence: of attention or a convolution, and of the feed-forward network. Its
# parts are the outputs of ffn_gate and ffn_up.
LayerActivations = tuple[BlockActivations, BlockActivations]


class DecoderLayer:
    """A layer with its weights.

    Attributes:
        index: its place in the model.
        projections: its matrices, by what they multiply.
    """

    def __init__(self, model: DecoderWeights, index: int, pool: ThreadPoolExecutor | None = None) -> None:
        """Read the weights of layer `index`, with a pool one tensor per thread."""
        a, tensors = model.architecture, model.layer(index, pool)
        self.index = index
        self._tokens = ResidualBlock(a, tensors, _token_mixer(model, index, tensors), _TOKENS)
        self._ffn = ResidualBlock(a, tensors, FeedForward(a.family.activation, a.ffn), _CHANNELS)
        self.projections: tuple[Projection, ...] = (
            *(self._tokens.first, self._tokens.last),
            *(self._ffn.first, self._ffn.last),
        )

    def forward(self, hidden: Floats, ffn: Parts | None = None) -> LayerActivations:
        """Compute what the layer multiplies for one sequence, (tokens, hidden).

        Args:
            hidden: hidden state before the layer.
            ffn: outputs of ffn_gate and ffn_up if they are known: half of the layer's time.
        """
        tokens = self._tokens.forward(hidden)
        return tokens, self._ffn.forward(self._tokens.output(tokens), ffn)

    def output(self, made: LayerActivations) -> Floats:
        """The hidden state after the layer, (tokens, hidden), from what forward() made."""
        return self._ffn.output(made[1])

    def backward(self, made: LayerActivations, gradient: Floats) -> tuple[Floats, Gradients]:
        """Propagate a gradient from the layer's output to its input.

        Args:
            made: what forward() made of the input.
            gradient: gradient of the layer's output, (tokens, hidden).

        Returns:
            The gradient of the input, and those of the outputs of all matrices.
        """
        tokens, ffn = made
        gradient, of_ffn = self._ffn.backward(ffn, gradient)
        gradient, of_tokens = self._tokens.backward(tokens, gradient)
        return gradient, of_tokens | of_ffn


def _token_mixer(model: DecoderWeights, index: int, tensors: Mapping[str, Floats]) -> Mixer:
    a = model.architecture
    if index in a.convolved:
        return ShortConvolution(tensors["shortconv.conv.weight"])
    window = a.window if index in a.windowed else None
    return Attention(a, tensors, layer_rotation(model, index), window)
