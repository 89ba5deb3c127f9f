"""A decoder of any family in float32 with NumPy, one layer at a time, and its gradients.

Calibration passes all texts through a layer before it reads the next one. So only one layer's weights are in
memory, and every product of a matrix has its inputs at hand.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ...stats.arrays import Floats
from .attention import Attention
from .feed_forward import FeedForward
from .projection import Gradients, Parts, Projection
from .residual_block import BlockActivations, Mixer, ResidualBlock
from .rotation import layer_rotation
from .short_convolution import ShortConvolution
from .weights import DecoderWeights

_TOKENS = ("attn_norm", "attention_input", "context", "post_attention_norm")
_CHANNELS = ("ffn_norm", "ffn_input", "ffn_hidden", "post_ffw_norm")
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
