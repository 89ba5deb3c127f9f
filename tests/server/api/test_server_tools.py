"""The calculator as a tool that the server runs, with OpenAI's client: rounds, bounds, errors and aborts."""

import json
import socket
from contextlib import ExitStack
from threading import Event
from time import sleep

import jsonschema
import openai
import pytest
from thirteen.runtime.arithmetic.calculator_tool import DESCRIPTION, PARAMETERS
from thirteen.runtime.request import Request
from thirteen.server.endpoints.tool_rounds import ROUNDS_MAX

from ..serving import TIMEOUT_S, open_engine, serve_engine
from ..tool_model import CONTEXT, NOTATIONS, ScriptedSampler, record_prompts, write_tool_model

CALCULATOR = {"type": "calculator"}
NOW = {"type": "function", "function": {"name": "now"}}
MESSAGES = [{"role": "user", "content": "What is 12 * 13?"}]


@pytest.fixture(scope="module", params=NOTATIONS)
def notation(request):
    return request.param


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory, write_tiny, notation):
    return write_tool_model(write_tiny, tmp_path_factory.mktemp("tools") / "tiny.gguf", notation)


@pytest.fixture(scope="module")
def server(tool_model):
    with open_engine(tool_model, context=CONTEXT) as engine, serve_engine(engine, name="tiny") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.openai() as client:
        yield client


@pytest.fixture
def prompts(server, monkeypatch):
    return record_prompts(server.service.engine, monkeypatch)


@pytest.fixture(scope="module")
def call(notation):
    """call(arguments, name): a call as the model writes it."""

    def write(arguments, name="calculator"):
        if isinstance(arguments, str):
            arguments = {"expression": arguments}
        text = json.dumps({"name": name, "arguments": arguments})
        return f"<tool_call>\n{text}\n</tool_call>" if notation == "tagged" else text

    return write


def chat(client, **options):
    defaults = {"model": "tiny", "messages": MESSAGES, "tools": [CALCULATOR], "temperature": 0}
    return client.chat.completions.create(**defaults | {"max_tokens": 800} | options)


def ran(expression, result):
    return {"name": "calculator", "arguments": json.dumps({"expression": expression}), "result": result}


def whole_answer(client, **options):
    """Text, calls of the server, names of the client's calls, and the reason why an answer ended."""
    (choice,) = chat(client, **options).choices
    names = [call.function.name for call in choice.message.tool_calls or ()]
    return choice.message.content or "", choice.message.server_tool_calls, names, choice.finish_reason


def streamed_answer(client, **options):
    """The same of a stream, whose calls of the server have their places in the list."""
    text, calls, names = "", [], []
    for chunk in chat(client, stream=True, **options):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        names += [call.function.name for call in choice.delta.tool_calls or ()]
        for one in getattr(choice.delta, "server_tool_calls", ()):
            assert one.pop("index") == len(calls)
            calls.append(one)
    return text, calls, names, choice.finish_reason


BOTH = pytest.mark.parametrize("answer_of", [whole_answer, streamed_answer])


@BOTH
def test_the_server_runs_a_call_and_the_model_goes_on(client, say, call, prompts, answer_of):
    say(call("12 * 13"), "It is 156.")
    assert answer_of(client) == ("It is 156.", [ran("12 * 13", "156")], [], "stop")
    first, second = prompts
    shown = {"name": "calculator", "description": DESCRIPTION, "parameters": PARAMETERS}
    assert json.dumps({"type": "function", "function": shown}) in first
    assert second.startswith(first) and second.count("12 * 13") == 2
    assert second.endswith("[<|im_end|>]\n[<|im_start|>]tool\n156[<|im_end|>]\n[<|im_start|>]assistant")


@BOTH
def test_an_answer_without_a_call_has_one_round(client, say, prompts, answer_of):
    say("I know: 156.")
    assert answer_of(client) == ("I know: 156.", [], [], "stop")
    assert len(prompts) == 1


