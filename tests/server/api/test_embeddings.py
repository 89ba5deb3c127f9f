"""Embeddings over HTTP, with the official clients of OpenAI and Ollama, LangChain's, and curl's bodies."""

import numpy as np
import ollama
import openai
import pytest

from ..serving import TIMEOUT_S

pytestmark = pytest.mark.slow
TEXTS = ["The cat sat on the mat.", "She has 12 eggs."]


@pytest.fixture(scope="module")
def engine(embedding_server):
    return embedding_server.service.engine


@pytest.fixture(scope="module")
def client(embedding_server):
    with embedding_server.openai() as client:
        yield client


def test_openai_client(embedding_server, client, engine):
    """Its default is base64, which it decodes."""
    tokens = sum(map(len, engine.embedding_tokens(TEXTS)))
    for encoding in ({}, {"encoding_format": "float"}):
        made = client.embeddings.create(model="bert", input=TEXTS, **encoding)
        np.testing.assert_allclose([one.embedding for one in made.data], engine.embed(TEXTS), atol=1e-6)
        assert (made.model, made.usage.prompt_tokens, made.usage.total_tokens) == ("bert", tokens, tokens)
        assert [one.index for one in made.data] == [0, 1]
    metrics = embedding_server.service.metrics.render()
    assert f'prompt_tokens_total{{key=""}} {2 * tokens}.0'.encode() in metrics


def test_every_kind_of_input(client, engine):
    tokens = [list(one) for one in engine.embedding_tokens(TEXTS)]
    for given in (TEXTS[0], tokens[0], tokens):
        made = client.embeddings.create(model="default", input=given, dimensions=8)
        expected = engine.embed(TEXTS, 8)[: len(made.data)]
        np.testing.assert_allclose([one.embedding for one in made.data], expected, atol=2e-3)


@pytest.mark.parametrize(
    ("fields", "status", "problem"),
    [
        ({"input": ""}, 422, "input must have at least 1 character"),
        ({"input": ["x"] * 2049}, 422, "at most 2048 items"),
        ({"input": {"a": 1}}, 422, "input must be a valid list"),
        ({"input": "x " * 100}, 400, "text 0 has 102 tokens, and the context holds 64"),
        ({"input": [10**6]}, 400, "token 1000000 is not one of"),
        ({"input": "x", "encoding_format": "int8"}, 422, "encoding_format"),
        ({"input": "x", "model": "gpt"}, 404, "'gpt' does not exist"),
    ],
)
def test_bad_requests(client, fields, status, problem):
    with pytest.raises(openai.APIStatusError, match=problem) as raised:
        client.embeddings.create(**{"model": "bert"} | fields)
    assert raised.value.status_code == status
    assert raised.value.body["type"] == "invalid_request_error"


def test_ollama_client(embedding_server, engine):
    client = ollama.Client(embedding_server.url, timeout=TIMEOUT_S)
    made = client.embed("bert:latest", TEXTS, dimensions=8)
    np.testing.assert_allclose(made.embeddings, engine.embed(TEXTS, 8), atol=2e-3)
    assert made.prompt_eval_count == sum(map(len, engine.embedding_tokens(TEXTS)))
    (cut,) = client.embed("bert", "x " * 100).embeddings
    np.testing.assert_allclose([cut], engine.embed(["x " * 100], truncate=True), atol=2e-3)
    with pytest.raises(ollama.ResponseError, match="has 102 tokens"):
        client.embed("bert", "x " * 100, truncate=False)
    assert client.show("bert").capabilities == ["embedding"]


def test_a_model_that_continues_texts_says_what_to_take(tiny_server):
    with tiny_server.openai() as client, pytest.raises(openai.BadRequestError, match="Qwen3-Embedding"):
        client.embeddings.create(model="tiny", input="x")
