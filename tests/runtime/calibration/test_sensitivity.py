"""Sensitivities foretell the divergence that errors make, and noise is as the rounding of weights is."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.runtime.calibration.activation_stats import chunk_passages
from thirteen.runtime.calibration.corpus import Passage
from thirteen.runtime.calibration.sensitivity import (
    NOISE_LEVEL,
    CHUNK_TOKENS,
    _kl_divergence,
    _log_softmax,
    _LookupNoise,
    measure_sensitivities,
)
from thirteen.runtime.llama.context import Context, ContextParams
from thirteen.runtime.llama.eval_callback import EmbeddingLookup
from thirteen.runtime.llama.model import Model

from ..conftest import tensors

TEXT = Passage((Path(__file__).parents[2] / "data" / "imatrix.txt").read_text())


def predictions(path):
    """The log-probabilities after each token of a chunk of the text, (tokens, vocab), and the tokens."""
    with Model(path) as model:
        chunk = chunk_passages(model, [TEXT], CHUNK_TOKENS)[0]
        with Context(
            model, ContextParams(len(chunk), 1, len(chunk), 1, outputs=len(chunk), exact=True)
        ) as context:
            return _log_softmax(context, chunk), chunk


def test_every_matrix_has_a_sensitivity_and_progress_ends_at_its_total(tiny):
    told = []
    found = measure_sensitivities(tiny, [TEXT], threads=1, progress=lambda *at: told.append(at))
    assert found.products.keys() == {name for name, array in tensors().items() if array.ndim == 2}
    assert all(value > 0 for value in found.products.values()) and found.look_up > 0
    assert told == [(n + 1, told[0][1]) for n in range(told[0][1])]


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q5_0"])
def test_the_look_ups_sensitivity_foretells_what_rounding_the_embedding_does(tmp_path, write_tiny, name):
    """Untied, the embedding is only looked up in: its errors do nothing else."""
    embedding, kind = tensors()["token_embd.weight"], gguf.GGMLQuantizationType[name]
    data = np.frombuffer(quantize_rows(embedding, kind, "test"), np.uint8).reshape(len(embedding), -1)
    rounded = gguf.dequantize(data, kind)
    output = {"output.weight": np.random.default_rng(7).normal(0, 0.03, (259, 64)).astype(np.float32)}
    exact = write_tiny(tmp_path / "exact.gguf", {}, output)
    (reference, chunk) = predictions(exact)
    found, _ = predictions(
        write_tiny(tmp_path / "rounded.gguf", {}, {**output, "token_embd.weight": rounded})
    )
    rows = list(chunk)
    error = np.square(rounded - embedding)[rows].sum() / np.square(embedding)[rows].sum()
    foretold = measure_sensitivities(exact, [TEXT], threads=1).look_up * error
    assert 0.5 < _kl_divergence(reference, found) / foretold < 2


def test_a_model_that_always_says_the_same_is_not_sensitive(tmp_path, write_tiny):
    mute = write_tiny(tmp_path / "mute.gguf", {}, {"output.weight": np.zeros((259, 64), np.float32)})
    found = measure_sensitivities(mute, [TEXT], threads=1)
    assert [found.look_up, *found.products.values()] == pytest.approx([0] * 16, abs=1e-9)


def test_noise_of_a_look_up_is_a_tokens_own_and_in_proportion_to_its_row():
    tokens = np.array([7, 3, 7, 9], np.int32)
    rows = np.array([1.0, 10.0, 1.0, 0.0], np.float32)[:, None] * np.ones((1, 4096), np.float32)
    outputs, noise = rows.copy(), _LookupNoise()
    noise(EmbeddingLookup("token_embd.weight", tokens, outputs))
    assert np.array_equal(outputs, rows)
    noise.on = True
    noise(EmbeddingLookup("token_embd.weight", tokens, outputs))
    added = np.linalg.norm(outputs - rows, axis=1) / 64
    assert added == pytest.approx([NOISE_LEVEL, 10 * NOISE_LEVEL, NOISE_LEVEL, 0], rel=0.05)
    assert np.array_equal(outputs[0], outputs[2])
    assert np.corrcoef(outputs[0], outputs[1])[0, 1] < 0.1
