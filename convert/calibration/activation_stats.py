"""Activation statistics over calibration text, and how much errors of each matrix cost.

The squares of the inputs are what llama-imatrix collects. The covariances weight each token by the gradient
of the predictions at the matrix's outputs, so that an error counts by how much it changes them: some
tokens have activations that are hundreds of times larger, but hardly any effect. GuidedQuant
(arXiv 2505.07004) and YAQA (arXiv 2505.22988) weight GPTQ's Hessian by gradients too.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...files.cache_folder import temporary_folder
from ...files.output import output_errors
from ...files.progress import Progress, no_progress, part_of
from ...files.worker_pool import worker_pool
from ...stats import Doubles, Floats
from ..merged_model import MergedModel
from ..quantize.importance import ImportanceStats
from ..source.architecture import EMBEDDING
from .activation_covariance import InputSums
from .decoder import DecoderLayer, DecoderWeights, RmsNorm

_SEED = 13  # of the random vectors
_POSITIONS = 512  # whose logits are in memory at once
_ROWS = 8192  # of the output matrix at once
# Sequence i adds to the sums of lane i % LANES, and the lanes are added up in order.
LANES = 4
_FORWARD_SHARE = 35  # percent of the time, for the progress
Chunk = tuple[int, ...]  # tokens of a piece of calibration text
_F16_MAX = np.finfo(np.float16).max


def _save(folder: Path, layer: int, chunk: int, states: NDArray[Any], kind: str = "hidden") -> None:
    """Keep the states of a chunk before a layer, (tokens, hidden), in a file: they outgrow a laptop's memory.

    Of the kind "ffn", they are the outputs of the layer's ffn_gate and ffn_up, (2, tokens, ffn), in float16:
    to compute them again takes longer than to read them.
    """
    with output_errors(folder):
        np.save(folder / f"{kind}-{layer}-{chunk}.npy", states)


def _load(folder: Path, layer: int, chunk: int, kind: str = "hidden") -> Floats:
    """What _save() has saved, in float32; after all layers, the states too."""
    return np.asarray(np.load(folder / f"{kind}-{layer}-{chunk}.npy"), np.float32)


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
        _compute_hidden_states(weights, chunks, folder, pool, forward)
        return _propagate_back(weights, chunks, folder, pool, backward)


def _compute_hidden_states(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    folder: Path,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> None:
    """Run chunks of text through a model, one layer after the other, and keep the states in a folder."""
    layers, numbers = weights.architecture.layers, range(len(chunks))
    tokens, scale = sorted({*np.concatenate(chunks).tolist()}), weights.architecture.embedding_scale
    rows = {token: weights.rows(EMBEDDING, token, token + 1)[0] * scale for token in tokens}
    states = [np.stack([rows[token] for token in chunk]) for chunk in chunks]
    for number in numbers:
        _save(folder, 0, number, states[number])
    for index in range(layers):
        layer = DecoderLayer(weights, index, pool)

        def run(chunk: int, layer: DecoderLayer = layer, states: Sequence[Floats] = states) -> Floats:
            with np.errstate(all="ignore"):  # what is not finite is reported below
                made = layer.forward(states[chunk])
                ffn = [np.clip(part, -_F16_MAX, _F16_MAX).astype(np.float16) for part in made[1].parts]
                _save(folder, layer.index, chunk, np.stack(ffn), "ffn")
                output = layer.output(made)
            _save(folder, layer.index + 1, chunk, output)
            return output

        states = list(pool.map(run, numbers))
        if not all(np.isfinite(one).all() for one in states):
            raise FileError(f"the model's activations are not finite numbers: those after layer {index}")
        progress(index + 1, layers)


def _propagate_back(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    folder: Path,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> ImportanceStats:
    layers = weights.architecture.layers
    sums, gradients = InputSums(weights.architecture.hidden, 1), list[Floats]()
    for number in range(len(chunks)):
        gradient, last, traces = _output_gradient(weights, _load(folder, layers, number), number, pool)
        sums.add(last, [traces])
        gradients.append(gradient)
    output = sums.finish(weights.output)
    found: dict[tuple[str, ...], Future[InputSums]] = {}
    progress(1, 1 + layers)
    for index in reversed(range(layers)):
        found |= _run_layer(DecoderLayer(weights, index, pool), folder, gradients, pool)
        progress(1 + layers - index, 1 + layers)
    inputs = {(weights.output,): output} | {names: one.result() for names, one in found.items()}
    energies = {
        name: energy
        for names, one in inputs.items()
        for name, energy in zip(names, one.energies.tolist(), strict=True)
    }
    lookup = sum(
        _lookup_energy(chunk, _load(folder, 0, number), gradients[number])
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


def _output_gradient(
    weights: DecoderWeights, hidden: Floats, seed: int, pool: ThreadPoolExecutor
) -> tuple[Floats, Floats, Doubles]:
    """Draw a random vector for each position and propagate it.

    To second order, the KL divergence that an error of the logits costs is half its quadratic form with the
    Fisher information of the predictions. A backward pass of a random vector whose covariance is that Fisher
    information gives an unbiased estimate for all matrices at once (Hutchinson's estimator, used like this in
    HAWQ, arXiv 1905.03696).

    Returns:
        The gradients of `hidden`, the states after the last layer, (positions, hidden); the inputs of the
        output matrix, (positions, hidden); and the trace of the Fisher information of its outputs,
        (positions,).
    """
    scale = weights.architecture.logit_scale
    norm = RmsNorm(weights.tensor(weights.output_norm), weights.architecture.rms_eps)
    inputs = norm.forward(hidden)
    parts = [
        _logit_gradient(weights, inputs[start : start + _POSITIONS] / scale, (_SEED, seed, start), pool)
        for start in range(0, len(hidden), _POSITIONS)
    ]
    of_normed: Floats = np.concatenate([gradient for gradient, _ in parts])
    traces = np.concatenate([one for _, one in parts])
    return norm.backward(hidden, of_normed / scale), inputs, np.maximum(traces, 0) / scale**2


def _logit_gradient(
    weights: DecoderWeights, inputs: Floats, seed: tuple[int, ...], pool: ThreadPoolExecutor
) -> tuple[Floats, Doubles]:
    """Gradient of the output matrix's inputs, from a random vector at the logits of each position.

    With probabilities p, random signs z and r = sqrt(p) z, the vector r - p (sum of r) has the covariance
    diag(p) - p p', which is the Fisher information of the logits. Rows of the matrix are read in blocks.

    Returns:
        The gradient, (positions, hidden), and the trace of each position's Fisher information.
    """
    vocab = weights.architecture.vocab
    blocks = [slice(start, min(start + _ROWS, vocab)) for start in range(0, vocab, _ROWS)]
    values = np.empty((len(inputs), vocab), np.float32)  # logits, then their exponentials, then r

    def rows(block: slice) -> Floats:
        return weights.rows(weights.output, block.start, block.stop)

    def compute_logits(block: slice) -> None:
        values[:, block] = inputs @ rows(block).T

    def exponentiate(block: slice) -> Any:
        part = values[:, block]
        np.exp(part, out=part)
        return part.sum(1, dtype=np.float64)

    def draw(block: slice) -> Any:
        """Replace exponentials by r; returns the sums of p² and of r."""
        part = values[:, block]
        part /= total
        squares = np.einsum("tv,tv->t", part, part).astype(np.float64)
        np.sqrt(part, out=part)
        random = np.random.default_rng((*seed, block.start))
        part *= random.integers(0, 2, part.shape, np.int8) * np.int8(2) - np.int8(1)
        return np.stack([squares, part.sum(1, dtype=np.float64)])

    def propagate(block: slice) -> Any:
        drawn = values[:, block]
        return (drawn * (1 - drawn * projected)) @ rows(block)  # r - p (sum of r)

    list(pool.map(compute_logits, blocks))
    values -= values.max(1, keepdims=True)
    total = reduce(np.add, pool.map(exponentiate, blocks)).astype(np.float32)[:, None]
    squares, sums = reduce(np.add, pool.map(draw, blocks))
    projected = sums.astype(np.float32)[:, None]
    return reduce(np.add, pool.map(propagate, blocks)), 1 - squares


def _run_layer(
    layer: DecoderLayer, folder: Path, gradients: list[Floats], pool: ThreadPoolExecutor
) -> dict[tuple[str, ...], Future[InputSums]]:
    """Replace the gradients of a layer's outputs by those of its inputs."""
    lanes = [[InputSums(one.columns, len(one.names)) for one in layer.projections] for _ in range(LANES)]

    def run(chunk: int) -> None:
        made = layer.forward(_load(folder, layer.index, chunk), (*_load(folder, layer.index, chunk, "ffn"),))
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
