"""Activation statistics over calibration text, as llama-imatrix collects them.

Each chunk of text is a sequence of its own. All chunks pass through a layer before the next one is read.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelFileError
from ...files.progress import Progress, no_progress, part_of
from .activation_covariance import InputStats, InputSums
from .chunks import Chunk
from .decoder import (
    EMBEDDING,
    FIRST_OF_INPUT,
    INPUTS,
    Array,
    DecoderLayer,
    DecoderWeights,
    output_matrix,
    rms_norm,
)
from .worker_lanes import LANES, lane_pool

TRACE_TOKENS = 256  # of a traced chunk


@dataclass(frozen=True)
class ActivationStats:
    """Statistics of a model's activations.

    Attributes:
        sums: weight name -> sum of each input's square over the tokens, (columns,).
        counts: weight name -> tokens.
        covariances: weight name -> diagonal blocks of the input covariance, see InputStats. Weights that
            share their inputs have one entry, under the first one's name.
        sketches: weight name -> low-rank factor of the input covariance, (columns, rank), likewise.
        token_counts: occurrences of each token, (vocab,).
        chunk_size: tokens of a chunk.
        chunk_count: number of chunks.
    """

    sums: dict[str, NDArray[np.float32]]
    counts: dict[str, int]
    covariances: dict[str, NDArray[np.float32]]
    sketches: dict[str, NDArray[np.float32]]
    token_counts: NDArray[np.int64]
    chunk_size: int
    chunk_count: int


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of a few sequences.

    Attributes:
        tokens: the tokens of each sequence.
        layers: before each layer, and after the last: those of each sequence, (tokens, hidden).
    """

    tokens: list[Chunk]
    layers: list[list[Array]]


def collect_activation_stats(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    *,
    traced: Sequence[int] = (),
    threads: int | None = None,
    progress: Progress = no_progress,
) -> tuple[ActivationStats, HiddenStates]:
    """Run chunks of text through a model and collect its activation statistics.

    Args:
        weights: the model.
        chunks: the text, at least one chunk.
        traced: numbers of the chunks whose first TRACE_TOKENS hidden states are returned too.
        threads: compute threads; by default one per physical core.
        progress: called with the chunks done in all layers together.

    Raises:
        ModelFileError: the activations are not finite.
    """
    hidden = _look_up(weights, chunks)
    layers, states = weights.shape.layers, [_beginnings(hidden, traced)]
    inputs: dict[str, InputStats] = {}
    with lane_pool(threads) as pool:
        for index in range(layers):
            part = part_of(progress, index * len(chunks), len(chunks), layers * len(chunks))
            found = _run_layer(DecoderLayer(weights, index), hidden, pool, part)
            inputs |= {f"blk.{index}.{name}.weight": one for name, one in found.items()}
            states.append(_beginnings(hidden, traced))
        inputs[output_matrix(weights)] = _output_stats(weights, hidden)
    _check_finite(inputs)
    tokens = [chunks[chunk][:TRACE_TOKENS] for chunk in traced]
    return _stats(weights, chunks, inputs), HiddenStates(tokens, states)


def _look_up(weights: DecoderWeights, chunks: Sequence[Chunk]) -> list[Array]:
    """Rows of the token embedding for each chunk, (tokens, hidden)."""
    tokens = sorted({token for chunk in chunks for token in chunk})
    rows = {token: weights.rows(EMBEDDING, token, token + 1)[0] for token in tokens}
    return [np.stack([rows[token] for token in chunk]) for chunk in chunks]


def _beginnings(hidden: Sequence[Array], traced: Sequence[int]) -> list[Array]:
    return [hidden[chunk][:TRACE_TOKENS].copy() for chunk in traced]


def _run_layer(
    layer: DecoderLayer, hidden: list[Array], pool: ThreadPoolExecutor, progress: Progress
) -> dict[str, InputStats]:
    """Replace the hidden states before a layer by those after it.

    Returns:
        Statistics of the layer's inputs, by the first matrix that each is for.
    """
    matrices = layer.model.shape.layer_matrices
    lanes = [{name: InputSums(matrices[name][1]) for name in FIRST_OF_INPUT.values()} for _ in range(LANES)]

    def run(chunk: int) -> None:
        with np.errstate(all="ignore"):  # _check_finite() reports what is not finite
            made = layer.forward(hidden[chunk])
            for field, name in FIRST_OF_INPUT.items():
                lanes[chunk % LANES][name].add(getattr(made, field))
        hidden[chunk] = made.output

    for start in range(0, len(hidden), LANES):
        stop = min(start + LANES, len(hidden))
        list(pool.map(run, range(start, stop)))
        progress(stop, len(hidden))
    first, *others = lanes
    return dict(pool.map(lambda name: (name, first[name].stats(other[name] for other in others)), first))


def _output_stats(weights: DecoderWeights, hidden: Sequence[Array]) -> InputStats:
    """Statistics of the inputs of the output matrix."""
    norm = weights.rows("output_norm.weight", 0, weights.shape.hidden)
    sums = InputSums(weights.shape.hidden)
    with np.errstate(all="ignore"):
        for states in hidden:
            sums.add(rms_norm(states, norm, weights.rms_eps))
    return sums.stats()


def _check_finite(inputs: Mapping[str, InputStats]) -> None:
    for name, one in inputs.items():
        if not np.isfinite(one.squares).all():
            raise ModelFileError(
                f"the model's activations are not finite numbers: those that {name} multiplies"
            )


def _stats(
    weights: DecoderWeights, chunks: Sequence[Chunk], inputs: Mapping[str, InputStats]
) -> ActivationStats:
    layers = range(weights.shape.layers)
    firsts = {
        f"blk.{index}.{name}.weight": f"blk.{index}.{FIRST_OF_INPUT[field]}.weight"
        for index in layers
        for name, field in INPUTS.items()
    } | {output_matrix(weights): output_matrix(weights)}
    return ActivationStats(
        sums={name: inputs[first].squares.astype(np.float32) for name, first in firsts.items()},
        counts={name: inputs[first].count for name, first in firsts.items()},
        covariances={name: one.blocks for name, one in inputs.items()},
        sketches={name: one.low_rank for name, one in inputs.items() if one.low_rank is not None},
        token_counts=np.bincount(np.concatenate(chunks), minlength=weights.shape.vocab),
        chunk_size=max(map(len, chunks)),
        chunk_count=len(chunks),
    )
