"""How much the errors of each weight matrix matter to what a model says: measured, by adding noise.

To the outputs of a few matrices at a time, those of one role in neighbouring layers, noise is added that
looks as the rounding of weights does: independent between rows, in proportion to the length of the input. The
KL divergence that comes of it, by the noise's energy, is the sensitivity. It is the measured counterpart of
the Fisher information that second-order quantization methods estimate by gradients (HAWQ, arXiv 1905.03696).
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .cores import physical_cores
from .llama import Context, Model, Room, Span
from .passages import Passage
from .product import Product
from .trace import cut

TOKENS = 256
GROUPS = 10  # of layers, for each role
LEVEL = 0.1  # the noise beside the output itself, about as much as 4 bits a weight make
_SEED = 13

Progress = Callable[[int, int], None]  # groups done, groups in all
Logs = NDArray[np.float32]


def sensitivities(
    model_path: Path,
    passages: Sequence[Passage],
    *,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Measure the sensitivity of every matrix.

    Args:
        model_path: a GGUF file of high precision.
        passages: what to read; the first TOKENS tokens of them.
        threads: by default one for each physical core.
        progress: called with what is done and how much there is in all.

    Returns:
        By the weight's name, nats of KL divergence for each unit of its output's error energy, where the
        input has length 1: so E = sum of squared errors of the weights, each times the mean square of its
        input among inputs of length 1, makes about sensitivity * E nats.
    """
    with Model(model_path) as model:
        (chunk, *_) = cut(model, passages, min(TOKENS, model.context_trained))
        noise = _Noise()
        room = Room(
            len(chunk), 1, len(chunk), physical_cores() if threads is None else threads, outputs=len(chunk)
        )
        with Context(model, room, tap=noise) as context:
            reference = _log_probabilities(context, chunk)
            groups = _groups(noise.seen)
            found: dict[str, float] = {}
            for done, group in enumerate(groups, 1):
                noise.target = group
                divergence = _divergence(reference, _log_probabilities(context, chunk))
                found |= {name: divergence / len(group) / noise.energy[name] for name in group}
                progress(done, len(groups))
    return found


class _Noise:
    """A tap that adds noise to the outputs of the targets, and remembers how much for a unit of input."""

    def __init__(self) -> None:
        self.target: Collection[str] = ()
        self.seen: list[str] = []
        self.energy: dict[str, float] = {}

    def __call__(self, product: Product) -> None:
        if product.weight not in self.energy:
            self.seen.append(product.weight)
            self.energy[product.weight] = _gain(product) * LEVEL**2
        if product.weight in self.target:
            lengths = np.linalg.norm(product.inputs, axis=1, keepdims=True)  # (tokens, 1)
            rows = product.outputs.shape[1]
            random = np.random.default_rng((_SEED, self.seen.index(product.weight)))
            noise = random.standard_normal(product.outputs.shape, np.float32)
            product.outputs[:] += noise * lengths * np.float32(np.sqrt(self.energy[product.weight] / rows))


def _gain(product: Product) -> float:
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
