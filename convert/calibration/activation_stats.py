"""Activation statistics over calibration text, and how much errors of each matrix cost.

The squares of the inputs are what llama-imatrix collects. The covariances weight each token by the gradient
of the predictions at the matrix's outputs, so that an error counts by how much it changes them: some
tokens have activations that are hundreds of times larger, but hardly any effect. GuidedQuant
(arXiv 2505.07004) and YAQA (arXiv 2505.22988) weight GPTQ's Hessian by gradients too.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...files.output import output_errors
from ...files.progress import Progress, no_progress, part_of
from ...files.temporary_folder import temporary_folder
from ...files.worker_pool import worker_pool
from ...stats.arrays import Floats
from ..merged_model import MergedModel
from ..quantize.importance import ImportanceStats
from ..source.architecture import EMBEDDING
from .activation_covariance import InputSums
from .decoder import DecoderLayer, DecoderWeights
from .output_gradient import output_gradient

# Sequence i adds to the sums of lane i % LANES, and the lanes are added up in order.
LANES = 4
_FORWARD_SHARE = 35  # percent of the time, for the progress
Chunk = tuple[int, ...]  # tokens of a piece of calibration text
_F16_MAX = np.finfo(np.float16).max


class _HiddenStates:
    """The hidden states of some chunks of text before each layer, in files: they outgrow a laptop's memory.

    The outputs of ffn_gate and ffn_up are kept too, in float16: to compute them again takes longer than to
    read them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, layer: int, chunk: int, states: NDArray[Any], kind: str = "hidden") -> None:
        """Save the states of a chunk before a layer, (tokens, hidden).

        Of the kind "ffn", they are the outputs of the layer's ffn_gate and ffn_up, (2, tokens, ffn).
        """
        with output_errors(self._folder):
            np.save(self._folder / f"{kind}-{layer}-{chunk}.npy", states)

    def load(self, layer: int, chunk: int, kind: str = "hidden") -> Floats:
        """What save() has saved, in float32; after all layers, the states too."""
        return np.asarray(np.load(self._folder / f"{kind}-{layer}-{chunk}.npy"), np.float32)


