"""Every field that OpenAI's own client can send is honoured, or refused by its name.

The client's request types are the oracle: each of their fields is sent over HTTP.
"""

from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from thirteen.server.api.request_models import ChatRequest, CompletionRequest
from thirteen.server.api.responses_models import ResponseRequest

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
    **{"presence_penalty": 0, "frequency_penalty": 0, "logprobs": 1, "top_logprobs": 1, "echo": True},
    **{"max_completion_tokens": 1, "parallel_tool_calls": True, "tool_choice": "auto", "store": False},
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
def test_every_field_of_the_client_is_honoured_or_refused_by_name(tool_server, path):
    params, ours, base = APIS[path]
    with tool_server.http() as http:
        stored = http.post("/v1/responses", json=APIS["/v1/responses"][2]).json()["id"]
        values = {"previous_response_id": stored, **VALUES, **base}
        if path == "/v1/chat/completions":
            values["logprobs"] = True
        for name in get_type_hints(params):
            honoured = name in ours.model_fields
            needed = NEEDS.get(name, {}) if honoured else {}
            response = http.post(path, json=base | needed | {name: values[name] if honoured else "a"})
            if honoured:
                assert response.status_code == 200, (name, response.text)
            else:
                error = response.json()["error"]
                assert (response.status_code, error["param"]) == (422, name)
                assert error["code"] == "unsupported_parameter"
