"""Hidden states of calibration texts before each layer, kept on disk: they outgrow the memory of a laptop.

The outputs of ffn_gate and ffn_up are kept too, in float16: to compute them again takes longer than to read
them.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ...errors import FileError
from ...files.output import output_errors
from ...files.progress import Progress, no_progress
from ...stats.arrays import Floats
from ..source.architecture import EMBEDDING
from .decoder import DecoderLayer
from .projection import Parts
from .weights import DecoderWeights

Chunk = tuple[int, ...]  # tokens of a piece of calibration text
_F16_MAX = np.finfo(np.float16).max


class HiddenStates:
    """The hidden states of some chunks of text, layer by layer, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, layer: int, states: Iterable[Floats]) -> None:
        """Save the states before a layer, (tokens, hidden) for each chunk.

        Raises:
            OutputError: the disk is full.
        """
        with output_errors(self._folder):
            for chunk, one in enumerate(states):
                np.save(self._path(layer, chunk), one)

    def load(self, layer: int, chunk: int) -> Floats:
        """The states of a chunk before a layer, or after all of them."""
        states: Floats = np.load(self._path(layer, chunk))
        return states

    def save_ffn(self, layer: int, chunk: int, outputs: Parts) -> None:
        """Save the outputs of a layer's ffn_gate and ffn_up for a chunk, (tokens, ffn) each.

        Raises:
            OutputError: the disk is full.
        """
        both = np.empty((2, *outputs[0].shape), np.float16)
        for part, one in zip(both, outputs, strict=True):
            np.clip(one, -_F16_MAX, _F16_MAX, out=part, casting="same_kind")
        with output_errors(self._folder):
            np.save(self._path(layer, chunk, "-ffn"), both)

    def load_ffn(self, layer: int, chunk: int) -> tuple[Floats, Floats]:
        """The outputs of a layer's ffn_gate and ffn_up for a chunk, (tokens, ffn) each."""
        gate, up = np.load(self._path(layer, chunk, "-ffn")).astype(np.float32)
        return gate, up

    def _path(self, layer: int, chunk: int, kind: str = "") -> Path:
        return self._folder / f"{layer}-{chunk}{kind}.npy"


def compute_hidden_states(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    folder: Path,
    pool: ThreadPoolExecutor,
    progress: Progress = no_progress,
) -> HiddenStates:
    """Run chunks of text through a model, one layer after the other.

    Args:
        weights: the model.
        chunks: the text.
        folder: where the states are kept.
        pool: runs the chunks.
        progress: called after each layer.

    Raises:
        FileError: the states are not finite.
        OutputError: the folder cannot be written, or the disk is full.
    """
    kept, layers = HiddenStates(folder), weights.architecture.layers
    states = _look_up(weights, chunks)
    kept.save(0, states)
    for index in range(layers):
        layer = DecoderLayer(weights, index, pool)

        def run(chunk: int, layer: DecoderLayer = layer, states: Sequence[Floats] = states) -> Floats:
            with np.errstate(all="ignore"):  # what is not finite is reported below
                made = layer.forward(states[chunk])
                kept.save_ffn(layer.index, chunk, made[1].parts)
                return layer.output(made)

        states = list(pool.map(run, range(len(chunks))))
        if not all(np.isfinite(one).all() for one in states):
            raise FileError(f"the model's activations are not finite numbers: those after layer {index}")
        kept.save(index + 1, states)
        progress(index + 1, layers)
    return kept


def _look_up(weights: DecoderWeights, chunks: Sequence[Chunk]) -> list[Floats]:
    """Rows of the token embedding for each chunk, scaled, (tokens, hidden)."""
    tokens = sorted({token for chunk in chunks for token in chunk})
    scale = weights.architecture.embedding_scale
    rows = {token: weights.rows(EMBEDDING, token, token + 1)[0] * scale for token in tokens}
    return [np.stack([rows[token] for token in chunk]) for chunk in chunks]
