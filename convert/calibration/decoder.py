"""A decoder of any family in float32 with NumPy, one layer at a time, and its gradients.

Calibration passes all texts through a layer before it reads the next one. So only one layer's weights are in
memory, and every product of a matrix has its inputs at hand.

A layer is two residual blocks: matrices and norms, and a mixer between the matrices: attention, a gated
activation or a convolution. A mixer takes the outputs of the block's first matrices, which have its `widths`.
Its forward() gives the inputs of the last matrix, and the function from their gradient to those of the parts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate

import numpy as np

from ...stats import Doubles, Floats
from ..merged_model import MergedModel
from ..source.architecture import EMBEDDING, OUTPUT, Architecture
from ..source.families import FACTORS, INPUTS, SHORT_FACTORS

Parts = Sequence[Floats]  # outputs of the matrices that multiply the same inputs, (tokens, width) each
Backward = Callable[[Floats], Parts]  # from the gradient of what is computed from parts to theirs
Gradients = dict[str, Floats]  # by matrix: gradient of its outputs, (tokens, rows)

_QUERIES = 128  # of a sequence, for which attention is computed at once
_GELU, _CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)

# An activation is x * sigmoid(argument(x)): its argument, and the derivative of that. GELU is that by tanh.
_ARGUMENTS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "silu": (lambda gate: gate, lambda gate: np.ones(1, np.float32)),
    "gelu": (
        lambda gate: _GELU * gate * (1 + _CUBIC * np.square(gate)),
        lambda gate: _GELU * (1 + 3 * _CUBIC * np.square(gate)),
    ),
}

# Names of a block's parts: its norm, the inputs of its first and of its last matrices in INPUTS, and the norm
# after them. The norms may be missing.
Roles = tuple[str, str, str, str]
_TOKENS: Roles = ("attn_norm", "attention_input", "context", "post_attention_norm")
_CHANNELS: Roles = ("ffn_norm", "ffn_input", "ffn_hidden", "post_ffw_norm")


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


class FeedForward:
    """A gated activation of the outputs of ffn_gate and ffn_up: act(gate) * up."""

    def __init__(self, activation: str, width: int) -> None:
        self.widths = (width, width)
        self._argument, self._slope = _ARGUMENTS[activation]

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        gate, up = parts
        hidden = _sigmoid(self._argument(gate))
        hidden *= gate
        hidden *= up
        return hidden, partial(self._backward, gate, up)

    def _backward(self, gate: Floats, up: Floats, gradient: Floats) -> Parts:
        share = _sigmoid(self._argument(gate))
        activated = share * gate
        slope = 1 - share  # in place from here: arrays of this size are expensive to allocate
        slope *= activated
        slope *= self._slope(gate)
        slope += share
        activated *= gradient
        slope *= up
        slope *= gradient
        return slope, activated


def _sigmoid(values: Floats) -> Floats:
    result: Floats = values * np.float32(0.5)
    np.tanh(result, out=result)  # unlike exp, it does not overflow
    result += 1
    result *= np.float32(0.5)
    return result


class ShortConvolution:
    """Lfm2ShortConv of transformers: c * (b * x, convolved), each column with its own kernel."""

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


class Attention:
    """Causal attention of all heads. Queries and keys are normalized where there are norms, then rotated."""

    def __init__(
        self,
        architecture: Architecture,
        tensors: Mapping[str, Floats],
        frequencies: Doubles | None,
        window: int | None,
    ) -> None:
        """Take the constants of a layer.

        Args:
            architecture: the model's.
            tensors: the layer's.
            frequencies: of RoPE, (rotated dimensions / 2,); None without.
            window: the tokens that a query attends to, up to its own; None for all.
        """
        a = architecture
        self.widths = (a.heads * a.head_dim, a.kv_width, a.kv_width)
        self._kv_heads, self._head_dim, self._window = a.kv_heads, a.head_dim, window
        self._query_norm = RmsNorm(tensors.get("attn_q_norm.weight"), a.rms_eps)
        self._key_norm = RmsNorm(tensors.get("attn_k_norm.weight"), a.rms_eps)
        self._frequencies, self._rotation_scale = frequencies, a.rope_attention_factor
        self._scale = np.float32(a.attention_scale or a.head_dim**-0.5)

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        queries = self._rotate(self._split(self._query_norm.forward(parts[0])), 1)
        keys = self._rotate(self._split(self._key_norm.forward(parts[1])), 1)
        values = self._split(parts[2])
        queries = queries.reshape(self._kv_heads, -1, *queries.shape[1:])
        context = np.concatenate([*map(self._attend, queries, keys, values)])
        return _merge(context), partial(self._backward, parts, queries, keys, values)

    def _backward(
        self, parts: Parts, queries: Floats, keys: Floats, values: Floats, gradient: Floats
    ) -> Parts:
        context = self._split(gradient).reshape(queries.shape)
        by_head = map(self._attend_backward, queries, keys, values, context)
        queries, keys, values = (np.stack(part) for part in zip(*by_head, strict=True))
        queries = queries.reshape(-1, *queries.shape[2:])  # (heads, tokens, head_dim)
        return (
            self._query_norm.backward(parts[0], _merge(self._rotate(queries, -1))),
            self._key_norm.backward(parts[1], _merge(self._rotate(keys, -1))),
            _merge(values),
        )

    def _split(self, rows: Floats) -> Floats:
        """Split rows by head: (tokens, heads * head_dim) to (heads, tokens, head_dim)."""
        parts = rows.reshape(len(rows), -1, self._head_dim)
        return np.ascontiguousarray(parts.swapaxes(0, 1))

    def _rotate(self, vectors: Floats, direction: int) -> Floats:
        """Apply RoPE, in transformers' order: halves are rotated, not pairs; with direction -1, back."""
        if self._frequencies is None:
            return vectors
        half = len(self._frequencies)
        angles = np.arange(vectors.shape[1])[:, None] * self._frequencies  # (tokens, half)
        cosine = (self._rotation_scale * np.cos(angles)).astype(np.float32)
        sine = (direction * self._rotation_scale * np.sin(angles)).astype(np.float32)
        first, second, rest = np.split(vectors, [half, 2 * half], -1)
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine, rest], -1)

    def _attend(self, queries: Floats, keys: Floats, values: Floats) -> Floats:
        """Outputs of the heads, (heads, tokens, head_dim), that share keys and values, (tokens, head_dim)."""
        result = np.empty_like(queries)
        for block, read in self._blocks(len(keys)):
            weights = self._probabilities(queries[:, block], keys[read])
            np.matmul(weights, values[read], out=result[:, block])
        return result

    def _attend_backward(
        self, queries: Floats, keys: Floats, values: Floats, gradient: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """The gradients of queries, keys and values from that of the outputs."""
        results = np.empty_like(queries), np.zeros_like(keys), np.zeros_like(values)
        for block, read in self._blocks(len(keys)):
            part, outer = queries[:, block], gradient[:, block]
            weights = self._probabilities(part, keys[read])
            scores: Floats = outer @ values[read].T
            scores -= (scores * weights).sum(-1, keepdims=True)
            scores *= weights
            scores *= self._scale
            np.matmul(scores, keys[read], out=results[0][:, block])
            results[1][read] += (scores.swapaxes(1, 2) @ part).sum(0)
            results[2][read] += (weights.swapaxes(1, 2) @ outer).sum(0)
        return results

    def _blocks(self, tokens: int) -> Iterator[tuple[slice, slice]]:
        """Blocks of queries, and the keys from the first to the last that they read."""
        for start in range(0, tokens, _QUERIES):
            stop = min(start + _QUERIES, tokens)
            first = max(0, start + 1 - self._window) if self._window else 0
            yield slice(start, stop), slice(first, stop)

    def _probabilities(self, queries: Floats, keys: Floats) -> Floats:
        """Weights of the keys for the last queries, (heads, queries, keys)."""
        count, tokens = queries.shape[1], len(keys)
        scores: Floats = (queries @ keys.T) * self._scale
        masked = np.full((count, tokens), -np.inf, np.float32)
        scores += np.triu(masked, 1 + tokens - count)
        if self._window:
            scores += np.tril(masked, tokens - count - self._window)
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        return scores


def _merge(vectors: Floats) -> Floats:
    return np.ascontiguousarray(vectors.swapaxes(0, 1)).reshape(vectors.shape[1], -1)


Mixer = Attention | FeedForward | ShortConvolution


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
