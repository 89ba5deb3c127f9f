"""Predicted loss of each matrix in each type: quantization error times measured sensitivity."""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ...errors import OutputError
from ...files.progress import Progress
from ...stats import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..tensors import GGML_TYPES, TensorSpec, padded, plan_tensor
from .block_codec import block_layout
from .costs import CostTable
from .error_feedback import ErrorFeedback, FeedbackCache
from .ggml import NEED_IMPORTANCE, dequantize_rows, quantize_rows
from .importance import Importance
from .knapsack import TypeOption, TypeOptions

_SAMPLE_WEIGHTS = 1 << 15  # weights of each matrix that are quantized to every type
# Factor of GPTQ on the loss of embedding lookups. With GPTQ, SmolLM2-135M's KL divergence is 1.14 to 1.31
# times that without (Q4_0, IQ4_NL, Q5_0): the plain squared error grows 1.7 times, but where it matters less.
_GPTQ_LOOKUP_LOSS = 1.2
# Relative to a matrix's own energy: the runtime rounds activations to 8 bits, and a smaller error has no
# effect.
_ERROR_FLOOR = 2e-5
# IQ2_S takes 3 s to quantize a million weights, and Q2_K is as small.
_EXCLUDED = {GGML_TYPES[name] for name in ("IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M")}

# Name, first row and last: the weights to quantize, rows of the base with the adapter merged in.
ReadRows = Callable[[str, int, int], Floats]


@dataclass(frozen=True, slots=True)
class _LossModel:
    """Loss of one use of a matrix: sensitivity * sum_j weight_j * (W - W')_ij**2, as the mean over rows i."""

    sensitivity: float  # nats per unit of error
    weights: Floats  # weight of each column, (columns,)
    gptq_weights: Floats  # weight of each column where GPTQ rounds, (columns,)
    floor: float  # smallest error that has an effect

    def loss(self, squared_errors: Floats, *, gptq: bool) -> float:
        """Loss in nats of rows with these squared errors, (n, columns)."""
        error = float((squared_errors @ (self.gptq_weights if gptq else self.weights)).mean())
        return self.sensitivity * max(error, self.floor)


@dataclass(frozen=True)
class TypeLosses:
    """Predicts the loss of a model's matrices in each type that they may have, in nats of KL divergence.

    The loss of a matrix product is sensitivity * sum_ij weight_j * (W - W')_ij**2 over a sample of the
    matrix's rows, with W' rounded by ggml with the importance. The weight is the input's share of the energy
    of all inputs; with GPTQ, it is the share that the columns after it cannot compensate, so that the sum is
    the error that remains if roundings are independent (within a tenth of the true one on SmolLM2-135M). The
    loss of an embedding lookup is sensitivity * sum_ij (W - W')_ij**2 / sum_ij W_ij**2. A tied embedding has
    both. Without a measured sensitivity, errors count relative to the product or the row.
    """

    read_rows: ReadRows  # reads rows of the model
    importance: Importance  # the importance of its matrices
    costs: CostTable  # the types that may be used, and their decode costs
    tied: bool  # whether the token embedding is also the output matrix

    def measure_all(self, specs: Iterable[TensorSpec], pool: Executor, progress: Progress) -> TypeOptions:
        """Predict the losses of the matrices among some tensors, by their names in the checkpoint."""
        matrices = [spec for spec in specs if spec.is_matrix]
        futures = {}
        for spec, following in zip(matrices, [*matrices[1:], None], strict=True):
            if following:  # its feedback is computed while another thread measures this matrix
                pool.submit(self._feedbacks.get, following.target)
            futures[spec.source] = pool.submit(self.measure, spec)
        options = {}
        for done, (source, future) in enumerate(futures.items(), 1):
            options[source] = future.result()
            progress(done, len(matrices))
        return options

    def measure(self, spec: TensorSpec) -> list[TypeOption]:
        """Predict the loss of one matrix in each type.

        Raises:
            OutputError: the blocks of no type in the costs divide the matrix's rows.
        """
        importance = self.importance
        weight_costs = self.costs.weight_costs(spec.target, tied=self.tied)
        mean_squares = importance.mean_squares.get(spec.target)  # a table of looked-up rows has none
        rows = _sample_rows(spec, self.read_rows, importance)  # (n, columns)
        feedback = self._feedbacks.get(spec.target)
        is_embedding = spec.target == EMBEDDING
        models = [_lookup_loss(rows, importance)] if is_embedding else []
        if self.tied or not is_embedding:
            models.append(_product_loss(spec, rows, importance, feedback))
        options = []
        for type_ in self._types(spec, weight_costs):
            data = quantize_rows(rows, type_, f"tensor {spec.source!r}", mean_squares)
            rounded = dequantize_rows(np.frombuffer(data, np.uint8).reshape(len(rows), -1), type_)
            errors = np.square(rows - rounded)  # (n, columns)
            gptq = feedback is not None and block_layout(type_) is not None
            loss = sum(model.loss(errors, gptq=gptq) for model in models)
            nbytes = padded(plan_tensor(spec, type_).nbytes)
            options.append(TypeOption(type_, nbytes, loss, weight_costs[type_.name] * prod(spec.shape)))
        return options

    def _types(self, spec: TensorSpec, names: Iterable[str]) -> list[GGMLQuantizationType]:
        """The types that a matrix may have, of those with a cost."""
        excluded = _EXCLUDED if spec.target in self.importance.mean_squares else _EXCLUDED | NEED_IMPORTANCE
        known = (GGML_TYPES[name] for name in names if name in GGML_TYPES)
        types = [t for t in known if t not in excluded and spec.shape[-1] % GGML_QUANT_SIZES[t][0] == 0]
        if not types:
            raise OutputError(
                f"no type in the costs for {self.costs.target} fits tensor {spec.source!r}: none of their "
                f"block sizes divides its {spec.shape[-1]} columns"
            )
        return types

    @cached_property
    def _feedbacks(self) -> FeedbackCache:
        return FeedbackCache(self.importance)


