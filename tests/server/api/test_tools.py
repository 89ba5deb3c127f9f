"""Tools with OpenAI's own client: grammars of calls and their results, in both notations of a template."""

import json
from collections import defaultdict
from functools import partial

import jsonschema
import pytest

from ..serving import open_engine, serve_engine
from ..tool_model import CONTEXT, NOTATIONS, write_tool_model

pytestmark = pytest.mark.slow

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Forecast.", "parameters": PARAMETERS},
}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]
MESSAGES = [{"role": "user", "content": "Will it rain in Oslo?"}]
CALL = {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}


@pytest.fixture(scope="module", params=NOTATIONS)
def notation(request):
    return request.param


@pytest.fixture(scope="module")
def server(tmp_path_factory, write_tiny, notation):
    path = write_tool_model(write_tiny, tmp_path_factory.mktemp("tools") / "tiny.gguf", notation)
    with open_engine(path, context=CONTEXT) as engine, serve_engine(engine, name="tiny") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.openai() as client:
        yield client


def chat(client, messages=MESSAGES, **options):
    defaults = {"model": "tiny", "messages": messages, "tools": TOOLS, "temperature": 0, "max_tokens": 300}
    return client.chat.completions.create(**defaults | options)


def called(choice):
    """Names and arguments of the calls in an answer, which consists of them."""
    assert (choice.finish_reason, choice.message.content, choice.message.role) == (
        "tool_calls",
        None,
        "assistant",
    )
    assert len({call.id for call in choice.message.tool_calls}) == len(choice.message.tool_calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]


def accumulated(chunks):
    """The choices of a stream: text, calls by their index, and the reason why it ended."""
    texts, calls, reasons = defaultdict(str), defaultdict(dict), {}
    for chunk in chunks:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            assert call.id and call.type == "function"
            calls[choice.index][call.index] = (call.function.name, json.loads(call.function.arguments))
        reasons[choice.index] = choice.finish_reason
    return [(texts[n], [calls[n][at] for at in sorted(calls[n])], reasons[n]) for n in sorted(texts)]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_fits_its_schema(client, choice):
    """The weights are random: only the grammar makes calls of their tokens."""
    answer = chat(client, tool_choice=choice, n=4, temperature=1.5, seed=7)
    names = set()
    for one in answer.choices:
        ((name, arguments),) = called(one)
        names.add(name)
        jsonschema.validate(arguments, PARAMETERS if name == "weather" else {"maxProperties": 0})
    assert names <= ({"weather", "now"} if choice == "required" else {"weather"})
    stream = accumulated(chat(client, tool_choice=choice, n=4, temperature=1.5, seed=7, stream=True))
    assert stream == [("", called(one), "tool_calls") for one in answer.choices]


def test_an_answer_with_a_format_is_a_call_or_has_it(client, notation):
    """It was refused, and agents with tools and a structured result send it."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    format_ = {"type": "json_schema", "json_schema": {"name": "flag", "schema": schema, "strict": True}}
    strict = [WEATHER | {"function": WEATHER["function"] | {"strict": True}}]
    ask = partial(chat, client, response_format=format_, n=8, temperature=2, seed=7, tools=strict)
    choices = ask().choices
    for one in choices:
        if not one.message.tool_calls:
            jsonschema.validate(json.loads(one.message.content), schema)
    if notation == "tagged":  # else the random weights prefer one
        assert 0 < sum(bool(one.message.tool_calls) for one in choices) < 8
    assert all(called(one) for one in ask(tool_choice="required").choices)
    for one in ask(tool_choice="none").choices:
        jsonschema.validate(json.loads(one.message.content), schema)


@pytest.fixture(scope="module")
def call_text(notation):
    """A call as the model writes it."""
    return f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>" if notation == "tagged" else json.dumps(CALL)


def test_a_call_that_is_repeated_ends_the_answer(client, say, call_text):
    """The model went on for 32 calls, until its tokens were used up."""
    say("\n".join([call_text, call_text.replace("Oslo", "Rome"), *[call_text] * 7]))
    expected = [(CALL["name"], CALL["arguments"] | {"city": city}) for city in ("Oslo", "Rome")]
    answer = chat(client, max_tokens=900)
    assert called(answer.choices[0]) == expected
    assert answer.usage.completion_tokens <= 3 * len(call_text) + 3
