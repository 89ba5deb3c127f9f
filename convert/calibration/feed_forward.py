"""The feed-forward network between its matrices: a gated activation."""

import math
from functools import partial

import numpy as np

from ...stats.arrays import Floats
from .projection import Backward, Parts

_GELU, _CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)


class FeedForward:
    """A Mixer. Of the outputs of ffn_gate and ffn_up it makes act(gate) * up."""

    def __init__(self, activation: str, width: int) -> None:
        """Use an activation of Family.activation for rows of `width`."""
        self.widths = (width, width)
        self._activate, self._differentiate = _ACTIVATIONS[activation]

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        gate, up = parts
        hidden = self._activate(gate)
        hidden *= up
        return hidden, partial(self._backward, gate, up)

    def _backward(self, gate: Floats, up: Floats, gradient: Floats) -> Parts:
        activated, slope = self._differentiate(gate)
        activated *= gradient  # in place: arrays of this size are expensive to allocate
        slope *= up
        slope *= gradient
        return slope, activated


def _sigmoid(values: Floats) -> Floats:
    result: Floats = values * np.float32(0.5)
    np.tanh(result, out=result)  # unlike exp, it does not overflow
    result += 1
    result *= np.float32(0.5)
    return result


def _silu(gate: Floats) -> Floats:
    result = _sigmoid(gate)
    result *= gate
    return result


def _silu_slope(gate: Floats) -> tuple[Floats, Floats]:
    """SiLU and its derivative."""
    sigmoid = _sigmoid(gate)
    silu = sigmoid * gate
    slope = 1 - sigmoid
    slope *= silu
    slope += sigmoid
    return silu, slope


def _gelu_gate(gate: Floats) -> Floats:
    """GELU divided by `gate`: half of 1 + tanh(…), which is a sigmoid."""
    return _sigmoid(_GELU * gate * (1 + _CUBIC * np.square(gate)))


def _gelu(gate: Floats) -> Floats:
    result = _gelu_gate(gate)
    result *= gate
    return result


def _gelu_slope(gate: Floats) -> tuple[Floats, Floats]:
    """GELU by tanh and its derivative."""
    share = _gelu_gate(gate)
    inner = _GELU * (1 + 3 * _CUBIC * np.square(gate))  # derivative of sigmoid's argument
    gelu = share * gate
    return gelu, share + gelu * (1 - share) * inner


_ACTIVATIONS = {"silu": (_silu, _silu_slope), "gelu": (_gelu, _gelu_slope)}