@BOTH
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("1 / 0", "division by zero"),
        ("twelve times thirteen", "only numbers"),
        ("9 ^ 9 ^ 9", "ambiguous: add parentheses"),
        ("9 ^ 99999999", "whole number up to 64"),
        ({"expr": "1"}, "the arguments must be"),
        ({}, "the arguments must be"),
    ],
)
def test_the_model_learns_what_is_wrong_with_a_call(client, say, call, prompts, answer_of, arguments, error):
    say(call(arguments), call("12 * 13"), "It is 156.")
    text, calls, _, reason = answer_of(client)
    assert (text, reason, len(calls), calls[1]["result"]) == ("It is 156.", "stop", 2, "156")
    result = calls[0]["result"]
    assert result.startswith("error: ") and error in result and "\n" not in result
    assert f"]tool\n{result}[" in prompts[1]


@BOTH
def test_a_call_that_is_nested_too_deeply_is_text(client, say, call, answer_of):
    """No prompt can have it: the next round failed, and with it the whole answer."""
    deep = "1"
    for _ in range(70):
        deep = [deep]
    wrong = call({"expression": deep})
    say(call("1 + 1"), wrong)
    assert answer_of(client) == (wrong, [ran("1 + 1", "2")], [], "stop")


@BOTH
def test_the_texts_of_all_rounds_are_answered(client, say, call, notation, answer_of):
    if notation == "bare":
        pytest.skip("a call is the whole answer")
    say(f"First:\n{call('1 + 1')}", call("2 + 2") * 2, f"Then: {call('4 + 4')}", "Done.")
    text, calls, _, reason = answer_of(client)
    assert (text, reason) == ("First:\nThen:\nDone.", "stop")
    assert [one["result"] for one in calls] == ["2", "4", "4", "8"]
    say(call("2 + 2") * 2, "Done.")
    text, calls, _, _ = answer_of(client, parallel_tool_calls=False)
    assert (text, len(calls)) == ("Done.", 1)


@BOTH
def test_the_rounds_have_a_bound(client, say, call, prompts, answer_of):
    say(call("1 + 1"))
    text, calls, names, reason = answer_of(client)
    assert (text, names, reason) == ("", [], "length")
    assert calls == [ran("1 + 1", "2")] * ROUNDS_MAX and len(prompts) == ROUNDS_MAX


@BOTH
def test_all_rounds_share_the_tokens(client, say, call, prompts, answer_of):
    size = len(call("1 + 1")) + 1
    say(call("1 + 1"), "It is two.")
    for tokens, text, rounds in ((size, "", 1), (size + 1, "I", 2), (size + 5, "It is", 2)):
        prompts.clear()
        found = answer_of(client, max_tokens=tokens)
        say(call("1 + 1"), "It is two.")
        assert found == (text, [ran("1 + 1", "2")], [], "length") and len(prompts) == rounds


def test_the_usage_has_the_completions_of_all_rounds_and_the_first_prompt(client, say, call, prompts):
    say(call("12 * 13"), "It is 156.")
    usage = chat(client).usage
    assert usage.completion_tokens == len(call("12 * 13")) + 1 + len("It is 156.") + 1
    say(call("12 * 13"), "It is 156.")
    *_, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.usage.completion_tokens == usage.completion_tokens
    say("It is 156.")
    assert chat(client).usage.prompt_tokens == usage.prompt_tokens == last.usage.prompt_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_logprobs_are_those_of_all_rounds(client, say, call):
    say(call("1 + 1"), "Two.")
    answer = chat(client, logprobs=True)
    assert len(answer.choices[0].logprobs.content) == len(call("1 + 1")) + len("Two.")


@BOTH
def test_a_call_of_a_clients_function_ends_the_rounds(client, say, call, prompts, notation, answer_of):
    say(call("1 + 1"), call({}, "now"))
    answer = answer_of(client, tools=[NOW, CALCULATOR])
    assert answer == ("", [ran("1 + 1", "2")], ["now"], "tool_calls")
    assert len(prompts) == 2
    say(f"{call('1 + 1')}\n{call({}, 'now')}")
    answer = answer_of(client, tools=[NOW, CALCULATOR])
    assert answer == ("", [ran("1 + 1", "2")], ["now"], "tool_calls"), "both in one round"
    assert len(prompts) == 3


