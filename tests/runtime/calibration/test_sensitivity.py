"""Sensitivities predict the KL divergence of quantization errors."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.runtime.calibration.activation_stats import chunk_passages
from thirteen.runtime.calibration.corpus import Passage
from thirteen.runtime.calibration.sensitivity import (
    CHUNK_TOKENS,
    NOISE_LEVEL,
    _chunk_logprobs,
    _kl_divergence,
    _LookupNoise,
    measure_sensitivities,
)
from thirteen.runtime.llama.context import Context, ContextParams
from thirteen.runtime.llama.eval_callback import EmbeddingLookup
from thirteen.runtime.llama.model import Model

from ..conftest import tensors

TEXT = Passage((Path(__file__).parents[2] / "data" / "imatrix.txt").read_text())


def chunk_logprobs(path):
    """Log-probabilities after each token of the first chunk, (tokens, vocab), and the chunk."""
    with Model(path) as model:
        chunk = chunk_passages(model, [TEXT], CHUNK_TOKENS)[0]
        with Context(
            model, ContextParams(len(chunk), 1, len(chunk), 1, outputs=len(chunk), exact=True)
        ) as context:
            return _chunk_logprobs(context, chunk), chunk


def test_every_matrix_has_a_sensitivity_and_progress_ends_at_its_total(tiny):
    progress = []
    found = measure_sensitivities(tiny, [TEXT], threads=1, progress=lambda *at: progress.append(at))
    assert found.matmul.keys() == {name for name, array in tensors().items() if array.ndim == 2}
    assert all(value > 0 for value in found.matmul.values()) and found.lookup > 0
    total = progress[0][1]
    assert progress == [(n + 1, total) for n in range(total)]


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q5_0"])
def test_the_lookup_sensitivity_predicts_the_divergence_of_a_quantized_embedding(tmp_path, write_tiny, name):
    """The embedding is untied, so its errors affect the lookup only."""
    embedding, kind = tensors()["token_embd.weight"], gguf.GGMLQuantizationType[name]
    data = np.frombuffer(quantize_rows(embedding, kind, "test"), np.uint8).reshape(len(embedding), -1)
    rounded = gguf.dequantize(data, kind)
    output = {"output.weight": np.random.default_rng(7).normal(0, 0.03, (259, 64)).astype(np.float32)}
    exact = write_tiny(tmp_path / "exact.gguf", {}, output)
    reference, chunk = chunk_logprobs(exact)
    logprobs, _ = chunk_logprobs(
        write_tiny(tmp_path / "rounded.gguf", {}, {**output, "token_embd.weight": rounded})
    )
    rows = list(chunk)
    error = np.square(rounded - embedding)[rows].sum() / np.square(embedding)[rows].sum()
    predicted = measure_sensitivities(exact, [TEXT], threads=1).lookup * error
    assert 0.5 < _kl_divergence(reference, logprobs) / predicted < 2


def test_a_model_with_constant_output_is_not_sensitive(tmp_path, write_tiny):
    constant = write_tiny(tmp_path / "constant.gguf", {}, {"output.weight": np.zeros((259, 64), np.float32)})
    found = measure_sensitivities(constant, [TEXT], threads=1)
    assert [found.lookup, *found.matmul.values()] == pytest.approx([0] * 16, abs=1e-9)


def test_lookup_noise_is_equal_for_equal_tokens_and_proportional_to_the_row():
    tokens = np.array([7, 3, 7, 9], np.int32)
    rows = np.array([1.0, 10.0, 1.0, 0.0], np.float32)[:, None] * np.ones((1, 4096), np.float32)
    outputs, noise = rows.copy(), _LookupNoise()
    noise(EmbeddingLookup("token_embd.weight", tokens, outputs))
    assert np.array_equal(outputs, rows)
    noise.enabled = True
    noise(EmbeddingLookup("token_embd.weight", tokens, outputs))
    added = np.linalg.norm(outputs - rows, axis=1) / 64
    assert added == pytest.approx([NOISE_LEVEL, 10 * NOISE_LEVEL, NOISE_LEVEL, 0], rel=0.05)
    assert np.array_equal(outputs[0], outputs[2])
    assert np.corrcoef(outputs[0], outputs[1])[0, 1] < 0.1
