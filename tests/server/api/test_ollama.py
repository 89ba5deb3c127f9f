"""Ollama's API with its own client: options, descriptions of the models, and calls with their results."""

import json
from datetime import UTC, datetime
from typing import Any

import ollama
import pytest
from ollama import _types as types
from thirteen.server.api.ollama import OllamaChatRequest, OllamaRequest, chat_messages
from thirteen.server.config import RequestLimits

from ..serving import TIMEOUT_S, serve_engine
from ..tool_model import record_prompts

pytestmark = pytest.mark.slow

QUESTION = "Name a colour."
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def client(tiny_server):
    return ollama.Client(tiny_server.url, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def http(tool_server):
    with tool_server.http() as client:
        yield client


def chat(client, **options):
    return client.chat(**{"model": "tiny", "messages": MESSAGES, "options": GREEDY} | options)


def test_durations_are_nanoseconds(client):
    answer = chat(client)
    assert answer.prompt_eval_duration > 0 and 0 < answer.eval_duration < answer.total_duration
    assert answer.total_duration < TIMEOUT_S * 10**9 and answer.load_duration == 0
    assert answer.prompt_eval_count > len(QUESTION), "a token is a byte here"
    made = datetime.fromisoformat(answer.created_at)
    assert 0 <= (datetime.now(UTC) - made).total_seconds() < TIMEOUT_S


def test_a_stop_string_ends_the_answer(client):
    text = chat(client).message.content
    stopped = chat(client, options=GREEDY | {"stop": [text[3:6]]})
    assert text.startswith(stopped.message.content) and len(stopped.message.content) <= 3
    assert stopped.done_reason == "stop"


def test_options_beyond_a_limit_are_lowered(tiny_server):
    limits = RequestLimits(max_tokens=7)
    with serve_engine(tiny_server.service.engine, name="tiny", limits=limits) as server:
        client = ollama.Client(server.url, timeout=TIMEOUT_S)
        for options in ({}, {"num_predict": -1}, {"num_predict": 0}, {"num_predict": 8, "num_ctx": 1 << 20}):
            assert chat(client, options=options).eval_count == 7


def test_a_format_may_be_a_word(client):
    assert chat(client, format="json").message.content.startswith("{")
    assert chat(client, format="").message.content == chat(client).message.content


def test_a_request_without_content_loads_the_model(client):
    for answer in (client.generate("tiny"), client.chat("tiny"), client.generate("tiny", keep_alive=0)):
        assert (answer.done, answer.done_reason, answer.eval_count) == (True, "load", None)
    assert chat(client, model="tiny:latest", keep_alive="5m").model == "tiny"
    for ask in (client.generate, client.show):
        with pytest.raises(ollama.ResponseError, match="does not exist") as caught:
            ask("llama3")
        assert caught.value.status_code == 404


def test_tags_and_ps_list_the_models(client, tiny, tiny_server):
    (listed,) = client.list().models
    (loaded,) = client.ps().models
    assert listed.model == loaded.model == loaded.name == "tiny"
    assert listed.digest == loaded.digest and len(listed.digest) == 64
    assert listed.size == tiny.stat().st_size < loaded.size
    assert listed.modified_at.timestamp() == pytest.approx(tiny.stat().st_mtime, abs=1e-3)
    assert (loaded.size_vram, loaded.context_length) == (0, tiny_server.service.engine.context)
    assert loaded.expires_at.year == 9999
    assert listed.details == loaded.details
    assert (listed.details.family, listed.details.format) == ("llama", "gguf")


def test_show_describes_a_model(client, tiny, tiny_server):
    shown = client.show("tiny")
    assert shown.modified_at.timestamp() == pytest.approx(tiny.stat().st_mtime, abs=1e-3)
    weights = tiny_server.service.engine.model.header.weights
    assert shown.details.parameter_size == f"{weights / 1e6:.2f}M"
    assert shown.details.quantization_level == "unknown"
    assert shown.modelinfo["llama.block_count"] == 2
    assert shown.modelinfo["general.parameter_count"] == weights
    assert "<|im_start|>" in shown.template and shown.capabilities == ["completion"]


# A value of each type of the client's fields; the fields that we honour have theirs.
VALUES: dict[str, Any] = {
    "model": "tiny",
    "messages": MESSAGES,
    "prompt": "a",
    "system": "a",
    "stream": False,
    "format": "json",
    "keep_alive": "5m",
    "think": "high",
    "thinking": "a",
    "num_ctx": 256,
    "stop": ["a"],
    "role": "user",
    "content": "a",
    "options": {},
    "tools": [{"type": "function", "function": {"name": "a"}}],
    "tool_calls": None,
    "tool_name": "a",
}
NUMBERS = {"temperature": 0.5, "top_p": 0.5, "min_p": 0.5, "top_k": 1, "seed": 1, "num_predict": 1}
NUMBERS |= dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty", "repeat_last_n"), 1)
HONOURED = {
    "/api/chat": {"model", "messages", "stream", "format", "options", "keep_alive", "tools", "think"},
    "/api/generate": {"model", "prompt", "system", "stream", "format", "options", "keep_alive", "think"},
    "options": {*NUMBERS, "num_ctx", "stop"},
    "messages[0]": {"role", "content", "tool_calls", "tool_name"},
}
REFUSED = {*OllamaRequest.refused, "messages[0].images"}


def effect(http, path, body):
    """The fields that are ignored, or the field that is refused; None if all are honoured."""
    response = http.post(path, json=body)
    if response.status_code == 200:
        return response.headers.get("X-Thirteen-Ignored")
    assert response.status_code == 422 and response.json().keys() == {"error"}, response.text
    return response.json()["error"].partition(" is not supported")[0]


@pytest.mark.parametrize(
    ("path", "params"), [("/api/chat", types.ChatRequest), ("/api/generate", types.GenerateRequest)]
)
def test_every_field_of_the_client_is_honoured_or_named(http, path, params):
    def expected(place, name):
        path = f"{place}.{name}" if place in {"options", "messages[0]"} else name
        if name in HONOURED[place]:
            return None
        return path if path in REFUSED else name

    base = {"model": "tiny", "stream": False, "options": {"num_predict": 1}}
    base |= {"messages": MESSAGES} if path == "/api/chat" else {"prompt": "a"}
    for name in params.model_fields:
        assert effect(http, path, base | {name: VALUES.get(name, ["a"])}) == expected(path, name)
    for name in {*types.Options.model_fields, "min_p"}:
        options = {"num_predict": 1, name: NUMBERS.get(name, VALUES.get(name, 1))}
        assert effect(http, path, base | {"options": options}) == expected("options", name)
    for name in types.Message.model_fields if path == "/api/chat" else ():
        message = {"role": "user", "content": "a", name: VALUES.get(name, ["a"])}
        assert effect(http, path, base | {"messages": [message]}) == expected("messages[0]", name)


def test_empty_fields_that_clients_send_are_accepted(http):
    empty = {"suffix": "", "template": "", "raw": False, "context": [], "images": None, "think": False}
    empty |= {"logprobs": False, "top_logprobs": 0}
    body = {"model": "tiny", "prompt": "a", "stream": False, "options": {"num_predict": 1}} | empty
    assert http.post("/api/generate", json=body).status_code == 200
    assert effect(http, "/api/generate", body | {"raw": 1}) == "raw"


def test_a_result_belongs_to_the_call_of_its_tool():
    """By the order alone it belonged to another call, or to one that was never answered."""
    calls = [{"function": {"name": name, "arguments": {}}} for name in "fgf"]
    results = [{"role": "tool", "content": name, "tool_name": name} for name in "gffx"]
    again = {"role": "assistant", "tool_calls": calls[:1]}
    messages = [{"role": "assistant", "tool_calls": calls}, *results[:2], {"role": "user", "content": "and?"}]
    body = {"model": "tiny", "messages": [*messages, again, *results[2:]]}
    answered = [message.tool_call_id for message in chat_messages(OllamaChatRequest.model_validate(body))]
    assert answered == [None, "call_0_1", "call_0_0", None, None, "call_4_0", "x"]


def test_a_call_and_its_result(tool_server, say, monkeypatch):
    prompts = record_prompts(tool_server.service.engine, monkeypatch)
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    tools = [{"type": "function", "function": {"name": "weather"}}]
    client = ollama.Client(tool_server.url, timeout=TIMEOUT_S)
    say(f"Let me see.\n<tool_call>{json.dumps(call)}</tool_call>")
    first = client.chat("tiny", MESSAGES, tools=tools).message
    *parts, last = client.chat("tiny", MESSAGES, tools=tools, stream=True)
    assert "".join(part.message.content for part in parts) == first.content == "Let me see."
    assert [part.message.tool_calls for part in parts if part.message.tool_calls] == [first.tool_calls]
    assert last.done_reason == "stop" and last.message.content == ""
    say("Yes.")
    result = {"role": "tool", "content": "Rain", "tool_name": "weather"}
    assert client.chat("tiny", [*MESSAGES, first, result], tools=tools).message.content == "Yes."
    assert json.dumps(call) in prompts[-1] and "[<|im_start|>]tool\nRain[<|im_end|>]" in prompts[-1]
    assert client.show("tiny").capabilities == ["completion", "tools"]
