"""Activation statistics over calibration text, and how much errors of each matrix cost.

The squares of the inputs are what llama-imatrix collects. The covariances weight each token by the gradient
of the predictions at the matrix's outputs, so that an error counts by how much it changes them: some
tokens have activations that are hundreds of times larger, but hardly any effect. GuidedQuant
(arXiv 2505.07004) and YAQA (arXiv 2505.22988) weight GPTQ's Hessian by gradients too.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ...files.cache_folder import temporary_folder
from ...files.processors import worker_pool
from ...files.progress import Progress, no_progress, part_of
from ...stats.arrays import Floats
from ..merged_model import MergedModel
from ..quantize.importance import ImportanceStats
from .activation_covariance import InputStats, InputSums
from .decoder import DecoderLayer, DecoderWeights
from .hidden_states import Chunk, HiddenStates, compute_hidden_states
from .output_gradient import output_gradient

# Sequence i adds to the sums of lane i % LANES, and the lanes are added up in order.
LANES = 4
_FORWARD_SHARE = 35  # percent of the time, for the progress


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
        hidden = compute_hidden_states(weights, chunks, folder, pool, forward)
        return _propagate_back(weights, chunks, hidden, pool, backward)


def _propagate_back(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    hidden: HiddenStates,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> ImportanceStats:
    layers = weights.architecture.layers
    sums, gradients = InputSums(weights.architecture.hidden, 1), list[Floats]()
    for number in range(len(chunks)):
        gradient, last, traces = output_gradient(weights, hidden.load(layers, number), number, pool)
        sums.add(last, [traces])
        gradients.append(gradient)
    output = sums.stats(weights.output)
    found: dict[tuple[str, ...], Future[InputStats]] = {}
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
    layer: DecoderLayer, hidden: HiddenStates, gradients: list[Floats], pool: ThreadPoolExecutor
) -> dict[tuple[str, ...], Future[InputStats]]:
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
        found[weights] = pool.submit(first.stats, weights[0], others)
    return found


def _lookup_energy(tokens: Chunk, rows: Floats, gradient: Floats) -> float:
    """Sum over the different tokens of |sum of |row| gradient|², per column."""
    distinct, inverse = np.unique(np.array(tokens), return_inverse=True)
    sums = np.zeros((len(distinct), rows.shape[1]))
    np.add.at(sums, inverse, np.linalg.norm(rows, axis=1)[:, None] * gradient)
    return float(np.square(sums).sum() / rows.shape[1])
