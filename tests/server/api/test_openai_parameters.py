"""Every field that OpenAI's own client can send is honoured, or refused by its name.

The client's request types are the oracle: each of their fields, at any depth, is sent over HTTP, with
each kind of value that it can have.
"""

import inspect
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import httpx
import pytest
from openai.resources import Models
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from pydantic import BaseModel
from thirteen.server.api.request_fields import EMPTY
from thirteen.server.api.request_models import ChatRequest, CompletionRequest
from thirteen.server.api.responses_models import ResponseRequest
from typing_extensions import is_typeddict

from ..serving import open_engine, serve_engine
from ..tool_model import CONTEXT, write_tool_model

PARAMS: dict[str, tuple[type, ...]] = {
    "/v1/chat/completions": (
        chat_create_params.CompletionCreateParamsStreaming,
        chat_create_params.CompletionCreateParamsNonStreaming,
    ),
    "/v1/completions": (
        completion_create_params.CompletionCreateParamsStreaming,
        completion_create_params.CompletionCreateParamsNonStreaming,
    ),
    "/v1/responses": (
        response_create_params.ResponseCreateParamsStreaming,
        response_create_params.ResponseCreateParamsNonStreaming,
    ),
}
BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponseRequest,
}
# Fields that other fields need.
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
}
TOOLS = {"tools": [{"type": "function", "function": {"name": "a"}}]}
TAKE_TOOLS = ("/v1/chat/completions",)
NEEDS: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "tool_choice": TOOLS,
    "parallel_tool_calls": TOOLS,
}
# Values within the ranges that the client's types do not tell.
VALUES: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "model": "tiny",
    "schema": {"type": "boolean"},
    "arguments": "{}",
    "annotations": [],
}
OURS_REQUIRED = {"content", "schema"}  # the client may leave them out; then they are named as missing
SCALARS: dict[Any, Any] = {str: "a", int: 1, float: 0.5, bool: True, object: "a", Any: "a", NoneType: None}

# What is honoured within the fields that are objects; everything else there is refused.
HONOURED = {
    "messages[0].content",
    "messages[0].content[0].text",
    "messages[0].content[0].type",
    "messages[0].role",
    "messages[0].tool_call_id",
    "messages[0].tool_calls",
    "messages[0].tool_calls[0].function",
    "messages[0].tool_calls[0].function.arguments",
    "messages[0].tool_calls[0].function.name",
    "messages[0].tool_calls[0].id",
    "messages[0].tool_calls[0].type",
    "response_format.json_schema",
    "response_format.json_schema.description",
    "response_format.json_schema.name",
    "response_format.json_schema.schema",
    "response_format.json_schema.strict",
    "response_format.type",
    "stream_options.include_usage",
    "tool_choice.function",
    "tool_choice.function.name",
    "tool_choice.type",
    "tools[0].function",
    "tools[0].function.description",
    "tools[0].function.name",
    "tools[0].function.parameters",
    "tools[0].function.strict",
    "tools[0].type",
    "input[0].content",
    "input[0].content[0].text",
    "input[0].content[0].type",
    "input[0].id",
    "input[0].role",
    "input[0].status",
    "input[0].type",
    "text.format",
    "text.format.description",
    "text.format.name",
    "text.format.schema",
    "text.format.strict",
    "text.format.type",
}
SCHEMAS = ("response_format.json_schema.schema.", "text.format.schema.", "tools[0].function.parameters.")


def samples(kind: Any, name: str = "") -> Iterator[Any]:
    """Values of a type: one for each member of a union, and each field of a typed dictionary by itself."""
    origin = get_origin(kind)
    if origin in {Required, NotRequired, Annotated}:
        yield from samples(get_args(kind)[0], name)
    elif origin in {Union, UnionType}:
        for member in get_args(kind):
            yield from samples(member, name)
    elif name in VALUES:
        yield VALUES[name]
    elif origin is Literal:
        yield from get_args(kind)
    elif is_typeddict(kind):
        yield from objects(kind)
    elif origin is dict or kind is dict:
        yield {"a": next(samples(get_args(kind)[1]))}
    elif get_args(kind):  # a list, sequence or iterable
        yield from ([item] for item in samples(get_args(kind)[0], name))
    else:
        yield SCALARS[kind]


