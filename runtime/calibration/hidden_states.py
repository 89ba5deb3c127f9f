"""Hidden states of calibration texts before each layer, kept on disk: they outgrow the memory of a laptop."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ...errors import ModelFileError
from ...files.output import output_errors
from ...files.progress import Progress, no_progress
from .chunks import Chunk
from .decoder import EMBEDDING, Array, DecoderLayer, DecoderWeights
from .worker_lanes import lane_pool


class HiddenStates:
    """The hidden states of some chunks of text, layer by layer, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, layer: int, states: Iterable[Array]) -> None:
        """Save the states before a layer, (tokens, hidden) for each chunk.

        Raises:
            OutputError: the disk is full.
        """
        with output_errors(self._folder):
            for chunk, one in enumerate(states):
                np.save(self._path(layer, chunk), one)

    def load(self, layer: int, chunk: int) -> Array:
        """The states of a chunk before a layer, or after all of them."""
        states: Array = np.load(self._path(layer, chunk))
        return states

    def _path(self, layer: int, chunk: int) -> Path:
        return self._folder / f"{layer}-{chunk}.npy"


def compute_hidden_states(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    folder: Path,
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> HiddenStates:
    """Run chunks of text through a model, one layer after the other.

    Args:
        weights: the model.
        chunks: the text.
        folder: where the states are kept.
        threads: compute threads; by default one per physical core.
        progress: called after each layer.

    Raises:
        ModelFileError: the states are not finite.
        OutputError: the folder cannot be written, or the disk is full.
    """
    kept, layers = HiddenStates(folder), weights.shape.layers
    with lane_pool(threads) as pool:
        for index, states in enumerate(layer_states(weights, chunks, pool)):
            kept.save(index, states)
            if index:
                progress(index, layers)
    return kept


def layer_states(
    weights: DecoderWeights, chunks: Sequence[Chunk], pool: ThreadPoolExecutor
) -> Iterator[list[Array]]:
    """Yield the hidden states of all chunks before each layer, and those after the last.

    Raises:
        ModelFileError: the states are not finite.
    """
    states = _look_up(weights, chunks)
    yield states
    for index in range(weights.shape.layers):
        states = list(pool.map(DecoderLayer(weights, index, pool).output, states))
        if not all(np.isfinite(one).all() for one in states):
            raise ModelFileError(f"the model's activations are not finite numbers: those after layer {index}")
        yield states


def _look_up(weights: DecoderWeights, chunks: Sequence[Chunk]) -> list[Array]:
    """Rows of the token embedding for each chunk, (tokens, hidden)."""
    tokens = sorted({token for chunk in chunks for token in chunk})
    rows = {token: weights.rows(EMBEDDING, token, token + 1)[0] for token in tokens}
    return [np.stack([rows[token] for token in chunk]) for chunk in chunks]