def collect_activation_stats(
    model: MergedModel, chunks: Sequence[Chunk], *, threads: int, progress: Progress = no_progress
) -> ImportanceStats:
    """Run text through a model, propagate gradients of the predictions back, and collect the statistics.

    The errors of a matrix's output are taken to be independent between its rows, as those of rounded weights
    are. The token embedding is also the input of the first layer. There, equal tokens have equal errors.

    Raises:
        FileError: the activations are not finite.
        OutputError: the disk is full.
    """
    weights = DecoderWeights(model)
    forward = part_of(progress, 0, _FORWARD_SHARE, 100)
    backward = part_of(progress, _FORWARD_SHARE, 100 - _FORWARD_SHARE, 100)
    # Each of up to LANES threads has BLAS for itself: that wastes less time than BLAS threads that wait for
    # each other after every product.
    lanes = worker_pool(min(threads, LANES), max(1, threads // LANES))
    with temporary_folder("hidden") as folder, lanes as pool:
        hidden = _compute_hidden_states(weights, chunks, folder, pool, forward)
        return _propagate_back(weights, chunks, hidden, pool, backward)


def _compute_hidden_states(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    folder: Path,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> _HiddenStates:
    """Run chunks of text through a model, one layer after the other, and keep the states in a folder."""
    kept, layers, numbers = _HiddenStates(folder), weights.architecture.layers, range(len(chunks))
    tokens, scale = sorted({*np.concatenate(chunks).tolist()}), weights.architecture.embedding_scale
    rows = {token: weights.rows(EMBEDDING, token, token + 1)[0] * scale for token in tokens}
    states = [np.stack([rows[token] for token in chunk]) for chunk in chunks]
    for number in numbers:
        kept.save(0, number, states[number])
    for index in range(layers):
        layer = DecoderLayer(weights, index, pool)

        def run(chunk: int, layer: DecoderLayer = layer, states: Sequence[Floats] = states) -> Floats:
            with np.errstate(all="ignore"):  # what is not finite is reported below
                made = layer.forward(states[chunk])
                ffn = [np.clip(part, -_F16_MAX, _F16_MAX).astype(np.float16) for part in made[1].parts]
                kept.save(layer.index, chunk, np.stack(ffn), "ffn")
                output = layer.output(made)
            kept.save(layer.index + 1, chunk, output)
            return output

        states = list(pool.map(run, numbers))
        if not all(np.isfinite(one).all() for one in states):
            raise FileError(f"the model's activations are not finite numbers: those after layer {index}")
        progress(index + 1, layers)
    return kept


def _propagate_back(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    hidden: _HiddenStates,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> ImportanceStats:
    layers = weights.architecture.layers
    sums, gradients = InputSums(weights.architecture.hidden, 1), list[Floats]()
    for number in range(len(chunks)):
        gradient, last, traces = output_gradient(weights, hidden.load(layers, number), number, pool)
        sums.add(last, [traces])
        gradients.append(gradient)
    output = sums.finish(weights.output)
    found: dict[tuple[str, ...], Future[InputSums]] = {}
    progress(1, 1 + layers)
    for index in reversed(range(layers)):
        found |= _run_layer(DecoderLayer(weights, index, pool), hidden, gradients, pool)
        progress(1 + layers - index, 1 + layers)
    inputs = {(weights.output,): output} | {names: one.result() for names, one in found.items()}
    energies = {
        name: energy
        for names, one in inputs.items()
        for name, energy in zip(names, one.energies.tolist(), strict=True)
    }
    lookup = sum(
        _lookup_energy(chunk, hidden.load(0, number), gradients[number])
        for number, chunk in enumerate(chunks)
    )
    tokens = sum(map(len, chunks))
    return ImportanceStats(
        sums={name: one.squares.astype(np.float32) for names, one in inputs.items() for name in names},
        tokens=tokens,
        covariances={names[0]: one.blocks for names, one in inputs.items()},
        sketches={names[0]: one.low_rank for names, one in inputs.items() if one.low_rank is not None},
        sensitivity={name: e / weights.shapes[name][0] / 2 / tokens for name, e in energies.items()},
        lookup_sensitivity=lookup / 2 / tokens,
        lookup_counts=np.bincount(np.concatenate(chunks), minlength=weights.architecture.vocab),
        chunk_size=max(map(len, chunks)),
        chunk_count=len(chunks),
    )


def _run_layer(
    layer: DecoderLayer, hidden: _HiddenStates, gradients: list[Floats], pool: ThreadPoolExecutor
) -> dict[tuple[str, ...], Future[InputSums]]:
    """Replace the gradients of a layer's outputs by those of its inputs."""
    lanes = [[InputSums(one.columns, len(one.names)) for one in layer.projections] for _ in range(LANES)]

    def run(chunk: int) -> None:
        made = layer.forward(hidden.load(layer.index, chunk), (*hidden.load(layer.index, chunk, "ffn"),))
        gradients[chunk], outputs = layer.backward(made, gradients[chunk])
        multiplied = [inputs for block in made for inputs in (block.inputs, block.inner)]
        for one, inputs, sums in zip(layer.projections, multiplied, lanes[chunk % LANES], strict=True):
            energies = (np.einsum("tc,tc->t", outputs[name], outputs[name]) for name in one.names)
            sums.add(inputs, [energy.astype(np.float64) for energy in energies])

    for start in range(0, len(gradients), LANES):  # two chunks of a lane at once would mix its sums
        list(pool.map(run, range(start, min(start + LANES, len(gradients)))))
    found = {}
    for one, (first, *others) in zip(layer.projections, zip(*lanes, strict=True), strict=True):
        weights = tuple(f"blk.{layer.index}.{name}.weight" for name in one.names)
        found[weights] = pool.submit(first.finish, weights[0], others)
    return found


def _lookup_energy(tokens: Chunk, rows: Floats, gradient: Floats) -> float:
    """Sum over the different tokens of |sum of |row| gradient|², per column."""
    distinct, inverse = np.unique(np.array(tokens), return_inverse=True)
    sums = np.zeros((len(distinct), rows.shape[1]))
    np.add.at(sums, inverse, np.linalg.norm(rows, axis=1)[:, None] * gradient)
    return float(np.square(sums).sum() / rows.shape[1])
