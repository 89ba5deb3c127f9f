"""/v1/responses with OpenAI's own client: answers, events, stored conversations, and who may read them."""

from contextlib import ExitStack

import openai
import pydantic
import pytest
from openai.types.responses import Response

from ..serving import halted, open_engine, serve_engine

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


class Flag(pydantic.BaseModel):
    ok: bool


@pytest.fixture(scope="module")
def client(tiny_server):
    with tiny_server.openai() as client:
        yield client


def respond(client, content=QUESTION, **options):
    body = {"model": "tiny", "input": content, "max_output_tokens": 12, "temperature": 0}
    return client.responses.create(**body | options)


def chat(client, *messages):
    """What the chat endpoint answers to the same conversation."""
    pairs = [{"role": role, "content": content} for role, content in messages]
    answer = client.chat.completions.create(model="tiny", messages=pairs, max_tokens=12, temperature=0)
    return answer.choices[0].message.content


def test_a_response_has_the_text_of_the_chat_endpoint(client):
    response = respond(client)
    assert response.output_text == chat(client, ("user", QUESTION))
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output[0].status == "incomplete"
    assert response.usage.output_tokens == 12
    assert response.usage.total_tokens == response.usage.input_tokens + 12


def test_a_response_has_every_field_that_the_client_expects(client):
    """The client's own model is strict here; we do not know how many tokens are written to the cache."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Response.model_validate(respond(client).to_dict(), strict=True)
    assert [error["loc"] for error in caught.value.errors()] == [
        ("usage", "input_tokens_details", "cache_write_tokens")
    ]


def test_input_is_a_conversation(client):
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", QUESTION)]
    first, *others = said
    part = {"type": "input_text", "text": QUESTION[:4]}, {"type": "input_text", "text": QUESTION[4:]}
    messages = [{"role": role, "content": content} for role, content in others[:-1]]
    last = {"type": "message", "role": "user", "content": part}
    expected = chat(client, *said)
    assert respond(client, [*messages, last], instructions=first[1]).output_text == expected
    developer = {"role": "developer", "content": first[1]}
    assert respond(client, [developer, *messages, last]).output_text == expected


def test_an_answer_can_be_sent_back(client):
    first = respond(client)
    user = {"role": "user", "content": QUESTION}
    again = respond(client, [user, *first.output, user])
    said = ("user", QUESTION), ("assistant", first.output_text), ("user", QUESTION)
    assert again.output_text == chat(client, *said)


def test_events(client):
    whole = respond(client)
    events = list(respond(client, stream=True))
    names = [event.type for event in events]
    assert list(dict.fromkeys(names)) == EVENTS
    assert names == sorted(names, key=EVENTS.index)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    first, last = events[0].response, events[-1].response
    assert (first.status, first.output, first.usage) == ("in_progress", [], None)
    assert (last.id, last.output_text) == (first.id, whole.output_text)
    assert last.usage.output_tokens == 12
    done = {event.type: event for event in events}
    assert done["response.output_text.done"].text == whole.output_text
    assert done["response.content_part.done"].part == last.output[0].content[0]
    assert done["response.output_item.done"].item == last.output[0]
    assert done["response.output_item.added"].item.id == last.output[0].id


def test_the_clients_own_accumulation_of_a_stream(ending):
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(ending, context=256))
        client = stack.enter_context(stack.enter_context(serve_engine(engine, name="tiny")).openai())
        with client.responses.stream(model="tiny", input=QUESTION) as stream:
            response = stream.get_final_response()
        assert (response.status, response.output_text) == ("completed", "")
        assert response.incomplete_details is None


def test_a_schema_is_enforced_and_parsed(client):
    response = client.responses.parse(
        model="tiny", input=QUESTION, text_format=Flag, max_output_tokens=60, temperature=0
    )
    assert response.output_parsed.ok in {True, False} and response.status == "completed"
    assert response.text.format.name == "Flag"
    with client.responses.stream(
        model="tiny", input=QUESTION, text_format=Flag, max_output_tokens=60, temperature=0
    ) as stream:
        assert stream.get_final_response().output_parsed == response.output_parsed


def test_a_stored_response_is_continued(client):
    first = respond(client, instructions="Be brief.")
    second = respond(client, "Why?", previous_response_id=first.id)
    said = ("user", QUESTION), ("assistant", first.output_text), ("user", "Why?")
    assert second.output_text == chat(client, *said), "instructions are not carried over"
    assert second.previous_response_id == first.id
    streamed = list(respond(client, "And?", previous_response_id=second.id, stream=True))[-1].response
    said = (*said, ("assistant", second.output_text), ("user", "And?"))
    assert streamed.output_text == chat(client, *said)
    assert client.responses.retrieve(streamed.id) == streamed


def test_a_response_is_retrieved_until_it_is_deleted(client):
    response = respond(client)
    assert client.responses.retrieve(response.id) == response
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, previous_response_id=response.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_response_is_not_stored_against_the_clients_will(client):
    for stream in (False, True):
        response = respond(client, store=False, stream=stream)
        response = list(response)[-1].response if stream else response
        assert response.store is False
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)


def test_a_key_cannot_reach_another_keys_response(tiny_server):
    with serve_engine(tiny_server.service.engine, name="tiny", keys=["ours", "theirs"]) as server:
        with server.openai("ours") as ours, server.openai("theirs") as theirs:
            response = respond(ours)
            with pytest.raises(openai.NotFoundError):
                theirs.responses.retrieve(response.id)
            with pytest.raises(openai.NotFoundError):
                theirs.responses.delete(response.id)
            with pytest.raises(openai.BadRequestError):
                respond(theirs, previous_response_id=response.id)
            assert ours.responses.retrieve(response.id) == response
        with server.http() as http:
            for method in ("GET", "DELETE"):
                assert http.request(method, f"/v1/responses/{response.id}").status_code == 401


def test_a_query_is_refused_by_name(client):
    response = respond(client)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        list(client.responses.retrieve(response.id, stream=True))
    assert (caught.value.param, caught.value.code) == ("stream", "unsupported_parameter")


def test_a_stream_that_fails_says_so_in_its_last_event(tiny_server, client):
    with halted(running=1):
        events = iter(respond(client, "Tell a long story.", stream=True))
        next(events)
        tiny_server.service.abort_all()
        *_, last = events
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.message == "the server is shutting down"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(last.response.id)
