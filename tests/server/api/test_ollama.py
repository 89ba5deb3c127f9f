"""Ollama's API with its own client: options, descriptions of the models, and calls with their results."""

from datetime import UTC, datetime

import ollama
import pytest

from ..serving import TIMEOUT_S

pytestmark = pytest.mark.slow

QUESTION = "Name a colour."
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def client(tiny_server):
    return ollama.Client(tiny_server.url, timeout=TIMEOUT_S)


def chat(client, **options):
    return client.chat(**{"model": "tiny", "messages": MESSAGES, "options": GREEDY} | options)


def test_durations_are_nanoseconds(client):
    answer = chat(client)
    assert answer.prompt_eval_duration > 0 and 0 < answer.eval_duration < answer.total_duration
    assert answer.total_duration < TIMEOUT_S * 10**9 and answer.load_duration == 0
    assert answer.prompt_eval_count > len(QUESTION), "a token is a byte here"
    made = datetime.fromisoformat(answer.created_at)
    assert 0 <= (datetime.now(UTC) - made).total_seconds() < TIMEOUT_S


def test_options(client):
    text = chat(client).message.content
    stopped = chat(client, options=GREEDY | {"stop": [text[3:6]]})
    assert text.startswith(stopped.message.content) and len(stopped.message.content) <= 3
    assert stopped.done_reason == "stop"
    assert chat(client, options={"num_predict": -1}).eval_count > 12
    assert chat(client, format="json").message.content.startswith("{")
    assert chat(client, format="").message.content == text


def test_a_request_without_content_loads_the_model(client):
    for answer in (client.generate("tiny"), client.chat("tiny"), client.generate("tiny", keep_alive=0)):
        assert (answer.done, answer.done_reason, answer.eval_count) == (True, "load", None)
    assert chat(client, model="tiny:latest", keep_alive="5m").model == "tiny"
    for ask in (client.generate, client.show):
        with pytest.raises(ollama.ResponseError, match="does not exist") as caught:
            ask("llama3")
        assert caught.value.status_code == 404


def test_the_model_is_listed_and_described(client, tiny, tiny_server):
    (listed,), shown = client.list().models, client.show("tiny")
    assert (listed.model, listed.size, len(listed.digest)) == ("tiny", tiny.stat().st_size, 64)
    assert listed.modified_at.timestamp() == pytest.approx(tiny.stat().st_mtime, abs=1e-3)
    for found in (listed, shown):
        assert (found.details.family, found.details.format) == ("llama", "gguf")
    weights = tiny_server.service.engine.model.header.weights
    assert shown.details.parameter_size == f"{weights / 1e6:.2f}M"
    assert shown.modelinfo["llama.block_count"] == 2
    assert shown.modelinfo["general.parameter_count"] == weights
    assert "<|im_start|>" in shown.template and shown.capabilities == ["completion"]
