"""Constrained answers over HTTP: valid or refused, whatever the sampling parameters; the server lives."""

import json

import jsonschema
import pytest

from ..serving import RunningServer

# The complete run is 10,000 requests: THIRTEEN_REQUESTS=10000 pytest tests/server/api/…


def body(schema, **fields):
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "Hello"}]
    return {"messages": messages, "max_tokens": 16, "response_format": response_format, **fields}


@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 9e-5])
def test_a_temperature_that_overflows_is_refused(tiny_server: RunningServer, temperature):
    """llama.cpp sampled a token that its grammar excluded, threw in C, and so ended the server."""
    with tiny_server.http() as http:
        response = http.post("/v1/chat/completions", json=body({"type": "boolean"}, temperature=temperature))
        message = response.json()["error"]["message"]
        assert response.status_code == 400 and "temperature must be 0 or" in message
        assert http.get("/health").status_code == 200


LONG = {
    "type": "object",
    "properties": {f"a_rather_long_name_number_{n}": {"type": "boolean"} for n in range(4)},
    "required": [f"a_rather_long_name_number_{n}" for n in range(4)],
}


@pytest.mark.exhaustive
def test_a_stream_of_forced_tokens_is_the_whole_answer(smollm2_server: RunningServer):
    sent = body(LONG, max_tokens=100, temperature=0, logprobs=True)
    with smollm2_server.http() as http:
        whole = http.post("/v1/chat/completions", json=sent).json()["choices"][0]
        streamed = http.post("/v1/chat/completions", json={**sent, "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text == whole["message"]["content"]
    jsonschema.validate(json.loads(text), LONG)
    logprobs = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert logprobs == whole["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in logprobs).decode() == text
    forced = [entry for entry in logprobs if entry["logprob"] == 0 and not entry["top_logprobs"]]
    assert len(forced) > len(logprobs) / 2
