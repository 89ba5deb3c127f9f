"""What each API has of its own, with the official clients of OpenAI and Ollama."""

import json
import math
from datetime import UTC, datetime

import jsonschema
import ollama
import pydantic
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.responses import Response

from ..serving import FLAG, TIMEOUT_S, open_engine, serve_engine
from ..tool_model import NOTATIONS, tool_template

pytestmark = pytest.mark.slow

QUESTION = "Name a colour."
MESSAGES = [{"role": "user", "content": QUESTION}]
TEXT = "Zwölf Boxkämpfer jagen Viktor"
BOS = 256
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
WRITTEN = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"


def chat(client, **options):
    body = {"model": "default", "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    return client.chat.completions.create(**body | options)


def complete(client, prompt=TEXT, **options):
    body = {"model": "tiny", "prompt": prompt, "echo": True, "max_tokens": 1, "temperature": 0}
    return client.completions.create(**body | options)


def respond(client, content=QUESTION, **options):
    body = {"model": "tiny", "input": content, "max_output_tokens": 12, "temperature": 0}
    return client.responses.create(**body | options)


def test_a_stream_has_the_clients_fields_and_comes_token_by_token(smollm2_server):
    chunks = list(chat(smollm2_server.openai(), stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert [choice.delta.role for choice in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert len([choice for choice in deltas if choice.finish_reason]) == 1 and len(deltas) > 5
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_answers_differ_and_a_seed_reproduces_them(tiny_client):
    def answers(**options):
        response = chat(tiny_client, n=3, temperature=1.0, **options)
        assert [choice.index for choice in response.choices] == [0, 1, 2]
        return [choice.message.content for choice in response.choices], response.usage

    (texts, usage), (again, _), single = answers(seed=5), answers(seed=5), chat(tiny_client).usage
    assert texts == again and len(set(texts)) > 1
    assert usage.completion_tokens > single.completion_tokens and usage.prompt_tokens == single.prompt_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answers()[0] != texts, "the default seed is random"


def test_logprobs(smollm2_server):
    (choice,) = chat(smollm2_server.openai(), logprobs=True, top_logprobs=3, max_tokens=6).choices
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    for token in tokens:
        logprobs = [top.logprob for top in token.top_logprobs]
        assert token.top_logprobs[0].token == token.token, "greedy sampling takes the most likely token"
        assert logprobs == sorted(logprobs, reverse=True) and 0 < sum(map(math.exp, logprobs)) <= 1.000001


FORECAST = FLAG | {"properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Forecast.", "parameters": FORECAST}
CHAT_TOOLS = [{"type": "function", "function": function} for function in (WEATHER, {"name": "now"})]
FLAG_FORMAT = {"type": "json_schema", "json_schema": {"name": "flag", "schema": FLAG, "strict": True}}


@pytest.fixture(scope="module", params=NOTATIONS)
def notation(request):
    return request.param


@pytest.fixture(scope="module")
def notation_client(serve_template, notation):
    return serve_template(tool_template(notation)).openai()


def called(choice, content=None):
    """Names and arguments of the calls in an answer, which consists of them."""
    message = choice.message
    assert (choice.finish_reason, message.content, message.role) == ("tool_calls", content, "assistant")
    calls = message.tool_calls
    assert len({call.id for call in calls}) == len(calls)
    assert all(call.id and call.type == "function" for call in calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_fits_its_schema(notation_client, choice):
    """The weights are random: only the grammar makes calls of their tokens."""
    asked = {"tools": CHAT_TOOLS, "tool_choice": choice, "max_tokens": 300}
    asked |= {"n": 4, "temperature": 1.5, "seed": 7}
    answers = [called(one) for one in chat(notation_client, **asked).choices]
    for ((name, arguments),) in answers:
        assert name in ({"weather", "now"} if choice == "required" else {"weather"})
        jsonschema.validate(arguments, FORECAST if name == "weather" else {"maxProperties": 0})
    state = ChatCompletionStreamState()
    for chunk in chat(notation_client, **asked, stream=True):
        state.handle_chunk(chunk)
    assert [called(one, "") for one in state.get_final_completion().choices] == answers


def test_an_answer_with_a_format_is_a_call_or_has_it(notation_client, notation):
    """It was refused, and agents with tools and a structured result send it."""

    def ask(choice):
        options = {"tool_choice": choice, "n": 8, "temperature": 2, "seed": 7, "max_tokens": 300}
        return chat(notation_client, response_format=FLAG_FORMAT, tools=strict, **options).choices

    strict = [{"type": "function", "function": WEATHER | {"strict": True}}]
    choices = ask("auto")
    for one in [*(one for one in choices if not one.message.tool_calls), *ask("none")]:
        jsonschema.validate(json.loads(one.message.content), FLAG)
    if notation == "tagged":  # else the random weights prefer one
        assert 0 < sum(bool(one.message.tool_calls) for one in choices) < 8
    assert all(called(one) for one in ask("required"))


def test_a_call_that_is_repeated_ends_the_answer(notation_client, say, notation):
    """The model went on for 32 calls, until its tokens were used up."""
    cities = [CALL["arguments"] | {"city": city} for city in ("Oslo", "Rome")]
    oslo, rome = (json.dumps(CALL | {"arguments": given}).join(NOTATIONS[notation]) for given in cities)
    say("\n".join([oslo, rome, *[oslo] * 7]))
    answer = chat(notation_client, tools=CHAT_TOOLS, max_tokens=900)
    assert called(answer.choices[0]) == [("weather", given) for given in cities]
    assert answer.usage.completion_tokens <= 3 * len(oslo) + 3


def test_penalties_and_biases_reach_the_engine(tiny_client):
    def text(**options):
        return complete(tiny_client, "a", echo=False, max_tokens=12, **options).choices[0].text

    assert text(logit_bias={"98": 100}) == "b" * 12
    assert text() not in {text(frequency_penalty=2), text(extra_body={"repeat_penalty": 100.0})}


def test_the_prompt_is_echoed_with_its_log_probabilities(tiny_client, tiny_server):
    engine = tiny_server.service.engine
    scored = engine.prompt_logprobs(tokens := engine.encode_text(TEXT), 5)
    answer = complete(tiny_client, logprobs=5)
    (choice,) = answer.choices
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(tokens), 1)
    first, *logprobs, _ = choice.logprobs.token_logprobs
    assert first is None and choice.logprobs.top_logprobs[0] is None
    assert logprobs == pytest.approx([entry.logprob for entry in scored], abs=1e-3)
    # Several of the likeliest may be parts of characters, which have the same text.
    greedy = [max(top.values()) for top in choice.logprobs.top_logprobs[1:-1]]
    assert greedy == pytest.approx([entry.top[0][1] for entry in scored], abs=1e-3)


def test_an_echo_has_a_log_probability_behind_the_prompt_even_if_the_model_ends_at_once(ending):
    """lm-evaluation-harness drops the last one, which must not be the prompt's."""
    with open_engine(ending, context=256) as engine, serve_engine(engine, name="tiny") as server:
        (choice,) = complete(server.openai(), [97, 98], logprobs=1).choices
        with server.openai().responses.stream(model="tiny", input=QUESTION) as stream:
            response = stream.get_final_response()
    assert (choice.text, len(choice.logprobs.token_logprobs)) == ("ab", 3)
    assert (response.status, response.output_text, response.incomplete_details) == ("completed", "", None)


def test_tokens_are_taken_as_they_are(tiny_client):
    answer = complete(tiny_client, [*b"ab", BOS, *b"c"], logprobs=0)
    assert answer.choices[0].text.startswith("abc") and answer.usage.prompt_tokens == 4
    several = complete(tiny_client, [[97], [98, 99]], n=2)
    starts = ("a", "a", "bc", "bc")
    assert all(choice.text.startswith(text) for choice, text in zip(several.choices, starts, strict=True))


def test_the_completion_follows_the_prompt(tiny_client):
    options = {"max_tokens": 5, "logprobs": 1}
    alone, whole = (complete(tiny_client, echo=echo, **options).choices[0] for echo in (False, True))
    assert (whole.text, whole.finish_reason) == (TEXT + alone.text, alone.finish_reason)
    assert whole.logprobs.tokens[-5:] == alone.logprobs.tokens
    assert whole.logprobs.token_logprobs[-5:] == pytest.approx(alone.logprobs.token_logprobs, abs=1e-3)
    chunks = [chunk.choices[0] for chunk in complete(tiny_client, stream=True, **options)]
    assert "".join(choice.text for choice in chunks) == whole.text
    streamed = [value for choice in chunks if choice.logprobs for value in choice.logprobs.token_logprobs]
    assert streamed == pytest.approx(whole.logprobs.token_logprobs, abs=1e-3)


def test_a_response_has_every_field_that_the_client_expects(tiny_client):
    """The client's own model is strict here; we do not know how many tokens are written to the cache."""
    response = respond(tiny_client, extra_body={"store": True})
    assert response.store is False and response.previous_response_id is None
    with pytest.raises(pydantic.ValidationError) as caught:
        Response.model_validate(response.to_dict(), strict=True)
    assert [error["loc"] for error in caught.value.errors()] == [
        ("usage", "input_tokens_details", "cache_write_tokens")
    ]


def test_instructions_are_a_system_message(tiny_client):
    """A message of a developer is one too, and a text may come in parts."""
    expected = chat(tiny_client, messages=[{"role": "system", "content": "Be brief."}, *MESSAGES])
    parts = [{"type": "input_text", "text": text} for text in (QUESTION[:4], QUESTION[4:])]
    asked = {"type": "message", "role": "user", "content": parts}
    for found in (
        respond(tiny_client, [asked], instructions="Be brief."),
        respond(tiny_client, [{"role": "developer", "content": "Be brief."}, asked]),
    ):
        assert found.output_text == expected.choices[0].message.content
        assert found.usage.total_tokens == found.usage.input_tokens + 12


EVENTS = ["created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"]
EVENTS += ["output_text.done", "content_part.done", "output_item.done", "incomplete"]


def test_events_of_a_response(tiny_client):
    whole, events = respond(tiny_client), list(respond(tiny_client, stream=True))
    names = [event.type.removeprefix("response.") for event in events]
    assert list(dict.fromkeys(names)) == EVENTS and names == sorted(names, key=EVENTS.index)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    first, last, done = events[0].response, events[-1].response, dict(zip(names, events, strict=True))
    assert whole.output_text == last.output_text == done["output_text.done"].text
    assert (first.status, first.output, first.usage, first.id) == ("in_progress", [], None, last.id)
    assert last.usage.output_tokens == 12
    assert done["content_part.done"].part == last.output[0].content[0]
    assert done["output_item.done"].item == last.output[0]
    assert done["output_item.added"].item.id == last.output[0].id


def test_a_call_and_its_events(tool_server, say):
    say(f"Let me see.\n{WRITTEN}")
    with tool_server.openai().responses.stream(model="tiny", input=QUESTION, tools=TOOLS) as stream:
        (done,) = [one for one in stream if one.type == "response.function_call_arguments.done"]
        response = stream.get_final_response()
    assert (done.output_index, json.loads(done.arguments)) == (1, CALL["arguments"])
    assert (response.tools[0].name, response.tool_choice) == ("weather", "auto")
    text, call = response.output
    assert (text.content[0].text, call.name, json.loads(call.arguments)) == ("Let me see.", *CALL.values())
    say(WRITTEN)
    names = [
        event.type for event in respond(tool_server.openai(), tools=TOOLS, max_output_tokens=300, stream=True)
    ]
    assert not any("output_text" in name for name in names) and names[-1] == "response.completed"


def test_reasoning_is_an_item_of_its_own(tool_server, say):
    """A response can be sent back with it."""
    say("The answer is 5.")
    question = "How much is 2 + 3?"
    asked = {"model": "tiny", "input": question, "reasoning": {"effort": "medium", "summary": "auto"}}
    client = tool_server.openai()
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        kinds = [event.type.removeprefix("response.") for event in stream]
        streamed = stream.get_final_response()
    sent_back = [*whole.output, {"role": "user", "content": question}]
    for found in (whole, streamed, client.responses.create(**asked | {"input": sent_back})):
        reasoning, message = found.output
        assert reasoning.summary[0].text.endswith("2 of 2 agree on 5\n") and reasoning.id != message.id
        assert (message.content[0].text, found.reasoning.effort) == ("The answer is 5.", "medium")
    summary = [f"reasoning_summary_{name}" for name in ("part.added", "text.delta", "text.done", "part.done")]
    assert list(dict.fromkeys(kinds))[2:8] == ["output_item.added", *summary, "output_item.done"]


@pytest.fixture(scope="module")
def ollama_client(tiny_server):
    return ollama.Client(tiny_server.url, timeout=TIMEOUT_S)


def test_ollamas_options_and_durations_in_nanoseconds(ollama_client):
    def ask(given=None, **options):
        given = {"temperature": 0, "num_predict": 12} | (given or {})
        return ollama_client.chat("tiny", MESSAGES, options=given, **options)

    answer = ask()
    assert answer.prompt_eval_duration > 0 and 0 < answer.eval_duration < answer.total_duration
    assert answer.total_duration < TIMEOUT_S * 10**9 and answer.load_duration == 0
    assert answer.prompt_eval_count > len(QUESTION), "a token is a byte here"
    made = datetime.fromisoformat(answer.created_at)
    assert 0 <= (datetime.now(UTC) - made).total_seconds() < TIMEOUT_S
    assert ask({"num_predict": -1}).eval_count > 12
    assert ask(format="json").message.content.startswith("{")
    assert ask(format="").message.content == answer.message.content


def test_a_request_to_ollamas_api_without_content_loads_the_model(ollama_client):
    for answer in (ollama_client.chat("tiny"), ollama_client.generate("tiny", keep_alive=0)):
        found = (answer.model, answer.done, answer.done_reason, answer.eval_count)
        assert found == ("tiny", True, "load", None)
    assert ollama_client.chat("tiny:latest", MESSAGES, keep_alive="5m").model == "tiny"


def test_ollamas_api_lists_and_describes_the_model(ollama_client, tiny, tiny_server):
    (listed,), shown = ollama_client.list().models, ollama_client.show("tiny")
    assert (listed.model, listed.size, len(listed.digest)) == ("tiny", tiny.stat().st_size, 64)
    assert listed.modified_at.timestamp() == pytest.approx(tiny.stat().st_mtime, abs=1e-3)
    for found in (listed, shown):
        assert (found.details.family, found.details.format) == ("llama", "gguf")
    weights = tiny_server.service.engine.model.header.weights
    assert shown.details.parameter_size == f"{weights / 1e6:.2f}M"
    assert shown.modelinfo["llama.block_count"] == 2
    assert shown.modelinfo["general.parameter_count"] == weights
    assert "<|im_start|>" in shown.template and shown.capabilities == ["completion"]
