"""Activation statistics over calibration text, and how much errors of each matrix cost.

The squares of the inputs are what llama-imatrix collects. The covariances weight each token by the gradient
of the predictions at the matrix's outputs, so that an error counts by how much it changes them: some
tokens have activations that are hundreds of times larger, but hardly any effect. GuidedQuant
(arXiv 2505.07004) and YAQA (arXiv 2505.22988) weight GPTQ's Hessian by gradients too.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...files.progress import Progress, no_progress
from .activation_covariance import InputStats, InputSums
from .decoder import INPUTS, Array, DecoderLayer, DecoderWeights, Doubles, output_matrix
from .hidden_states import Chunk, HiddenStates
from .output_gradient import OutputGradient
from .worker_lanes import LANES, lane_pool

_READERS = {  # field of LayerActivations -> the matrices that multiply it
    field: tuple(name for name, read in INPUTS.items() if read == field) for field in INPUTS.values()
}


@dataclass(frozen=True)
class ActivationStats:
    """Statistics of a model's activations.

    Attributes:
        sums: weight name -> sum of each input's square over the tokens, (columns,).
        counts: weight name -> tokens.
        covariances: weight name -> diagonal blocks of the input covariance, see InputStats. Weights that
            share their inputs have one entry, under the first one's name.
        sketches: weight name -> low-rank factor of the input covariance, (columns, rank), likewise.
        sensitivity: weight name -> KL divergence in nats per unit of error energy: errors of the weights cost
            about sensitivity * E nats, where E is the sum over all weights of squared error times variance
            of the weight's input.
        lookup_sensitivity: KL divergence in nats per unit of error energy of the looked-up rows of the token
            embedding, at rows of length 1.
        lookup_counts: occurrences of each token, (vocab,).
        chunk_size: tokens of a chunk.
        chunk_count: number of chunks.
    """

    sums: dict[str, NDArray[np.float32]]
    counts: dict[str, int]
    covariances: dict[str, NDArray[np.float32]]
    sketches: dict[str, NDArray[np.float32]]
    sensitivity: dict[str, float]
    lookup_sensitivity: float
    lookup_counts: NDArray[np.int64]
    chunk_size: int
    chunk_count: int


def collect_activation_stats(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    hidden: HiddenStates,
    *,
    threads: int,
    progress: Progress = no_progress,
) -> ActivationStats:
    """Propagate gradients of the predictions back through a model, and collect the statistics on the way.

    The errors of a matrix's output are taken to be independent between its rows, as those of rounded weights
    are. The token embedding is also the input of the first layer. There, equal tokens have equal errors.

    Args:
        weights: the model.
        chunks: the text, at least one chunk.
        hidden: the hidden states of these chunks.
        threads: compute threads.
        progress: called after the output matrix, and after each layer.

    Raises:
        FileError: the activations are not finite.
    """
    layers = weights.shape.layers
    with lane_pool(threads) as pool:
        gradients, output = _run_output(weights, len(chunks), hidden, pool)
        found: dict[tuple[str, ...], Future[InputStats]] = {}
        progress(1, 1 + layers)
        for index in reversed(range(layers)):
            layer = DecoderLayer(weights, index, pool)
            found |= _run_layer(layer, index, hidden, gradients, pool)
            progress(1 + layers - index, 1 + layers)
        inputs = {(output_matrix(weights),): output} | {names: one.result() for names, one in found.items()}
    lookup = sum(
        _lookup_energy(chunk, hidden.load(0, number), gradients[number])
        for number, chunk in enumerate(chunks)
    )
    return _stats(weights, chunks, inputs, lookup)


def _run_output(
    weights: DecoderWeights, chunks: int, hidden: HiddenStates, pool: ThreadPoolExecutor
) -> tuple[list[Array], InputStats]:
    """The gradients of the last hidden states, and the statistics of the output matrix."""
    output, sums, gradients = OutputGradient(weights, pool), InputSums(weights.shape.hidden, 1), []
    for chunk in range(chunks):
        gradient, inputs, traces = output.compute(hidden.load(weights.shape.layers, chunk), seed=chunk)
        sums.add(inputs, [traces])
        gradients.append(gradient)
    return gradients, sums.stats(output_matrix(weights))


def _run_layer(
    layer: DecoderLayer, index: int, hidden: HiddenStates, gradients: list[Array], pool: ThreadPoolExecutor
) -> dict[tuple[str, ...], Future[InputStats]]:
    """Replace the gradients of a layer's outputs by those of its inputs.

    Returns:
        Statistics of the layer's inputs, by the names of the weights that read each. They are computed while
        the next layer is read.
    """
    columns = {name: shape[1] for name, shape in layer.model.shape.layer_matrices.items()}
    lanes = [
        {names: InputSums(columns[names[0]], len(names)) for names in _READERS.values()} for _ in range(LANES)
    ]

    def run(chunk: int) -> None:
        states = hidden.load(index, chunk)
        made = layer.forward(states, hidden.load_ffn(index, chunk))
        gradients[chunk], outputs = layer.backward(states, made, gradients[chunk])
        for field, names in _READERS.items():
            squares = [_square_lengths(outputs[name]) for name in names]
            lanes[chunk % LANES][names].add(getattr(made, field), squares)

    for start in range(0, len(gradients), LANES):  # two chunks of a lane at once would mix its sums
        list(pool.map(run, range(start, min(start + LANES, len(gradients)))))
    first, *others = lanes
    found = {}
    for names, sums in first.items():
        weights = tuple(f"blk.{index}.{name}.weight" for name in names)
        found[weights] = pool.submit(sums.stats, weights[0], [other[names] for other in others])
    return found


def _square_lengths(rows: Array) -> Doubles:
    """Square of each row's length, (n,)."""
    squares: Doubles = np.einsum("tc,tc->t", rows, rows).astype(np.float64)
    return squares


def _lookup_energy(tokens: Chunk, rows: Array, gradient: Array) -> float:
    """Sum over the different tokens of |sum of |row| gradient|², per column."""
    distinct, inverse = np.unique(np.array(tokens), return_inverse=True)
    sums = np.zeros((len(distinct), rows.shape[1]))
    np.add.at(sums, inverse, np.linalg.norm(rows, axis=1)[:, None] * gradient)
    return float(np.square(sums).sum() / rows.shape[1])


def _stats(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    inputs: Mapping[tuple[str, ...], InputStats],
    lookup: float,
) -> ActivationStats:
    tokens, shape = sum(map(len, chunks)), weights.shape
    energies = {
        name: energy
        for names, one in inputs.items()
        for name, energy in zip(names, one.energies.tolist(), strict=True)
    }
    rows = {output_matrix(weights): shape.vocab} | {
        f"blk.{index}.{name}.weight": count
        for index in range(shape.layers)
        for name, (count, _) in shape.layer_matrices.items()
    }
    return ActivationStats(
        sums={name: one.squares.astype(np.float32) for names, one in inputs.items() for name in names},
        counts=dict.fromkeys(energies, tokens),
        covariances={names[0]: one.blocks for names, one in inputs.items()},
        sketches={names[0]: one.low_rank for names, one in inputs.items() if one.low_rank is not None},
        sensitivity={name: energy / rows[name] / 2 / tokens for name, energy in energies.items()},
        lookup_sensitivity=lookup / 2 / tokens,
        lookup_counts=np.bincount(np.concatenate(chunks), minlength=shape.vocab),
        chunk_size=max(map(len, chunks)),
        chunk_count=len(chunks),
    )
