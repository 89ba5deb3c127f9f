"""LiteLLM: OpenAI's and Ollama's API of one server behind its own function."""

import json
from functools import partial

import jsonschema
import openai
import pytest

from ..serving import TIMEOUT_S

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own, of pydantic

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
FLAG = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
PROVIDERS = ["openai", "ollama_chat"]


@pytest.fixture(scope="module")
def litellm():
    import litellm

    litellm.telemetry = False
    return litellm


def options(server, provider, model="tiny"):
    """Options of a completion; for Ollama, LiteLLM does not say by itself that the body is JSON."""
    where = {
        "openai": {"api_base": f"{server.url}/v1"},
        "ollama_chat": {"api_base": server.url, "extra_headers": {"Content-Type": "application/json"}},
    }
    return {
        "model": f"{provider}/{model}",
        **where[provider],
        "api_key": "unused",
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": 12,
        "timeout": TIMEOUT_S,
        "num_retries": 0,
    }


@pytest.fixture(params=PROVIDERS)
def provider(request):
    return request.param


@pytest.fixture
def complete(litellm, tiny_server, provider):
    """complete(…): LiteLLM's completion by one of the APIs."""
    return lambda **fields: litellm.completion(**options(tiny_server, provider) | fields)


@pytest.fixture(scope="module")
def expected(tiny_server):
    """What OpenAI's client gets for the same conversation."""
    with tiny_server.openai() as client:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=12, temperature=0)
    return answer.choices[0].message.content


def test_completion(complete, expected):
    answer = complete()
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (expected, "length")
    assert answer.usage.completion_tokens == 12


def test_stream(complete, expected, litellm):
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    whole = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    assert whole.choices[0].message.content == expected and whole.choices[0].finish_reason == "length"


def test_a_schema_is_enforced(complete):
    response_format = {"type": "json_schema", "json_schema": {"name": "flag", "schema": FLAG, "strict": True}}
    answer = complete(response_format=response_format, max_tokens=60)
    jsonschema.validate(json.loads(answer.choices[0].message.content), FLAG)


def test_text_completion(litellm, tiny_server):
    fields = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    with tiny_server.openai() as client:
        expected = client.completions.create(model="tiny", **fields).choices[0].text
    where = {"api_base": f"{tiny_server.url}/v1", "api_key": "unused"}
    answer = litellm.text_completion(model="text-completion-openai/tiny", **where, **fields)
    assert answer.choices[0].text == expected


def test_responses(litellm, tiny_server):
    """LiteLLM asks for at least 16 tokens."""
    fields = {"input": MESSAGES, "temperature": 0, "max_output_tokens": 16}
    with tiny_server.openai() as client:
        expected = client.responses.create(model="tiny", **fields).output_text
    where = {"api_base": f"{tiny_server.url}/v1", "api_key": "unused"}
    ask = partial(litellm.responses, model="openai/tiny", **fields)
    assert ask(**where).output[0].content[0].text == expected
    events = [event for event in ask(**where, stream=True) if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in events) == expected


@pytest.fixture
def ask(litellm, tool_server):
    """ask(…): LiteLLM's completion of a model that may call a function."""
    return partial(
        litellm.completion, **options(tool_server, "openai") | {"max_tokens": 100, "tools": [WEATHER]}
    )


def test_tools(ask, litellm, say):
    say(CALL)
    message = ask().choices[0].message
    chunks = ask(stream=True)
    streamed = litellm.stream_chunk_builder([*chunks], messages=MESSAGES).choices[0].message
    for one in (message, streamed):
        (call,) = one.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    say("It rains.")
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Rain"}
    assert ask(messages=[*MESSAGES, message, result]).choices[0].message.content == "It rains."


def test_an_unknown_model_is_an_error(litellm, tiny_server, provider):
    with pytest.raises(openai.APIError, match="the model 'unknown' does not exist"):
        litellm.completion(**options(tiny_server, provider, "unknown"))