def _product_loss(
    spec: TensorSpec, rows: Floats, importance: Importance, feedback: ErrorFeedback | None
) -> _LossModel:
    count = np.float32(spec.shape[0])
    weights = count * importance.energy_shares(spec.target, rows.shape[1])
    gptq_weights = weights if feedback is None else count * feedback.conditional_variances
    energy = float((rows**2 @ weights).mean())
    sensitivity = importance.sensitivity.get(spec.target, 1 / max(energy, 1e-30))
    return _LossModel(sensitivity, weights, gptq_weights, _ERROR_FLOOR * energy)


def _lookup_loss(rows: Floats, importance: Importance) -> _LossModel:
    energy = float((rows**2).sum(1).mean())
    weights = np.full(rows.shape[1], 1 / max(energy, 1e-30), np.float32)
    sensitivity = 1.0 if importance.lookup_sensitivity is None else importance.lookup_sensitivity
    return _LossModel(sensitivity, weights, _GPTQ_LOOKUP_LOSS * weights, 0.0)


def _sample_rows(spec: TensorSpec, read_rows: ReadRows, importance: Importance) -> Floats:
    """A deterministic sample of a matrix's rows, (n, columns)."""
    count, columns = spec.shape
    head_rows = count // spec.heads if spec.heads else 1
    wanted = max(16, _SAMPLE_WEIGHTS // columns)
    # Most of the vocabulary is rare, and the rows of rare tokens are longer in embeddings.
    frequencies = importance.lookup_counts
    if spec.target in (EMBEDDING, OUTPUT) and frequencies is not None and frequencies.any():
        cumulative = np.cumsum(frequencies, dtype=np.float64)
        drawn = np.searchsorted(cumulative, cumulative[-1] * (np.arange(wanted) + 0.5) / wanted)
        return np.concatenate([read_rows(spec.source, row, row + 1).copy() for row in drawn.tolist()])
    parts = max(1, min(8, wanted // head_rows or 1) if head_rows > 1 else wanted)
    heads = np.unique(np.linspace(0, count // head_rows - 1, parts).astype(int)).tolist()
    read = np.concatenate(
        [read_rows(spec.source, head * head_rows, (head + 1) * head_rows).copy() for head in heads]
    )
    return read[:: max(1, len(read) // wanted)]
