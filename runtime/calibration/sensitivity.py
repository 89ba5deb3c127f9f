"""Sensitivity of a model's output to quantization errors of each weight matrix, measured by adding noise.

The noise resembles the effect of rounded weights: it is independent between the rows of the output and
proportional to the length of the input. It is added to a few matrices at a time, those of one role in
neighbouring layers. The sensitivity is the KL divergence per unit of noise energy. It is the measured
counterpart of the Fisher information that second-order quantization methods estimate from gradients (HAWQ,
arXiv 1905.03696).

The token embedding is also the input of the first layer. Noise on its looked-up rows, equal for equal tokens,
measures the sensitivity to their errors there.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...files.progress import Progress, no_progress
from ..llama.context import Context, ContextParams, Span
from ..llama.eval_callback import EmbeddingLookup, MatMul
from ..llama.logits import log_softmax
from ..llama.model import Model
from ..threads import physical_cores
from .activation_stats import chunk_passages
from .corpus import Passage

CHUNK_TOKENS = 256
LOOKUP_CHUNKS = 8  # the lookup sensitivity of a single chunk varies from half to twice the mean
GROUPS_MAX = 10  # groups of layers per role
NOISE_LEVEL = 0.1  # noise amplitude relative to the output, about that of 4 bits per weight
_SEED = 13

Logprobs = NDArray[np.float32]


@dataclass(frozen=True)
class Sensitivities:
    """KL divergence in nats per unit of error energy.

    Attributes:
        matmul: weight name -> sensitivity, for error energy of the output at inputs of length 1. Errors of
            the weights cost about sensitivity * E nats, where E is the sum over all weights of squared error
            times mean square of the weight's input, among inputs of length 1.
        lookup: sensitivity to error energy of the looked-up rows of the token embedding, at rows of length 1.
    """

    matmul: dict[str, float]
    lookup: float


def measure_sensitivities(
    model_path: Path,
    passages: Sequence[Passage],
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Sensitivities:
    """Measure the sensitivity of every weight matrix and of the embedding lookup.

    Args:
        model_path: a GGUF file of high precision.
        passages: calibration text. The first CHUNK_TOKENS tokens serve for the matrices. The lookup, being a
            single matrix, takes up to LOOKUP_CHUNKS such chunks, spread over the text.
        threads: compute threads; by default one per physical core.
        progress: called after each group of matrices and each chunk of the lookup.
    """
    with Model(model_path) as model:
        chunks = chunk_passages(model, passages, min(CHUNK_TOKENS, model.context_trained))
        lookup_chunks = chunks[:: -(-len(chunks) // LOOKUP_CHUNKS)]
        noise, lookup_noise = _MatMulNoise(), _LookupNoise()
        size = len(chunks[0])
        params = ContextParams(size, 1, size, physical_cores() if threads is None else threads, outputs=size)
        with Context(model, params, tap=noise, embedding_tap=lookup_noise) as context:
            reference = _chunk_logprobs(context, chunks[0])
            groups = _group_by_role(noise.energy)
            total = len(groups) + len(lookup_chunks)
            matmul: dict[str, float] = {}
            for done, group in enumerate(groups, 1):
                noise.targets = group
                divergence = _kl_divergence(reference, _chunk_logprobs(context, chunks[0]))
                for name in group:
                    energy = noise.energy[name]  # 0 if all outputs are 0
                    matmul[name] = divergence / len(group) / energy if energy else 0.0
                progress(done, total)
            noise.targets = ()
            divergences = []
            for done, chunk in enumerate(lookup_chunks, len(groups) + 1):
                lookup_noise.enabled = False
                reference = _chunk_logprobs(context, chunk)
                lookup_noise.enabled = True
                divergences.append(_kl_divergence(reference, _chunk_logprobs(context, chunk)))
                progress(done, total)
    return Sensitivities(matmul, float(np.mean(divergences)) / NOISE_LEVEL**2)


class _MatMulNoise:
    """MatMulTap that adds noise to the outputs of the target matrices.

    Attributes:
        targets: weight names.
        energy: weight name -> noise energy at inputs of length 1, in the order of the first products.
    """

    def __init__(self) -> None:
        self.targets: Collection[str] = ()
        self.energy: dict[str, float] = {}

    def __call__(self, matmul: MatMul) -> None:
        name = matmul.weight
        if name not in self.energy:
            self.energy[name] = _gain(matmul) * NOISE_LEVEL**2
        if name in self.targets:
            lengths = np.linalg.norm(matmul.inputs, axis=1, keepdims=True)  # (tokens, 1)
            rows = matmul.outputs.shape[1]
            random = np.random.default_rng((_SEED, list(self.energy).index(name)))
            noise = random.standard_normal(matmul.outputs.shape, np.float32)
            matmul.outputs[:] += noise * lengths * np.float32(np.sqrt(self.energy[name] / rows))


class _LookupNoise:
    """EmbeddingTap that, while enabled, adds noise to looked-up rows; equal tokens get equal noise."""

    def __init__(self) -> None:
        self.enabled = False

    def __call__(self, lookup: EmbeddingLookup) -> None:
        if self.enabled:
            tokens, inverse = np.unique(lookup.tokens, return_inverse=True)
            columns = lookup.outputs.shape[1]
            noise = np.random.default_rng(_SEED).standard_normal((len(tokens), columns), np.float32)
            lengths = np.linalg.norm(lookup.outputs, axis=1, keepdims=True)  # (tokens, 1)
            lookup.outputs[:] += noise[inverse] * lengths * np.float32(NOISE_LEVEL / np.sqrt(columns))


def _gain(matmul: MatMul) -> float:
    """Return the median over the tokens of output energy / input energy."""
    energy = np.square(matmul.inputs, dtype=np.float64).sum(1)  # (tokens,)
    return float(np.median(np.square(matmul.outputs, dtype=np.float64).sum(1) / np.maximum(energy, 1e-30)))


def _group_by_role(names: Iterable[str]) -> list[list[str]]:
    """Group matrices of one role in neighbouring layers, in at most GROUPS_MAX groups per role."""
    roles: dict[str, list[str]] = {}
    for name in names:
        roles.setdefault(name.split(".", 2)[-1] if name.startswith("blk.") else name, []).append(name)
    return [
        [str(name) for name in part]
        for members in roles.values()
        for part in np.array_split(members, min(GROUPS_MAX, len(members)))
    ]


def _chunk_logprobs(context: Context, tokens: tuple[int, ...]) -> Logprobs:
    """Compute the log-probabilities after each token, (tokens, vocab), in an empty context."""
    rows = context.decode([Span(0, 0, tokens, rows=len(tokens))])
    logprobs = log_softmax(np.stack([context.logits_row(row) for row in rows]), np.float32)
    context.clear(0)
    return logprobs


def _kl_divergence(reference: Logprobs, other: Logprobs) -> float:
    """Return the mean KL divergence over the tokens, in nats."""
    return float((np.exp(reference) * (reference - other)).sum(1).mean(dtype=np.float64))
