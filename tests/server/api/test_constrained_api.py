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


SET = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 3}
TAGS = {"type": "object", "properties": {"a,b": SET}, "required": ["a,b"]}
NAMED = "#/properties/a%2Cb/uniqueItems"
STRICT = 'schema at #/properties/a,b: "uniqueItems" cannot be enforced'


def asked(path, strict):
    """A body with a schema that cannot be enforced as a whole, and the name of its field."""
    messages, named = [{"role": "user", "content": "Hello"}], {"name": "tags", "strict": strict}
    text = {"type": "json_schema", **named, "schema": TAGS}
    tool = {"type": "function", "function": {**named, "parameters": TAGS}}
    return {
        "/v1/chat/completions": (body(TAGS), "response_format.json_schema"),
        "/v1/responses": ({"input": "Hello", "text": {"format": text}}, "text.format"),
        "/api/chat": ({"messages": messages, "format": TAGS}, "format"),
        "tools": ({"messages": messages, "tools": [tool], "tool_choice": "required"}, "tools.tags"),
    }[path]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/api/chat", "tools"])
def test_what_is_not_strict_is_named_and_what_is_strict_is_refused(tool_server, path):
    """Keywords that cannot be enforced were refused in each case."""
    sent, name = asked(path, strict=False)
    url = "/v1/chat/completions" if path == "tools" else path
    with tool_server.http() as http:
        response = http.post(url, json={"model": "tiny", "stream": False, **sent})
        assert response.status_code == 200, response.text
        assert response.headers["X-Thirteen-Ignored"] == name + NAMED
        strict, _ = asked(path, strict=True)
        if "response_format" in strict:
            strict["response_format"]["json_schema"]["strict"] = True
        response = http.post(url, json={"model": "tiny", "stream": False, **strict})
        if path == "/api/chat":  # has no such field
            assert response.status_code == 200
        else:
            assert response.status_code == 400 and STRICT in response.text.replace("\\", "")
