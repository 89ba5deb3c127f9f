"""/v1/responses with OpenAI's own client: events, and conversations that are sent back."""

import json

import openai
import pydantic
import pytest
from openai.types.responses import Response

from ..serving import open_engine, serve_engine

QUESTION = "Name a colour."
EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.incomplete",
]
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
WRITTEN = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"


class Flag(pydantic.BaseModel):
    ok: bool


def respond(client, content=QUESTION, **options):
    body = {"model": "tiny", "input": content, "max_output_tokens": 12, "temperature": 0}
    return client.responses.create(**body | options)


def test_a_response_has_every_field_that_the_client_expects(tiny_client):
    """The client's own model is strict here; we do not know how many tokens are written to the cache."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Response.model_validate(respond(tiny_client).to_dict(), strict=True)
    assert [error["loc"] for error in caught.value.errors()] == [
        ("usage", "input_tokens_details", "cache_write_tokens")
    ]


def test_input_is_a_conversation(tiny_client):
    said = [("Be brief.", "system"), ("Hi", "user"), ("Hello", "assistant"), (QUESTION, "user")]
    messages = [{"role": role, "content": content} for content, role in said]
    chat = tiny_client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0)
    parts = [{"type": "input_text", "text": text} for text in (QUESTION[:4], QUESTION[4:])]
    messages[-1] = {"type": "message", "role": "user", "content": parts}
    for found in (
        respond(tiny_client, messages[1:], instructions="Be brief."),
        respond(tiny_client, [{"role": "developer", "content": "Be brief."}, *messages[1:]]),
    ):
        assert found.output_text == chat.choices[0].message.content
        assert found.usage.total_tokens == found.usage.input_tokens + 12


def test_events(tiny_client):
    whole, events = respond(tiny_client), list(respond(tiny_client, stream=True))
    names = [event.type for event in events]
    assert list(dict.fromkeys(names)) == EVENTS and names == sorted(names, key=EVENTS.index)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    first, last = events[0].response, events[-1].response
    assert "".join(deltas) == whole.output_text == last.output_text
    assert (first.status, first.output, first.usage, first.id) == ("in_progress", [], None, last.id)
    assert last.usage.output_tokens == 12
    done = {event.type: event for event in events}
    assert done["response.output_text.done"].text == whole.output_text
    assert done["response.content_part.done"].part == last.output[0].content[0]
    assert done["response.output_item.done"].item == last.output[0]
    assert done["response.output_item.added"].item.id == last.output[0].id


def test_an_answer_without_text_in_the_clients_own_accumulation(ending):
    with (
        open_engine(ending, context=256) as engine,
        serve_engine(engine, name="tiny") as server,
        server.openai() as client,
        client.responses.stream(model="tiny", input=QUESTION) as stream,
    ):
        response = stream.get_final_response()
    assert (response.status, response.output_text) == ("completed", "")
    assert response.incomplete_details is None


def test_a_schema_is_parsed_by_the_client(tiny_client):
    asked = {"input": QUESTION, "text_format": Flag, "max_output_tokens": 60, "temperature": 0}
    response = tiny_client.responses.parse(model="tiny", **asked)
    assert response.output_parsed.ok in {True, False} and response.text.format.name == "Flag"


def test_nothing_is_stored(tiny_client):
    """Clients that go on from a stored response get one clear line."""
    response = respond(tiny_client, extra_body={"store": True})
    assert response.store is False and response.previous_response_id is None
    with pytest.raises(openai.BadRequestError, match="send the whole conversation as input") as caught:
        respond(tiny_client, "Why?", previous_response_id=response.id)
    assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        tiny_client.responses.retrieve(response.id)


def test_a_call_and_its_events(tool_client, say):
    say(f"Let me see.\n{WRITTEN}")
    with tool_client.responses.stream(model="tiny", input=QUESTION, tools=TOOLS) as stream:
        (done,) = [one for one in stream if one.type == "response.function_call_arguments.done"]
        response = stream.get_final_response()
    assert (done.output_index, json.loads(done.arguments)) == (1, CALL["arguments"])
    assert (response.tools[0].name, response.tool_choice) == ("weather", "auto")
    text, call = response.output
    assert (text.content[0].text, call.name, json.loads(call.arguments)) == ("Let me see.", *CALL.values())
    say(WRITTEN)
    names = [event.type for event in respond(tool_client, tools=TOOLS, max_output_tokens=300, stream=True)]
    assert not any("output_text" in name for name in names) and names[-1] == "response.completed"


def test_reasoning_is_an_item_of_its_own(tool_client, say):
    """A response can be sent back with it."""
    say("The answer is 5.")
    question = "How much is 2 + 3?"
    asked = {"model": "tiny", "input": question, "reasoning": {"effort": "medium", "summary": "auto"}}
    whole = tool_client.responses.create(**asked)
    with tool_client.responses.stream(**asked) as stream:
        kinds = [event.type.removeprefix("response.") for event in stream]
        streamed = stream.get_final_response()
    sent_back = [*whole.output, {"role": "user", "content": question}]
    for found in (whole, streamed, tool_client.responses.create(**asked | {"input": sent_back})):
        reasoning, message = found.output
        assert reasoning.summary[0].text.endswith("2 of 2 agree on 5\n") and reasoning.id != message.id
        assert (message.content[0].text, found.reasoning.effort) == ("The answer is 5.", "medium")
    summary = [f"reasoning_summary_{name}" for name in ("part.added", "text.delta", "text.done", "part.done")]
    assert list(dict.fromkeys(kinds))[2:8] == ["output_item.added", *summary, "output_item.done"]
