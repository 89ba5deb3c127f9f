"""Every field that OpenAI's own client can send is honoured, named as ignored, or refused by its name.

The client's request types are the oracle: each of their fields is sent over HTTP.
"""

from functools import partial
from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.api.request_models import ChatRequest, CompletionRequest
from thirteen.server.api.responses_models import ResponseRequest

from ..serving import serve_engine

APIS: dict[str, tuple[Any, Any, dict[str, Any]]] = {  # the client's type, ours, and what a request needs
    "/v1/chat/completions": (
        chat_create_params.CompletionCreateParamsStreaming,
        ChatRequest,
        {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    ),
    "/v1/completions": (
        completion_create_params.CompletionCreateParamsStreaming,
        CompletionRequest,
        {"prompt": "a", "max_tokens": 1},
    ),
    "/v1/responses": (
        response_create_params.ResponseCreateParamsStreaming,
        ResponseRequest,
        {"input": "a", "max_output_tokens": 1},
    ),
}
TOOLS = {"tools": [{"type": "function", "function": {"name": "a"}}]}
VALUES: dict[str, Any] = {
    **{"model": "tiny", "n": 2, "seed": 1, "top_p": 0.5, "temperature": 0.5, "stop": "a", "stream": True},
    **{"presence_penalty": 0.5, "frequency_penalty": 1, "logprobs": 1, "top_logprobs": 1, "echo": True},
    **{"logit_bias": {"97": -100, "98": 5.5}},
    **{"max_completion_tokens": 1, "parallel_tool_calls": True, "tool_choice": "auto", "store": False},
    **{"reasoning_effort": "high", "reasoning": {"effort": "high", "summary": "auto"}},
    **{"response_format": {"type": "json_object"}, "stream_options": {"include_usage": True}, **TOOLS},
    **{"instructions": "a", "truncation": "disabled", "text": {"format": {"type": "text"}}},
}
NEEDS: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "tool_choice": TOOLS,
    "parallel_tool_calls": TOOLS,
}


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("strict", [False, True])
def test_every_field_of_the_client_is_honoured_or_ignored_or_refused_by_name(tool_server, path, strict):
    params, ours, base = APIS[path]
    limits = RequestLimits(strict=strict)
    with (
        serve_engine(tool_server.service.engine, name="tiny", limits=limits) as server,
        server.http() as http,
    ):
        stored = http.post("/v1/responses", json=APIS["/v1/responses"][2]).json()["id"]
        values = {"previous_response_id": stored, **VALUES, **base}
        if path == "/v1/chat/completions":
            values["logprobs"] = True
        if path == "/v1/responses":
            values["tools"] = [{"type": "function", "name": "a"}]
        for name in get_type_hints(params):
            honoured = name in ours.model_fields
            needed = NEEDS.get(name, {}) if honoured else {}
            if "tools" in needed:
                needed = {"tools": values["tools"]}
            response = http.post(path, json=base | needed | {name: values[name] if honoured else "a"})
            if honoured or not (strict or name in ours.refused):
                assert response.status_code == 200, (name, response.text)
                assert response.headers.get("X-Thirteen-Ignored") == (None if honoured else name)
            else:
                error = response.json()["error"]
                assert (response.status_code, error["param"]) == (422, name)
                assert error["code"] == "unsupported_parameter"
                assert error["message"].endswith(
                    f": {ours.refused[name]}" if name in ours.refused else "supported"
                )


def test_fields_without_effect_are_named_once_and_safely(tiny_server):
    """Their names come from outside: a header cannot hold all of them."""
    body = {"prompt": "a", "max_tokens": 9999, "user": "me", "a\r\nb": 1, "é": 1, "x" * 65: 1, "store": False}
    with tiny_server.http() as http:
        response = http.post("/v1/completions", json=body | {"stream_options": {"user": 1}, "stream": True})
    assert response.status_code == 200 and response.headers["X-Thirteen-Ignored"] in {
        "max_tokens, user",
        "user, max_tokens",
    }
    messages = [{"role": "user", "content": "a", "name": "b"}] * 40
    body = {"messages": messages, "max_tokens": 1, "stream": True, "stream_options": {"user": 1}}
    with tiny_server.http() as http:
        response = http.post("/v1/chat/completions", json=body)
    assert "user" in response.headers["X-Thirteen-Ignored"], "names that are repeated took all places"


def test_penalties_and_biases_reach_the_engine(tiny_server):
    with tiny_server.openai() as client:
        ask = partial(client.completions.create, model="tiny", prompt="a", max_tokens=12, temperature=0)
        texts = [
            ask().choices[0].text,
            ask(logit_bias={"98": 100}).choices[0].text,
            ask(extra_body={"repeat_penalty": 100.0}).choices[0].text,
            ask(frequency_penalty=2).choices[0].text,
            ask(presence_penalty=2).choices[0].text,
        ]
    assert texts[1] == "b" * 12 and texts[0] not in texts[1:3]