def test_an_answer_that_is_sent_back_tells_the_model_what_it_saw(client, say, call, prompts):
    say(call("1 + 1"), call({}, "now"))
    message = chat(client, tools=[NOW, CALCULATOR]).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "noon"}
    say("At noon.")
    chat(client, messages=[*MESSAGES, message, result], tools=[NOW, CALCULATOR])
    assert prompts[2].startswith(prompts[1]) and "]tool\nnoon[" in prompts[2]
    say(call("1 + 1"), "Two.")
    message = chat(client).choices[0].message
    chat(client, messages=[*MESSAGES, message, {"role": "user", "content": "Sure?"}])
    assert prompts[5].startswith(f"{prompts[4]}\nTwo.[")
    bare = {"role": "assistant", "content": message.content}
    chat(client, messages=[*MESSAGES, bare, {"role": "user", "content": "Sure?"}])
    assert "]tool\n" not in prompts[6]


def test_calls_have_ids_of_their_own(server, client, say, call, monkeypatch):
    """All rounds had call_0."""
    engine, seen = server.service.engine, []
    encode = engine.conversation
    monkeypatch.setattr(
        engine, "conversation", lambda messages, tools=(): seen.append([*messages]) or encode(messages, tools)
    )

    def ids():
        made = [call.id for message in seen[-1] for call in message.tool_calls]
        assert made == [message.tool_call_id for message in seen[-1] if message.role == "tool"]
        return made

    say(call("1 + 1"), call("2 + 2"), "Four.")
    message = chat(client).choices[0].message
    assert len(first := ids()) == len({*first}) == 2
    say(call("3 + 3"), "Six.")
    chat(client, messages=[*MESSAGES, message, {"role": "user", "content": "And 3 + 3?"}])
    assert ids()[:2] == first and len({*ids()}) == 3


def test_half_of_a_surrogate_pair_in_a_call(client, say, call):
    """Models write what they like, and an answer can be sent back."""
    say(call({"expression": "\ud800"}), "Sorry.")
    message = chat(client).choices[0].message
    assert message.content == "Sorry." and message.server_tool_calls[0]["result"].startswith("error: ")
    say("Again?")
    again = chat(client, messages=[*MESSAGES, message, *MESSAGES])
    assert again.choices[0].message.content == "Again?"


def test_a_required_call_is_only_required_once(client, prompts):
    """The weights are random: only the grammar makes calls of their tokens."""
    choice = chat(client, tool_choice="required", temperature=1.5, seed=5, max_tokens=600).choices[0]
    (one,) = choice.message.server_tool_calls
    jsonschema.validate(json.loads(one["arguments"]), PARAMETERS)
    assert choice.message.content and len(prompts) == 2
    assert f"]tool\n{one['result']}[" in prompts[1]


def test_a_named_function_is_the_clients(client):
    choice = {"type": "function", "function": {"name": "now"}}
    answer = whole_function_call(client, tools=[CALCULATOR, NOW], tool_choice=choice)
    assert answer == ("now", "{}")


def test_a_clients_function_may_have_the_name_and_the_schema(client, say, call):
    """Only the type says who runs it."""
    function = {"name": "calculator", "description": DESCRIPTION, "parameters": PARAMETERS}
    say(call("1 + 1"))
    tools = [{"type": "function", "function": function}]
    assert whole_function_call(client, tools=tools) == ("calculator", '{"expression": "1 + 1"}')


def whole_function_call(client, **options):
    message = chat(client, **options).choices[0].message
    assert not hasattr(message, "server_tool_calls")
    (one,) = message.tool_calls
    return one.function.name, one.function.arguments


def test_none_may_be_called(client, say, call, prompts):
    say(call("1 + 1"))
    message = chat(client, tool_choice="none").choices[0].message
    assert message.content == call("1 + 1") and not hasattr(message, "server_tool_calls")
    assert DESCRIPTION not in prompts[0]


