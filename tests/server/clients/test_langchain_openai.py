"""LangChain's ChatOpenAI: answers, streams, schemas, tools and the Responses API."""

import asyncio
from functools import reduce
from operator import add
from typing import Literal

import jsonschema
import pytest
from pydantic import BaseModel

from ..serving import TIMEOUT_S

SAID = [("system", "Be brief."), ("human", "Hi"), ("ai", "Hello"), ("human", "Name a colour.")]
FLAG = {
    "title": "flag",
    "description": "A flag.",
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


class Weather(BaseModel):
    """A forecast."""

    city: Literal["Oslo", "Rome"]
    rain: bool


def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return f"Rain in {city}"


@pytest.fixture(scope="module")
def chat_model():
    """chat_model(server, …): LangChain's model of a server."""
    from langchain_openai import ChatOpenAI

    def make(server, **options):
        defaults = {"temperature": 0, "max_tokens": 12, "max_retries": 0, "timeout": TIMEOUT_S}
        return ChatOpenAI(model="tiny", base_url=f"{server.url}/v1", api_key="unused", **defaults | options)

    return make


@pytest.fixture(scope="module")
def expected(tiny_server):
    """What OpenAI's client gets for the same conversation."""
    roles = {"human": "user", "ai": "assistant"}
    messages = [{"role": roles.get(role, role), "content": text} for role, text in SAID]
    with tiny_server.openai() as client:
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0)
    return answer.choices[0].message.content


@pytest.fixture(scope="module")
def event_loop_runner():
    """LangChain keeps its connections, which belong to an event loop, for all models."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("responses", [False, True])
def test_invoke(chat_model, tiny_server, expected, responses, event_loop_runner):
    model = chat_model(tiny_server, use_responses_api=responses)
    answer = model.invoke(SAID)
    assert answer.text == expected and answer.usage_metadata["output_tokens"] == 12
    assert event_loop_runner.run(model.ainvoke(SAID)).text == expected
    assert [one.text for one in model.batch([SAID, SAID])] == [expected] * 2


@pytest.mark.parametrize("responses", [False, True])
def test_stream(chat_model, tiny_server, expected, responses):
    model = chat_model(tiny_server, use_responses_api=responses, stream_usage=True)
    chunks = list(model.stream(SAID))
    whole = reduce(add, chunks)
    assert len(chunks) > 2 and whole.text == expected
    assert whole.usage_metadata["output_tokens"] == 12


def test_parameters_reach_the_server(chat_model, tiny_server, expected):
    model = chat_model(tiny_server, stop=[expected[3:6]], seed=1, top_p=0.5, logprobs=True, top_logprobs=2)
    answer = model.invoke(SAID)
    assert expected.startswith(answer.text) and len(answer.text) <= 3
    assert answer.response_metadata["finish_reason"] == "stop"
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_structured_output(chat_model, tiny_server, responses, streamed):
    model = chat_model(tiny_server, max_tokens=60, use_responses_api=responses)
    for schema, check in (
        (FLAG, lambda value: jsonschema.validate(value, FLAG)),
        (Weather, Weather.model_validate),
    ):
        structured = model.with_structured_output(schema, method="json_schema")
        check(list(structured.stream(SAID))[-1] if streamed else structured.invoke(SAID))
    raw = model.with_structured_output(Weather, include_raw=True).invoke(SAID)
    assert raw["parsing_error"] is None and raw["parsed"] == Weather.model_validate_json(raw["raw"].text)


def test_structured_output_by_a_function(chat_model, tool_server):
    model = chat_model(tool_server, max_tokens=100).with_structured_output(Weather, method="function_calling")
    assert Weather.model_validate(model.invoke(SAID))


@pytest.mark.parametrize("choice", ["any", "required", "weather", True])
def test_a_required_call(chat_model, tool_server, choice):
    """The weights are random: only the grammar makes a call."""
    model = chat_model(tool_server, max_tokens=100).bind_tools([weather], tool_choice=choice)
    (call,) = model.invoke(SAID).tool_calls
    assert call["name"] == "weather" and call["args"]["city"] in {"Oslo", "Rome"}


@pytest.mark.parametrize("streamed", [False, True])
def test_bind_tools(chat_model, tool_server, say, streamed):
    from langchain_core.messages import HumanMessage, ToolMessage

    model = chat_model(tool_server, max_tokens=100).bind_tools([weather], parallel_tool_calls=True)
    say(f"Let me see.\n{CALL}", "It rains.")
    said = [HumanMessage("Will it rain?")]
    answer = reduce(add, model.stream(said)) if streamed else model.invoke(said)
    (call,) = answer.tool_calls
    assert (answer.text, call["name"], call["args"]) == ("Let me see.", "weather", {"city": "Oslo"})
    result = ToolMessage(weather(**call["args"]), tool_call_id=call["id"])
    assert model.invoke([*said, answer, result]).text == "It rains."


def test_a_conversation_in_responses(chat_model, tiny_server):
    """Whole messages of the server are sent back, or named by the id of the response."""
    from langchain_core.messages import HumanMessage

    texts = []
    for options in ({}, {"use_previous_response_id": True}, {"output_version": "responses/v1"}):
        model = chat_model(tiny_server, use_responses_api=True, **options)
        said = [HumanMessage("Name a colour.")]
        said += [model.invoke(said), HumanMessage("Another?")]
        texts.append(model.invoke(said).text)
    assert texts[0] and len({*texts}) == 1


def test_errors_name_the_field(chat_model, tiny_server):
    import openai

    with pytest.raises(openai.UnprocessableEntityError, match="logit_bias is not supported"):
        chat_model(tiny_server, logit_bias={"1": 1}).invoke(SAID)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        chat_model(tiny_server).invoke(SAID, model="unknown")
