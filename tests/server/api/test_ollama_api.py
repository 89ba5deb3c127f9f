"""/api/ with Ollama's own client: answers, streams, options, descriptions of the models, and errors."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import ollama
import pytest
from ollama import _types as types
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.api import ollama_api
from thirteen.server.api.ollama_api import chat_messages
from thirteen.server.api.ollama_models import OllamaChatRequest, OllamaRequest

from ..serving import FLAG, TIMEOUT_S, serve_engine

pytestmark = pytest.mark.slow

QUESTION = "Name a colour."
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def client(tiny_server):
    return ollama.Client(tiny_server.url, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def http(tiny_server):
    with tiny_server.http() as client:
        yield client


def chat(client, **options):
    return client.chat(**{"model": "tiny", "messages": MESSAGES, "options": GREEDY} | options)


def openai_text(server, *messages):
    """What OpenAI's API answers to the same conversation."""
    with server.openai() as client:
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0)
    return answer.choices[0].message.content


def test_chat(client, tiny_server):
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        *MESSAGES,
    ]
    answer = chat(client, messages=said)
    assert answer.message.content == openai_text(tiny_server, *said)
    assert (answer.model, answer.message.role, answer.done) == ("tiny", "assistant", True)
    assert (answer.done_reason, answer.eval_count) == ("length", 12)


def test_generate(client, tiny_server):
    answer = client.generate("tiny", QUESTION, system="Be brief.", options=GREEDY)
    assert answer.response == openai_text(tiny_server, {"role": "system", "content": "Be brief."}, *MESSAGES)
    assert (answer.done_reason, answer.eval_count) == ("length", 12)


def test_durations_are_nanoseconds(client):
    answer = chat(client)
    assert answer.prompt_eval_duration > 0 and 0 < answer.eval_duration < answer.total_duration
    assert answer.total_duration < TIMEOUT_S * 10**9 and answer.load_duration == 0
    assert answer.prompt_eval_count > len(QUESTION), "a token is a byte here"
    made = datetime.fromisoformat(answer.created_at)
    assert 0 <= (datetime.now(UTC) - made).total_seconds() < TIMEOUT_S


def test_a_stream_equals_the_whole_answer(client):
    *parts, last = chat(client, stream=True)
    whole = chat(client)
    assert "".join(part.message.content for part in parts) == whole.message.content and parts
    assert {part.done for part in parts} == {False} and all(part.eval_count is None for part in parts)
    assert (last.message.content, last.done, last.done_reason) == ("", True, "length")
    assert (last.eval_count, last.prompt_eval_count) == (whole.eval_count, whole.prompt_eval_count)
    *parts, last = client.generate("tiny", QUESTION, options=GREEDY, stream=True)
    assert "".join(part.response for part in parts) == whole.message.content and last.done


def test_a_stream_has_all_characters(client, say):
    """The client takes other line ends of Unicode for the end of a line, and refused the rest as JSON."""
    say(text := "a\u2028b\u2029c\x85d\U0001f600")
    parts = chat(client, options=GREEDY | {"num_predict": 20}, stream=True)
    assert "".join(part.message.content for part in parts) == text


def test_a_stop_string_ends_the_answer(client):
    text = chat(client).message.content
    stopped = chat(client, options=GREEDY | {"stop": [text[3:6]]})
    assert text.startswith(stopped.message.content) and len(stopped.message.content) <= 3
    assert stopped.done_reason == "stop"


def test_no_limit_is_the_servers_limit(tiny_server):
    with serve_engine(tiny_server.service.engine, name="tiny", limits=RequestLimits(max_tokens=7)) as server:
        client = ollama.Client(server.url, timeout=TIMEOUT_S)
        for options in ({}, {"num_predict": -1}, {"num_predict": -2}, {"num_predict": 0}):
            assert chat(client, options=options).eval_count == 7
        assert chat(client, options={"num_predict": 8, "num_ctx": 1 << 20}).eval_count == 7
    limits = RequestLimits(max_tokens=7, strict=True)
    with serve_engine(tiny_server.service.engine, name="tiny", limits=limits) as server:
        client = ollama.Client(server.url, timeout=TIMEOUT_S)
        for name, value, most in (("num_predict", 8, 7), ("num_ctx", 257, 256)):
            with pytest.raises(ollama.ResponseError, match=rf"options\.{name} is {value}, at most {most}"):
                chat(client, options={name: value})


def test_a_format_is_enforced(client):
    options = {"temperature": 0, "num_predict": 60}
    assert json.loads(chat(client, format=FLAG, options=options).message.content)["ok"] in {True, False}
    assert client.generate("tiny", QUESTION, format=FLAG, options=options).done_reason == "stop"
    assert chat(client, format="json").message.content.startswith("{")
    assert chat(client, format="").message.content == chat(client).message.content


def test_a_request_without_content_loads_the_model(client, http):
    for answer in (client.generate("tiny"), client.chat("tiny"), client.generate("tiny", keep_alive=0)):
        assert (answer.done, answer.done_reason, answer.eval_count) == (True, "load", None)
    with pytest.raises(ollama.ResponseError, match="does not exist"):
        client.generate("llama3")


def test_the_default_tag_is_left_out(client):
    assert chat(client, model="tiny:latest", keep_alive="5m").model == "tiny"


def test_tags_and_ps_list_the_models(client, tiny, tiny_server):
    (listed,) = client.list().models
    (loaded,) = client.ps().models
    assert listed.model == loaded.model == loaded.name == "tiny"
    assert listed.digest == loaded.digest == sha256(tiny.read_bytes()).hexdigest()
    assert listed.size == tiny.stat().st_size < loaded.size
    assert listed.modified_at.timestamp() == pytest.approx(tiny.stat().st_mtime, abs=1e-3)
    assert (loaded.size_vram, loaded.context_length) == (0, tiny_server.service.engine.context)
    assert loaded.expires_at.year == 9999
    assert listed.details == loaded.details
    assert (listed.details.family, listed.details.format) == ("llama", "gguf")


