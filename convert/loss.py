"""What each type would do to each matrix: its error, measured on the matrix' rows, by how much it matters."""

from collections.abc import Iterable
from math import prod
from typing import Protocol

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from .architecture import TensorSpec
from .codes import layout
from .costs import CostTable
from .importance import Importance
from .plan import TYPES, Option, planned
from .quantize import quantize
from .safetensors_file import Rows
from .write import ALIGNMENT

SAMPLE = 1 << 15  # weights of each matrix that are quantized to every type
# What is left of a type's error after rounding with feedback: SmolLM2-135M's KL divergence, with by without.
FEEDBACK = 0.7
# Of a matrix' own energy: the runtime rounds activations to 8 bits, and less than that error does not show.
FLOOR = 2e-5
# IQ2_S takes 3 s to quantize a million weights, and Q2_K is as small.
_LEFT_OUT = {"IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M"}
TIED = "token_embd.weight"


class Weights(Protocol):
    """What there is to quantize: rows of the base, the adapter merged in."""

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a tensor."""


def measure(spec: TensorSpec, weights: Weights, importance: Importance, costs: CostTable) -> list[Option]:
    """The types that one matrix may have, with their predicted loss in nats of KL divergence.

    The loss is sensitivity * sum_ij share_j * (W - W')_ij**2 over some of the matrix' rows, W' being W as
    rounded with the importance, and share_j what input j has of the energy of all. Where the sensitivity was
    not measured, errors count relative to the matrix' own output.
    """
    rows = _sample(spec, weights)  # (n, columns)
    shares = importance.shares(spec.target)
    even = np.full(rows.shape[1], 1 / rows.shape[1], np.float32)
    shares = even if shares is None else shares
    energy = float((rows**2 @ shares).mean()) * spec.shape[0]
    sensitivity = importance.sensitivity.get(spec.target, 1 / max(energy, 1e-30))
    corrected = importance.covariance(spec.target) is not None
    prices = costs.output if spec.target == TIED else costs.layer
    options = []
    for type_ in _candidates(spec, prices):
        error = _error(rows, shares, type_, importance.means.get(spec.target), spec) * spec.shape[0]
        kept = FEEDBACK if corrected and layout(type_) else 1.0
        loss = sensitivity * max(kept * error, FLOOR * energy)
        nbytes = -(-planned(spec, type_).nbytes // ALIGNMENT) * ALIGNMENT
        options.append(Option(type_, nbytes, loss, prices[type_.name] * prod(spec.shape)))
    return options


def _candidates(spec: TensorSpec, prices: Iterable[str]) -> list[GGMLQuantizationType]:
    types = (TYPES[name] for name in prices if name in TYPES and name not in _LEFT_OUT)
    return [type_ for type_ in types if spec.shape[-1] % GGML_QUANT_SIZES[type_][0] == 0]


def _error(
    rows: Rows, shares: Rows, type_: GGMLQuantizationType, importance: Rows | None, spec: TensorSpec
) -> float:
    """The mean over rows of the weighted squared error."""
    data = np.frombuffer(quantize(rows, type_, f"tensor {spec.source!r}", importance), np.uint8)
    rounded = dequantize(data.reshape(len(rows), -1), type_)
    return float((np.square(rows - rounded) @ shares).mean())


def _sample(spec: TensorSpec, weights: Weights) -> Rows:
    """Some rows from all over a matrix, (n, columns); always the same, and read in whole heads."""
    count, columns = spec.shape
    step = count // spec.heads if spec.heads else 1
    wanted = max(16, SAMPLE // columns)
    spans = np.unique(
        np.linspace(0, count // step - 1, max(1, min(8, wanted // step or 1) if step > 1 else wanted)).astype(
            int
        )
    )
    read = np.concatenate(
        [weights.rows(spec.source, s * step, (s + 1) * step).copy() for s in spans.tolist()]
    )
    return read[:: max(1, len(read) // wanted)]
