"""Sensitivities predict the KL divergence of errors in each matrix, as the runtime computes it."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.models.passages import Passage, chunk_passages
from thirteen.runtime.llama.context import Context, Span, log_softmax
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import Settings

from ...runtime.conftest import tensors
from .weights import stats_of

pytestmark = pytest.mark.slow

TEXT = Passage((Path(__file__).parents[2] / "data" / "imatrix.txt").read_text())
OUTPUT = {"output.weight": np.random.default_rng(7).normal(0, 0.03, (259, 64)).astype(np.float32)}


def chunks_of(path):
    with Model(path) as model:
        return chunk_passages(model, [TEXT], 256)


def logprobs_of(path, chunk):
    """Log-probabilities after each token, (tokens, vocab)."""
    params = Settings(len(chunk), 1, len(chunk), threads=1, outputs=len(chunk), exact=True)
    with Model(path) as model, Context(model, params) as context:
        rows = context.decode([Span(0, 0, chunk, rows=len(chunk))])
        return log_softmax(np.stack([context.logits_row(row) for row in rows]))


def divergence_of(exact, changed, chunk):
    reference, other = logprobs_of(exact, chunk), logprobs_of(changed, chunk)
    return float((np.exp(reference) * (reference - other)).sum(1).mean())


@pytest.mark.parametrize(
    "name", [*(name for name in tensors() if name.startswith("blk.") and "norm" not in name), "output.weight"]
)
def test_the_sensitivity_of_a_matrix_predicts_the_divergence_of_random_errors(tmp_path, write_tiny, name):
    """The errors are independent between the rows, and small; the prediction is a mean over their signs."""
    exact = write_tiny(tmp_path / "exact.gguf", {}, OUTPUT)
    weights = (tensors() | OUTPUT)[name]
    (chunk, *_) = chunks_of(exact)
    stats = stats_of(exact, [chunk])
    sensitivity = stats.sensitivity[name]
    random, found, predicted = np.random.default_rng(11), [], []
    source = name.replace("attn_k", "attn_q").replace("attn_v", "attn_q").replace("ffn_up", "ffn_gate")
    shares = np.diagonal(stats.covariances[source], axis1=1, axis2=2).ravel()
    for _ in range(4):
        error = random.normal(0, 0.004, weights.shape).astype(np.float32)
        changed = write_tiny(tmp_path / "changed.gguf", {}, OUTPUT | {name: weights + error})
        found.append(divergence_of(exact, changed, chunk))
        predicted.append(sensitivity * float((error**2 @ shares).sum()))
    assert 0.5 < np.mean(found) / np.mean(predicted) < 2


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q5_0"])
def test_the_lookup_sensitivity_predicts_the_divergence_of_a_quantized_embedding(tmp_path, write_tiny, name):
    """The embedding is untied: its errors affect the lookup only. Larger ones cost less in proportion."""
    embedding, kind = tensors()["token_embd.weight"], gguf.GGMLQuantizationType[name]
    data = np.frombuffer(quantize_rows(embedding, kind, "test"), np.uint8).reshape(len(embedding), -1)
    rounded = gguf.dequantize(data, kind)
    exact = write_tiny(tmp_path / "exact.gguf", {}, OUTPUT)
    changed = write_tiny(tmp_path / "rounded.gguf", {}, {**OUTPUT, "token_embd.weight": rounded})
    chunks = chunks_of(exact)
    read = [token for chunk in chunks for token in chunk]
    error = np.square(rounded - embedding)[read].sum() / np.square(embedding)[read].sum()
    found = np.mean([divergence_of(exact, changed, chunk) for chunk in chunks])
    assert 0.4 < found / (stats_of(exact, chunks).lookup_sensitivity * error) < 2


def test_a_model_with_constant_output_is_not_sensitive(tmp_path, write_tiny):
    constant = write_tiny(tmp_path / "constant.gguf", {}, {"output.weight": np.zeros((259, 64), np.float32)})
    found = stats_of(constant, chunks_of(constant)[:1])
    output = found.sensitivity.pop("output.weight")  # errors of the logits do change a constant output
    assert output > 0
    assert [found.lookup_sensitivity, *found.sensitivity.values()] == pytest.approx([0] * 15, abs=1e-9)