def test_show_describes_a_model(client, tiny, tiny_server, monkeypatch):
    with serve_engine(tiny_server.service.engine, name="tiny") as server, monkeypatch.context() as patch:
        patch.setattr(ollama_api, "file_sha256", None)  # it took seconds, for nothing
        shown = ollama.Client(server.url, timeout=TIMEOUT_S).show("tiny")
    assert shown.modified_at.timestamp() == pytest.approx(tiny.stat().st_mtime, abs=1e-3)
    weights = tiny_server.service.engine.model.header.weights
    assert shown.details.parameter_size == f"{weights / 1e6:.2f}M"
    assert shown.details.quantization_level == "unknown"
    assert shown.modelinfo["llama.block_count"] == 2
    assert shown.modelinfo["general.parameter_count"] == weights
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert "<|im_start|>" in shown.template and shown.capabilities == ["completion", "thinking"]
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("llama3")
    assert caught.value.status_code == 404


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
    "messages[0]": {"role", "content", "thinking", "tool_calls", "tool_name"},
}
REFUSED = {*OllamaRequest.refused, "messages[0].images"}


def effect(http, path, body):
    """The fields that are ignored, or the field that is refused; None if all are honoured."""
    response = http.post(path, json=body)
    if response.status_code == 200:
        return response.headers.get("X-Thirteen-Ignored")
    assert response.status_code == 422 and response.json().keys() == {"error"}, response.text
    return response.json()["error"].partition(" is not supported")[0]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("path", "params"), [("/api/chat", types.ChatRequest), ("/api/generate", types.GenerateRequest)]
)
def test_every_field_of_the_client_is_honoured_or_named(tool_server, path, params, strict):
    limits = RequestLimits(strict=strict)
    with (
        serve_engine(tool_server.service.engine, name="tiny", limits=limits) as server,
        server.http() as http,
    ):
        check_fields(http, path, params, strict=strict)


def check_fields(http, path, params, *, strict):
    def expected(place, name):
        path = f"{place}.{name}" if place in {"options", "messages[0]"} else name
        if name in HONOURED[place]:
            return None
        return path if strict or path in REFUSED else name

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


def test_a_result_belongs_to_the_call_of_its_tool():
    """By the order alone it belonged to another call, or to one that was never answered."""
    calls = [{"function": {"name": name, "arguments": {}}} for name in "fgf"]
    results = [{"role": "tool", "content": name, "tool_name": name} for name in "gffx"]
    again = {"role": "assistant", "tool_calls": calls[:1]}
    messages = [{"role": "assistant", "tool_calls": calls}, *results[:2], {"role": "user", "content": "and?"}]
    body = {"model": "tiny", "messages": [*messages, again, *results[2:]]}
    answered = [message.tool_call_id for message in chat_messages(OllamaChatRequest.model_validate(body))]
    assert answered == [None, "call_0_1", "call_0_0", None, None, "call_4_0", "x"]


def test_empty_fields_that_clients_send_are_accepted(http):
    empty = {"suffix": "", "template": "", "raw": False, "context": [], "images": None, "think": False}
    empty |= {"logprobs": False, "top_logprobs": 0}
    body = {"model": "tiny", "prompt": "a", "stream": False, "options": {"num_predict": 1}} | empty
    assert http.post("/api/generate", json=body).status_code == 200
    assert effect(http, "/api/generate", body | {"raw": 1}) == "raw"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"format": 5}, 422, 'format must be "json" or a JSON schema'),
        ({"format": {"enum": []}}, 400, "schema"),
        ({"messages": [{"role": "robot", "content": "a"}]}, 422, "messages[0].role must be"),
        (
            {"tools": [{"type": "function", "function": {"name": "a"}}]},
            400,
            "tools: the model's chat template",
        ),
        ({"temperature": 1}, 422, "temperature is not supported: put it into options"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "the conversation is empty"),
        ({"messages": [{"role": "user", "content": "a" * 300}]}, 400, "the prompt has"),
        ({"model": "llama3"}, 404, "the model 'llama3' does not exist"),
        ({"model": ""}, 422, "model must have at least 1 character"),
    ],
)
def test_errors_have_ollamas_format(http, body, status, message):
    response = http.post("/api/chat", json={"model": "tiny", "messages": MESSAGES} | body)
    assert response.status_code == status
    assert response.json().keys() == {"error"} and response.json()["error"].startswith(message)
    assert http.post("/api/pull", json={"model": "tiny"}).json().keys() == {"error"}


def test_a_key_protects_every_route(tiny_server):
    with serve_engine(tiny_server.service.engine, name="tiny", keys=["right"]) as server:
        with server.http() as http:
            for path in ("/api/tags", "/api/ps", "/api/version", "/api/nothing"):
                assert http.get(path).status_code == 401 and http.get(path).json().keys() == {"error"}
            for path in ("/api/chat", "/api/generate", "/api/show"):
                assert http.post(path, json={"model": "tiny"}).status_code == 401
        headers = {"Authorization": "Bearer right"}
        assert chat(ollama.Client(server.url, headers=headers, timeout=TIMEOUT_S)).done


def test_a_stream_that_fails_ends_with_an_error(tiny_server, client):
    options = {"temperature": 0, "num_predict": 200}  # a sampled one may end before
    with pytest.raises(ollama.ResponseError, match="the server is shutting down"):
        for _ in chat(client, options=options, stream=True):
            tiny_server.service.abort_all()