def objects(kind: type, common: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Objects with the required fields of a typed dictionary and one other, in each of its values."""
    hints = get_type_hints(kind, include_extras=True)
    base = {
        name: next(samples(hint, name))
        for name, hint in hints.items()
        if get_origin(hint) is Required or name in OURS_REQUIRED
    }
    base |= common or {}
    for name, hint in hints.items():
        for value in samples(hint, name):
            yield base | {name: value}


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Paths of the fields in a body."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (field := f"{path}.{name}" if path else name)
            yield from paths(inner, field)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield f"{path}[{index}]"
            yield from paths(inner, f"{path}[{index}]")


def without_empty(value: Any) -> Any:
    """A body without the fields that are empty, which are ignored if they are unknown."""
    if isinstance(value, dict):
        return {name: without_empty(inner) for name, inner in value.items() if inner not in EMPTY}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value


def bodies(path: str) -> list[dict[str, Any]]:
    """Bodies that send each field of the client's parameters."""
    found = []
    hints = {name for params in PARAMS[path] for name in get_type_hints(params)}
    for params in PARAMS[path]:
        for body in objects(params, BASES[path] | {"model": "tiny"}):
            extra = [NEEDS[name] for name in NEEDS.keys() & body.keys()]
            needed = {name: value for more in extra for name, value in more.items() if name in hints}
            sent = needed | body
            if "tools" in sent and path not in TAKE_TOOLS:
                sent = body
            found.append(sent)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory, write_tiny):
    path = write_tool_model(write_tiny, tmp_path_factory.mktemp("tools") / "tiny.gguf", "tagged")
    with open_engine(path, context=CONTEXT) as engine, serve_engine(engine, name="tiny") as server:
        yield server


@pytest.mark.parametrize("path", BODIES)
def test_every_field_of_the_client_is_honoured_or_refused_by_name(server, path, monkeypatch):
    accepted: set[str] = set()
    refused: dict[str, str] = {}
    with server.http() as http:
        stored = http.post("/v1/responses", json=BASES["/v1/responses"]).json()
        monkeypatch.setitem(VALUES, "previous_response_id", stored["id"])
        for body in bodies(path):
            response = http.post(path, json=body)
            if response.status_code == 200:
                accepted |= set(paths(without_empty(body)))
            else:
                error = refusal(response)
                missing = error["message"].endswith(" is missing")
                assert missing or error["param"] in set(paths(body)), (body, error)
                refused[error["param"]] = error["code"]
    names = {name for params in PARAMS[path] for name in get_type_hints(params)}
    own = {field.alias or name for name, field in BODIES[path].model_fields.items()}
    assert {name for name in accepted if name in names} == names & own, "a field of ours was never accepted"
    assert {name for name, code in refused.items() if code == "unsupported_parameter" and name in names} == (
        names - own
    ), "a field that we do not have was not refused by its name"
    inner = {name for name in accepted if name not in names and not name.endswith("]")}
    assert {name for name in inner if not name.startswith(SCHEMAS)} == {
        name
        for name in HONOURED
        if name.partition(".")[0].partition("[")[0] in names & own
        and (path in TAKE_TOOLS or not name.startswith("tools"))
    }


def refusal(response: httpx.Response) -> dict[str, str]:
    """The error of a 4xx, which names a field in `param` and in its one line."""
    assert response.status_code in {400, 422}, response.text
    error: dict[str, str] = response.json()["error"]
    assert error["message"].startswith(error["param"]) and "\n" not in error["message"]
    return error


def test_the_walk_sends_every_parameter():
    for path, params in PARAMS.items():
        sent = {name for body in bodies(path) for name in body}
        assert sent == {name for kind in params for name in get_type_hints(kind)}
    chat = {field for body in bodies("/v1/chat/completions") for field in paths(body)}
    assert {"messages[0].tool_calls[0].function.arguments", "messages[0].content[0].image_url.detail"} <= chat


def test_models_are_requested_without_parameters():
    options = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    assert set(inspect.signature(Models.list).parameters) == options
    assert set(inspect.signature(Models.retrieve).parameters) == options | {"model"}
