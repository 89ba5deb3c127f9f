"""A decoder of any family in float32 with NumPy, one layer at a time, and its gradients.

Calibration passes all texts through a layer before it reads the next one. So only one layer's weights are in
memory, and every product of a matrix has its inputs at hand.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...stats.arrays import Doubles, Floats
from ..merged_model import MergedModel
from ..source.architecture import EMBEDDING, OUTPUT, Architecture
from ..source.rope import FACTORS, SHORT_FACTORS
from .mixers import Attention, FeedForward, Mixer, ShortConvolution
from .parts import Backward, Gradients, Parts, Projection, RmsNorm

# Names of a block's parts: its norm, the inputs of its first and of its last matrices in INPUTS, and the norm
# after them. The norms may be missing.
Roles = tuple[str, str, str, str]
_TOKENS: Roles = ("attn_norm", "attention_input", "context", "post_attention_norm")
_CHANNELS: Roles = ("ffn_norm", "ffn_input", "ffn_hidden", "post_ffw_norm")


class DecoderWeights:
    """The tensors of a merged model by their names in a GGUF. Rows of q and k are in transformers' order.

    Attributes:
        architecture: sizes and constants.
        rope_factors: divisors of the RoPE frequencies, (rotated dimensions / 2,); None if there are none.
        shapes: shape of each tensor.
        output: name of the output matrix, which may be the token embedding.
        output_norm: name of the norm before it.
    """

    def __init__(self, model: MergedModel) -> None:
        self._model, specs = model, model.base.specs.values()
        self._sources = {spec.target: spec.source for spec in specs}
        self.architecture, divisors = model.base.architecture, model.base.rope_tensors
        # Texts for calibration are shorter than the original context of LongRoPE.
        self.rope_factors = divisors.get(FACTORS, divisors.get(SHORT_FACTORS))
        self.shapes = {spec.target: spec.shape for spec in specs}
        self.output = EMBEDDING if self.architecture.tied else OUTPUT
        outside = self.architecture.family.outside.values()
        (self.output_norm,) = (f"{kind}.weight" for kind in outside if kind.endswith("norm"))

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a tensor, (n, …)."""
        return self._model.rows(self._sources[name], start, stop)

    def tensor(self, name: str) -> Floats:
        """A whole tensor."""
        return self.rows(name, 0, self.shapes[name][0])

    def layer(self, index: int, pool: ThreadPoolExecutor | None = None) -> dict[str, Floats]:
        """The tensors of a layer, by their names within it; with a pool, one tensor per thread."""
        prefix = f"blk.{index}."
        names = [name for name in self.shapes if name.startswith(prefix)]
        tensors = (pool.map if pool else map)(self.tensor, names)
        return {
            name.removeprefix(prefix): np.ascontiguousarray(tensor, np.float32)
            for name, tensor in zip(names, tensors, strict=True)
        }

    def frequencies(self, index: int) -> Doubles | None:
        """Of RoPE in a layer; None without. Layers with a window have a theta of their own."""
        a, windowed = self.architecture, index in self.architecture.windowed
        if index in a.unrotated:
            return None
        theta = a.window_theta if windowed and a.window_theta else a.rope_theta
        frequencies: Doubles = theta ** (-np.arange(0, a.rotated, 2) / a.rotated)
        if windowed:
            return frequencies
        frequencies = frequencies / a.rope_linear
        return frequencies if self.rope_factors is None else frequencies / self.rope_factors


@dataclass(frozen=True)
class BlockActivations:
    """Activations of a block for one sequence; all have a row per token."""

    hidden: Floats  # hidden state before the block, (tokens, hidden)
    inputs: Floats  # what the first matrices multiply: `hidden`, normalized if there is a norm
    parts: Parts  # outputs of the first matrices
    inner: Floats  # what the last matrix multiplies
    backward: Backward  # from the gradient of `inner` to those of `parts`


class ResidualBlock:
    """First matrices, a mixer and a last matrix; norms before and after them; a factor of their result."""

    def __init__(
        self, architecture: Architecture, tensors: Mapping[str, Floats], mixer: Mixer, roles: Roles
    ) -> None:
        norm, inputs, inner, post_norm = roles
        self.first = Projection(tensors, inputs, mixer.widths)
        self.last = Projection(tensors, inner, (architecture.hidden,))
        self._mixer, self._scale = mixer, architecture.residual_scale
        self._norm, self._post_norm = (
            RmsNorm(tensors.get(f"{name}.weight"), architecture.rms_eps) for name in (norm, post_norm)
        )

    def forward(self, hidden: Floats, parts: Parts | None = None) -> BlockActivations:
        """Compute what the block multiplies, for one sequence; `parts` if they are known."""
        inputs = self._norm.forward(hidden)
        parts = parts or self.first.forward(inputs)
        return BlockActivations(hidden, inputs, parts, *self._mixer.forward(*parts))

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
        if self._post_norm.weight is not None:
            added = self._post_norm.backward(self.last.forward(made.inner)[0], added)
        inner, last = self.last.backward([added])
        inputs, first = self.first.backward(made.backward(inner))
        return gradient + self._norm.backward(made.hidden, inputs), first | last


# Of a layer for one sequence: its attention or convolution, and its feed-forward network.
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
        window = a.window if index in a.windowed else None
        mixer: Mixer = (
            ShortConvolution(tensors["shortconv.conv.weight"])
            if index in a.convolved
            else Attention(a, tensors, model.frequencies(index), window)
        )
        self.index = index
        self._tokens = ResidualBlock(a, tensors, mixer, _TOKENS)
        self._ffn = ResidualBlock(a, tensors, FeedForward(a.family.activation, a.ffn), _CHANNELS)
        self.projections = (self._tokens.first, self._tokens.last, self._ffn.first, self._ffn.last)

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
        """The gradient of the layer's input from that of its output, and those of all matrices' outputs."""
        tokens, ffn = made
        gradient, of_ffn = self._ffn.backward(ffn, gradient)
        gradient, of_tokens = self._tokens.backward(tokens, gradient)
        return gradient, of_tokens | of_ffn
