"""What each type would do to each matrix: its error, measured on the matrix' rows, by how much it matters."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from ...files.safetensors import Rows
from ..source.architecture import EMBEDDING, OUTPUT
from ..tensors import ALIGNMENT, TYPES, TensorSpec, plan_tensor
from .block_codec import block_layout
from .costs import CostTable
from .ggml import quantize_rows
from .gptq import ErrorFeedback, FeedbackCache
from .importance import Importance
from .plan import TypeOption

SAMPLE = 1 << 15  # weights of each matrix that are quantized to every type
# What rounding with feedback makes of the loss in look-ups. SmolLM2-135M's KL divergence, with by without, is
# 1.14 to 1.31 (Q4_0, IQ4_NL, Q5_0): the plain squared error grows 1.7 times, but where it matters less.
LOOK_UP_FEEDBACK = 1.2
# Of a matrix' own energy: the runtime rounds activations to 8 bits, and less than that error does not show.
FLOOR = 2e-5
# IQ2_S takes 3 s to quantize a million weights, and Q2_K is as small.
_LEFT_OUT = {"IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M"}


class RowSource(Protocol):
    """What there is to quantize: rows of the base, the adapter merged in."""

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a tensor."""


@dataclass(frozen=True, slots=True)
class _Use:
    """One use of a matrix, and how much errors matter to it.

    The loss is sensitivity * sum_j weight_j * (W - W')_ij**2, as the mean over rows i.

    Attributes:
        sensitivity: nats for each unit of error.
        weights: of each column, (columns,).
        fed_back: likewise where rounding is with feedback.
        floor: the error below which less does not show.
    """

    sensitivity: float
    weights: Rows
    fed_back: Rows
    floor: float

    def loss(self, squares: Rows, *, fed_back: bool) -> float:
        """Of rows with these squared errors, (n, columns), in nats."""
        error = float((squares @ (self.fed_back if fed_back else self.weights)).mean())
        return self.sensitivity * max(error, self.floor)


def measure_types(  # noqa: PLR0913 - what it takes to measure
    spec: TensorSpec,
    weights: RowSource,
    importance: Importance,
    feedbacks: FeedbackCache,
    costs: CostTable,
    *,
    tied: bool,
) -> list[TypeOption]:
    """The types that one matrix may have, with their predicted loss in nats of KL divergence.

    The loss in a product is sensitivity * sum_ij weight_j * (W - W')_ij**2 over some of the matrix' rows, W'
    being W as ggml rounds it with the importance. The weight is what input j has of the energy of all; where
    rounding is with feedback, what it has besides what the columns after it can make up for, so that this is
    the error which is left if roundings are independent (found within a tenth on SmolLM2-135M). The loss in a
    look-up is sensitivity * sum_ij (W - W')_ij**2 / sum_ij W_ij**2. A tied embedding has both. Where the
    sensitivity was not measured, errors count relative to the product or row itself.
    """
    rows = _sample(spec, weights, importance)  # (n, columns)
    passed_on = feedbacks.of(spec.target)
    looked_up = spec.target == EMBEDDING
    uses = [_look_up(rows, importance)] if looked_up else []
    if tied or not looked_up:
        uses.append(_product(spec, rows, importance, passed_on))
    prices = costs.of(spec.target, tied=tied)
    options = []
    for type_ in _candidates(spec, prices):
        squares = _squares(rows, type_, importance.means.get(spec.target), spec)
        fed_back = passed_on is not None and block_layout(type_) is not None
        loss = sum(use.loss(squares, fed_back=fed_back) for use in uses)
        nbytes = -(-plan_tensor(spec, type_).nbytes // ALIGNMENT) * ALIGNMENT
        options.append(TypeOption(type_, nbytes, loss, prices[type_.name] * prod(spec.shape)))
    return options


def _product(spec: TensorSpec, rows: Rows, importance: Importance, passed_on: ErrorFeedback | None) -> _Use:
    count = np.float32(spec.shape[0])
    weights = count * importance.shares(spec.target, rows.shape[1])
    fed_back = weights if passed_on is None else count * passed_on.left
    energy = float((rows**2 @ weights).mean())
    sensitivity = importance.sensitivity.get(spec.target, 1 / max(energy, 1e-30))
    return _Use(sensitivity, weights, fed_back, FLOOR * energy)


def _look_up(rows: Rows, importance: Importance) -> _Use:
    energy = float((rows**2).sum(1).mean())
    relative = np.full(rows.shape[1], 1 / max(energy, 1e-30), np.float32)
    sensitivity = importance.look_up_sensitivity
    return _Use(1.0 if sensitivity is None else sensitivity, relative, LOOK_UP_FEEDBACK * relative, 0.0)


def _candidates(spec: TensorSpec, prices: Iterable[str]) -> list[GGMLQuantizationType]:
    types = (TYPES[name] for name in prices if name in TYPES and name not in _LEFT_OUT)
    return [type_ for type_ in types if spec.shape[-1] % GGML_QUANT_SIZES[type_][0] == 0]


def _squares(rows: Rows, type_: GGMLQuantizationType, importance: Rows | None, spec: TensorSpec) -> Rows:
    """The squared error of each weight, (n, columns)."""
    data = np.frombuffer(quantize_rows(rows, type_, f"tensor {spec.source!r}", importance), np.uint8)
    rounded = dequantize(data.reshape(len(rows), -1), type_)
    squares: Rows = np.square(rows - rounded)
    return squares


def _sample(spec: TensorSpec, weights: RowSource, importance: Importance) -> Rows:
    """Some rows of a matrix, (n, columns), always the same.

    They are from all over it, and read in whole heads; but where each is a token's, as many as the text has
    of the token. Rare tokens' rows are the longer ones in embeddings, and most of the vocabulary is rare.
    """
    count, columns = spec.shape
    step = count // spec.heads if spec.heads else 1
    wanted = max(16, SAMPLE // columns)
    often = importance.look_ups
    if spec.target in (EMBEDDING, OUTPUT) and often is not None and often.any():
        so_far = np.cumsum(often, dtype=np.float64)
        drawn = np.searchsorted(so_far, so_far[-1] * (np.arange(wanted) + 0.5) / wanted)
        return np.concatenate([weights.rows(spec.source, row, row + 1).copy() for row in drawn.tolist()])
    spans = np.unique(
        np.linspace(0, count // step - 1, max(1, min(8, wanted // step or 1) if step > 1 else wanted)).astype(
            int
        )
    )
    read = np.concatenate(
        [weights.rows(spec.source, s * step, (s + 1) * step).copy() for s in spans.tolist()]
    )
    return read[:: max(1, len(read) // wanted)]
