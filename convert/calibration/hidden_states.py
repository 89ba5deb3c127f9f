"""Hidden states of calibration texts before each layer, kept on disk: they outgrow the memory of a laptop.

The outputs of ffn_gate and ffn_up are kept too, in float16: to compute them again takes longer than to read
them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...files.output import output_errors
from ...files.progress import Progress, no_progress
from ...stats.arrays import Floats
from ..source.architecture import EMBEDDING
from .decoder import DecoderLayer, DecoderWeights

Chunk = tuple[int, ...]  # tokens of a piece of calibration text
_F16_MAX = np.finfo(np.float16).max


class HiddenStates:
    """The hidden states of some chunks of text, layer by layer, in files of a folder."""

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


def compute_hidden_states(
    weights: DecoderWeights,
    chunks: Sequence[Chunk],
    folder: Path,
    pool: ThreadPoolExecutor,
    progress: Progress = no_progress,
) -> HiddenStates:
    """Run chunks of text through a model, one layer after the other, and keep the states in a folder.

    Raises:
        FileError: the states are not finite.
        OutputError: the folder cannot be written, or the disk is full.
    """
    kept, layers, numbers = HiddenStates(folder), weights.architecture.layers, range(len(chunks))
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
