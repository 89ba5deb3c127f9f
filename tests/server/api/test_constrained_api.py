"""Constrained answers over HTTP: valid or refused, whatever the sampling parameters; the server lives."""

import asyncio
import json
import os
import random

import httpx
import jsonschema
import pytest
from thirteen.runtime.grammar.compiler import compile_matcher

from ..serving import RunningServer

# The complete run is 10,000 requests: THIRTEEN_REQUESTS=10000 pytest tests/server/api/…
REQUESTS = int(os.environ.get("THIRTEEN_REQUESTS", "600"))
CLIENTS = 8
SCHEMAS = [
    {"type": "boolean"},
    {"type": "integer", "minimum": -5, "maximum": 120},
    {"enum": ["yes", "no", "maybe", 1.5]},
    {"type": "string", "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
    {"type": "string", "format": "date"},
    {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3},
    {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]},
    {"anyOf": [{"type": "null"}, {"properties": {"next": {"$ref": "#"}}, "required": ["next"]}]},
    {"type": "string", "not": {}},
    {"$ref": "#"},
    {"type": "integer", "multipleOf": 123456789},
]


def body(schema, **fields):
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "Hello"}]
    return {"messages": messages, "max_tokens": 16, "response_format": response_format, **fields}


def log_uniform(high):
    return high * 10 ** random.uniform(-300, 0)


def random_fields():
    fields = {
        "temperature": log_uniform(2),
        "top_p": log_uniform(1),
        "min_p": log_uniform(0.999),
        "top_k": int(log_uniform(2**31)),
        "seed": random.getrandbits(31),
        "max_tokens": random.choice([1, 4, 24]),
        "logprobs": random.random() < 0.2,
        "n": random.choice([1, 1, 2]),
    }
    chosen = {name: value for name, value in fields.items() if random.random() < 0.6}
    if random.random() < 0.5:  # else nearly all temperatures are too low
        chosen["temperature"] = 2 * 10 ** random.uniform(-5, 0)
    return chosen


@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 9e-5])
def test_a_temperature_that_overflows_is_refused(tiny_server: RunningServer, temperature):
    """llama.cpp sampled a token that its grammar excluded, threw in C, and so ended the server."""
    with tiny_server.http() as http:
        response = http.post("/v1/chat/completions", json=body({"type": "boolean"}, temperature=temperature))
        message = response.json()["error"]["message"]
        assert response.status_code == 400 and "temperature must be 0 or" in message
        assert http.get("/health").status_code == 200


def check(response, sent):
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, (response.text, sent)
        return
    for choice in response.json()["choices"]:
        if choice["finish_reason"] == "stop":
            schema = sent["response_format"]["json_schema"]["schema"]
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)


@pytest.mark.slow
def test_any_sampling_parameters_with_any_schema_give_valid_answers_or_4xx(tiny_server: RunningServer):
    random.seed(13)
    bodies = [body(random.choice(SCHEMAS), **random_fields()) for _ in range(REQUESTS)]
    remaining, answered = iter(bodies), []

    async def work(client):
        for sent in remaining:
            response = await client.post("/v1/chat/completions", json=sent)
            check(response, sent)
            answered.append(response.status_code)

    async def run():
        async with httpx.AsyncClient(base_url=tiny_server.url, timeout=300) as client:
            await asyncio.gather(*(work(client) for _ in range(CLIENTS)))

    asyncio.run(run())
    assert len(answered) == REQUESTS
    assert answered.count(200) > REQUESTS / 10 and answered.count(400) > REQUESTS / 10


LONG = {
    "type": "object",
    "properties": {f"a_rather_long_name_number_{n}": {"type": "boolean"} for n in range(4)},
    "required": [f"a_rather_long_name_number_{n}" for n in range(4)],
}


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


ORDER = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 40},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "pieces": {"type": "integer", "minimum": 1}},
                "required": ["name", "pieces"],
            },
            "minItems": 1,
        },
    },
    "required": ["customer", "items"],
}


def test_the_schema_of_several_answers_is_compiled_once(tiny_server: RunningServer, monkeypatch):
    compiled = []

    def count(source, tokenizer):
        compiled.append(source)
        return compile_matcher(source, tokenizer)

    monkeypatch.setattr("thirteen.runtime.llama.constraint.compile_matcher", count)
    with tiny_server.http() as http:
        for _ in range(2):
            sent = body(ORDER, n=4, temperature=1, max_tokens=40)
            choices = http.post("/v1/chat/completions", json=sent).json()["choices"]
            texts = {choice["message"]["content"] for choice in choices}
            assert len(texts) == 4 and all(text.startswith("{") for text in texts)
    assert len(compiled) == 1