def test_contradictions_are_refused_by_name(client):
    function = {"name": "calculator"}
    named = {"type": "function", "function": function}
    call = {"name": "calculator", "arguments": "{}", "result": "2"}
    told = {"role": "assistant", "content": "x", "server_tool_calls": [call]}
    for options, status, param in (
        ({"n": 2}, 400, "n"),
        ({"tools": [CALCULATOR, CALCULATOR]}, 400, "tools"),
        ({"tools": [CALCULATOR, named]}, 400, "tools"),
        ({"tools": [CALCULATOR | {"function": function}]}, 400, "tools[0].function"),
        ({"tools": [NOW, {"type": "function"}]}, 400, "tools[1].function"),
        ({"tools": [{"type": "browser"}]}, 422, "tools[0].type"),
        ({"tool_choice": named}, 400, "tool_choice.function.name"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"messages": [*MESSAGES, told | {"role": "user"}]}, 400, "messages[1].server_tool_calls"),
        (
            {"messages": [*MESSAGES, told | {"server_tool_calls": [call | {"arguments": "1"}]}]},
            400,
            "messages[1].server_tool_calls[0].arguments",
        ),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            chat(client, **options)
        assert (caught.value.status_code, caught.value.param) == (status, param), options
        assert "\n" not in caught.value.body["message"]


def test_a_model_without_tools_refuses_the_calculator(smollm2_server):
    with smollm2_server.openai() as client, pytest.raises(openai.BadRequestError, match="takes no tools"):
        chat(client, model="smollm2", max_tokens=100)


def wait_until_idle(server):
    while not server.service.idle:
        sleep(0.01)
    assert server.service.engine.load.running == 0


def test_a_client_that_leaves_a_stream_ends_the_running_round(server, client, say, call, prompts):
    say(call("1 + 1"), "x" * 1500)
    with chat(client, stream=True, max_tokens=1600) as stream:
        assert any(chunk.choices[0].delta.content for chunk in stream)
    wait_until_idle(server)
    assert len(ScriptedSampler.latest.remaining) > 100 and len(prompts) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_between_two_rounds_ends_the_next(server, say, call, monkeypatch, stream):
    """It may be on its way to the engine when the client leaves, which must not lose it."""
    engine, entered, left = server.service.engine, Event(), Event()
    submit_all, count = engine.submit_all, 0

    def slow(requests, *, wait=False):
        nonlocal count
        count += 1
        if count == 2:
            entered.set()
            assert left.wait(TIMEOUT_S)
        return submit_all(requests, wait=wait)

    monkeypatch.setattr(engine, "submit_all", slow)
    say(call("1 + 1"), "x" * 1500)
    body = json.dumps(
        {"messages": MESSAGES, "tools": [CALCULATOR], "max_tokens": 1600, "stream": stream}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        assert entered.wait(TIMEOUT_S)
    sleep(0.2)  # until the server knows
    left.set()
    sleep(0.05)
    wait_until_idle(server)
    assert len(ScriptedSampler.latest.remaining) > 100 and count == 2


def test_a_server_that_drains_finishes_all_rounds(tool_model, say, call, monkeypatch):
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(tool_model, context=CONTEXT))
        server = stack.enter_context(serve_engine(engine, name="tiny"))
        client = stack.enter_context(server.openai())
        submit_all = engine.submit_all

        def draining(requests, *, wait=False):
            if wait:  # the second round
                server.server.drain()
                sleep(0.3)  # more than the server's ticks, at which it exits if it is idle
            return submit_all(requests, wait=wait)

        monkeypatch.setattr(engine, "submit_all", draining)
        say(call("1 + 1"), "Two.")
        assert whole_answer(client)[0] == "Two."


def test_a_round_waits_while_the_queue_is_full(tool_model, say, call, monkeypatch):
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(tool_model, context=CONTEXT, slots=1, queue=1))
        server = stack.enter_context(serve_engine(engine, name="tiny"))
        client = stack.enter_context(server.openai())
        submit_all, others = engine.submit_all, []

        def crowded(requests, *, wait=False):
            if wait:  # the second round
                others.extend(submit_all([Request((97,), 50)] * 2))
            return submit_all(requests, wait=wait)

        monkeypatch.setattr(engine, "submit_all", crowded)
        say(call("1 + 1"), "Others.", "Others.", "Two.")
        assert whole_answer(client)[0] == "Two." and len(others) == 2
