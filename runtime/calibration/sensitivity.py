"""How much the errors of each weight matrix matter to what a model says: measured, by adding noise.

To the outputs of a few matrices at a time, those of one role in neighbouring layers, noise is added that
looks as the rounding of weights does: independent between rows, in proportion to the length of the input. The
KL divergence that comes of it, by the noise's energy, is the sensitivity. It is the measured counterpart of
the Fisher information that second-order quantization methods estimate by gradients (HAWQ, arXiv 1905.03696).

The rows of the token embedding are also what every computation begins with. Noise on the rows looked up, a
token's always the same, gives how much their errors matter there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...files.progress import Progress, no_progress
from ..llama.context import Context, ContextParams, Span
from ..llama.eval_callback import EmbeddingLookup, MatMul
from ..llama.model import Model
from ..threads import physical_cores
from .activation_stats import chunk_passages
from .corpus import Passage

TOKENS = 256  # of a chunk
LOOK_UP_CHUNKS = 8  # a text's sensitivity to its look-ups is anything from half to twice the mean
GROUPS = 10  # of layers, for each role
LEVEL = 0.1  # the noise beside the output itself, about as much as 4 bits a weight make
_SEED = 13

Logs = NDArray[np.float32]


@dataclass(frozen=True)
class Sensitivities:
    """Nats of KL divergence that errors make.

    Attributes:
        products: by the weight's name, for each unit of the output's error energy, where the input has
            length 1: so E = sum of squared errors of the weights, each times the mean square of its input
            among inputs of length 1, makes about sensitivity * E nats.
        look_up: for each unit of error energy in the rows of the token embedding, where they have length 1.
    """

    products: dict[str, float]
    look_up: float


def sensitivities(
    model_path: Path,
    passages: Sequence[Passage],
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Sensitivities:
    """Measure the sensitivity of every matrix.

    Args:
        model_path: a GGUF file of high precision.
        passages: what to read: the first TOKENS tokens of them, and for look-ups, of which there is but one
            matrix, LOOK_UP_CHUNKS times as many from all over.
        threads: by default one for each physical core.
        progress: called with what is done and how much there is in all.
    """
    with Model(model_path) as model:
        chunks = chunk_passages(model, passages, min(TOKENS, model.context_trained))
        some = chunks[:: -(-len(chunks) // LOOK_UP_CHUNKS)]
        noise, look_up_noise = _Noise(), _LookUpNoise()
        size = len(chunks[0])
        room = ContextParams(size, 1, size, physical_cores() if threads is None else threads, outputs=size)
        with Context(model, room, tap=noise, look_up_tap=look_up_noise) as context:
            reference = _log_probabilities(context, chunks[0])
            groups = _groups(noise.seen)
            total = len(groups) + len(some)
            products: dict[str, float] = {}
            for done, group in enumerate(groups, 1):
                noise.target = group
                divergence = _divergence(reference, _log_probabilities(context, chunks[0]))
                for name in group:
                    energy = noise.energy[name]  # none where all outputs are zero
                    products[name] = divergence / len(group) / energy if energy else 0.0
                progress(done, total)
            noise.target = ()
            divergences = []
            for done, chunk in enumerate(some, len(groups) + 1):
                look_up_noise.on = False
                reference = _log_probabilities(context, chunk)
                look_up_noise.on = True
                divergences.append(_divergence(reference, _log_probabilities(context, chunk)))
                progress(done, total)
    return Sensitivities(products, float(np.mean(divergences)) / LEVEL**2)


class _Noise:
    """A tap that adds noise to the outputs of the targets, and remembers how much for a unit of input."""

    def __init__(self) -> None:
        self.target: Collection[str] = ()
        self.seen: list[str] = []
        self.energy: dict[str, float] = {}

    def __call__(self, product: MatMul) -> None:
        if product.weight not in self.energy:
            self.seen.append(product.weight)
            self.energy[product.weight] = _gain(product) * LEVEL**2
        if product.weight in self.target:
            lengths = np.linalg.norm(product.inputs, axis=1, keepdims=True)  # (tokens, 1)
            rows = product.outputs.shape[1]
            random = np.random.default_rng((_SEED, self.seen.index(product.weight)))
            noise = random.standard_normal(product.outputs.shape, np.float32)
            product.outputs[:] += noise * lengths * np.float32(np.sqrt(self.energy[product.weight] / rows))


class _LookUpNoise:
    """A tap that, while on, adds noise to the rows looked up: to a token's the same wherever it stands."""

    def __init__(self) -> None:
        self.on = False

    def __call__(self, look_up: EmbeddingLookup) -> None:
        if self.on:
            tokens, which = np.unique(look_up.tokens, return_inverse=True)
            columns = look_up.outputs.shape[1]
            noise = np.random.default_rng(_SEED).standard_normal((len(tokens), columns), np.float32)
            lengths = np.linalg.norm(look_up.outputs, axis=1, keepdims=True)  # (tokens, 1)
            look_up.outputs[:] += noise[which] * lengths * np.float32(LEVEL / np.sqrt(columns))


def _gain(product: MatMul) -> float:
    """The energy of a typical token's output by that of its input."""
    energy = np.square(product.inputs, dtype=np.float64).sum(1)  # (tokens,)
    return float(np.median(np.square(product.outputs, dtype=np.float64).sum(1) / np.maximum(energy, 1e-30)))


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Matrices of one role in neighbouring layers, at most GROUPS groups a role."""
    roles: dict[str, list[str]] = {}
    for name in names:
        roles.setdefault(name.split(".", 2)[-1] if name.startswith("blk.") else name, []).append(name)
    return [
        [str(name) for name in part]
        for members in roles.values()
        for part in np.array_split(members, min(GROUPS, len(members)))
    ]


def _log_probabilities(context: Context, tokens: tuple[int, ...]) -> Logs:
    """Of every next token, (tokens, vocabulary)."""
    rows = context.decode([Span(0, 0, tokens, rows=len(tokens))])
    logits = np.stack([context.logits_row(row) for row in rows])
    context.clear(0)
    logits -= logits.max(1, keepdims=True)
    out: Logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return out


def _divergence(reference: Logs, other: Logs) -> float:
    """The mean KL divergence, in nats."""
    return float((np.exp(reference) * (reference - other)).sum(1).mean(dtype=np.float64))
