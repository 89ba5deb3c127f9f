"""One table of behaviors over all formats: texts, streams, efforts, thoughts, tools, schemas, errors."""

import json

import jsonschema
import pytest
from thirteen.runtime.prompt.prompt_encoder import Message
from thirteen.server.config import RequestLimits

from ...runtime.fakes import TEMPLATES
from ...waiting import wait_until
from ..serving import FLAG, halted, serve_engine
from ..tool_model import record_prompts
from .formats import CHATS, FORMATS, events

pytestmark = pytest.mark.slow

QUESTION, NO_NUMBER = "How much is 2 + 3?", "Name a colour."
FIVE, THOUGHT = "The answer is 5.", "It is 2 * 3 = 7. The answer is 7."
THINKING = f"<think>\n{THOUGHT}\n</think>\n\n{FIVE}"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
CALLED = ("weather", {"city": "Oslo"})
every_format = pytest.mark.parametrize("name", FORMATS)
every_chat = pytest.mark.parametrize("name", CHATS)


@pytest.fixture
def form(name):
    return FORMATS[name]


@pytest.fixture(scope="module")
def http(tool_server):
    with tool_server.http() as client:
        yield client


@every_format
def test_an_answer_and_its_stream_are_the_engines(tool_server, http, form):
    engine = tool_server.service.engine
    expected = engine.submit(engine.chat([Message("user", NO_NUMBER)], max_tokens=12)).answer().text
    whole = form.ask(http, NO_NUMBER, max_tokens=12)
    assert (whole.text, whole.end, whole.tokens, whole.reasoning) == (expected, "length", 12, "")
    assert form.ask(http, NO_NUMBER, max_tokens=12, stream=True) == whole


@every_format
def test_a_stream_has_all_characters(http, say, form):
    """Clients take other line ends of Unicode for the end of a line."""
    say(text := "a\u2028b\u2029c\x85d\U0001f600")
    assert form.ask(http, NO_NUMBER, stream=True).text == text


@pytest.mark.parametrize("name", ["chat", "ollama chat", "ollama generate"])
def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(http, say, form):
    say("one two three")
    for stream in (False, True):
        said = form.ask(http, NO_NUMBER, stop=[" thr", "two"], stream=stream)
        assert (said.text, said.end) == ("one ", "stop")


@every_chat
def test_a_conversation_is_that_of_the_engine(tool_server, http, form):
    engine = tool_server.service.engine
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", NO_NUMBER)]
    expected = engine.submit(engine.chat([Message(*one) for one in said], max_tokens=12)).answer().text
    messages = [{"role": role, "content": content} for role, content in said]
    assert form.ask(http, messages, max_tokens=12).text == expected


@every_format
def test_an_effort_is_the_same_by_all_names(http, say, form):
    """The usage is that of all answers that counted: of two that agree at once, of three for high."""
    say(FIVE)
    one = len(FIVE) + 1  # a byte is a token, and so is the end
    for effort, answers in {
        **dict.fromkeys(("none", "minimal", "low", "", False, None), 1),
        **dict.fromkeys(("medium", True), 2),
        **dict.fromkeys(("high", "xhigh", "max"), 3),
    }.items():
        said = form.ask(http, QUESTION, effort=effort)
        assert (said.text, said.tokens, bool(said.reasoning)) == (FIVE, answers * one, answers > 1), effort
    assert form.ask(http, NO_NUMBER, effort="high").tokens == one
    wrong = form.post(http, QUESTION, effort="much")
    assert wrong.status_code == 422 and "'medium', 'high'" in wrong.text


# The values: 6, 7, none, 5, 5, 5, 5. The answers that run together end one after the other.
OTHERS = ("The answer is 6.", "So the answer is 7.", "I do not know any answer.")
DISSENT = (*OTHERS, FIVE, f"So {FIVE}", FIVE, FIVE)
COUNTS = ["1 of 1", "1 of 2", "1 of 3", "1 of 4", "2 of 5", "3 of 6", "4 of 7"]


@every_format
def test_a_stream_tells_of_a_vote_and_then_the_answer(http, say, form):
    """Tallies may be left out, but for the last one."""
    say(*DISSENT)
    response = form.post(http, QUESTION, effort="medium", stream=True, calculator=False)
    parts = [form.part(event) for event in events(response.text)]
    told = [at for at, part in enumerate(parts) if part.reasoning]
    texts = [at for at, part in enumerate(parts) if part.text]
    tallies = "".join(part.reasoning for part in parts).splitlines()
    counts = [line.partition(" agree on ")[0] for line in tallies]  # at a tie, of the likeliest value
    assert counts == sorted(set(counts), key=COUNTS.index) and tallies[-1] == "4 of 7 agree on 5"
    assert "".join(part.text for part in parts) in {FIVE, f"So {FIVE}"}
    assert len(told) > 1 and max(told) <= min(texts)


@pytest.fixture(scope="module")
def thinking_server(serve_template):
    return serve_template(TEMPLATES["qwen3"])


@every_format
def test_a_thought_is_beside_the_answer(thinking_server, say, monkeypatch, form):
    prompts = record_prompts(thinking_server.service.engine, monkeypatch)
    say(THINKING)
    with thinking_server.http() as http:
        for options in ({}, {"stream": True}, {"effort": True}):
            said = form.ask(http, QUESTION, **options)
            assert (said.text, said.tokens) == (FIVE, len(THINKING) + 1)
            assert said.reasoning == THOUGHT
        budget = form.ask(http, QUESTION, think_budget=12)
        assert budget.reasoning == THINKING[:12].removeprefix("<think>\n").rstrip()
        say(FIVE)
        for options in ({"effort": "none"}, {"effort": False}, {"think_budget": 0}):
            assert form.ask(http, QUESTION, **options).text == FIVE
            assert prompts[-1].endswith("<think>\n\n</think>\n\n")
        shown = http.post("/api/show", json={"model": "tiny"}).json()
    assert shown["capabilities"] == ["completion", "thinking"]


@every_chat
def test_an_earlier_thought_is_left_out(thinking_server, say, monkeypatch, form):
    prompts = record_prompts(thinking_server.service.engine, monkeypatch)
    say(FIVE)
    turn = {"role": "user", "content": QUESTION}
    with thinking_server.http() as http:
        form.ask(http, [turn, {"role": "assistant", "content": THINKING}, turn])
    assert f"assistant\n{FIVE}[<|im_end|>]" in prompts[-1] and THOUGHT not in prompts[-1]


PLAIN = json.dumps(CALL)
WRITTEN = [f"<tool_call>{PLAIN}</tool_call>", PLAIN, f"```json\n{PLAIN}\n```"]


@every_chat
@pytest.mark.parametrize("written", WRITTEN)
def test_what_small_models_write_is_a_call(http, say, form, written):
    """Whatever notation the template has."""
    say(f"Let me see.\n{written}")
    for stream in (False, True):
        said = form.ask(http, QUESTION, tools=TOOLS, stream=stream, effort="high")
        assert (said.text, said.calls) == ("Let me see.", [CALLED])
        assert said.end in {"tool_calls", "stop"} and not said.reasoning  # with tools there is no vote


@every_chat
def test_a_call_is_sent_back_with_its_result(tool_server, http, say, monkeypatch, form):
    prompts = record_prompts(tool_server.service.engine, monkeypatch)
    asked = {"role": "user", "content": QUESTION}
    say(f"Let me see.\n{WRITTEN[0]}")
    called = form.post(http, [asked], tools=TOOLS).json()
    say("Yes.")
    said = form.ask(http, [asked, *form.back(called)], tools=TOOLS)
    assert (said.text, said.calls, said.end) == ("Yes.", [], "stop")
    assert PLAIN in prompts[-1] and "[<|im_start|>]tool\nRain[<|im_end|>]" in prompts[-1]


@every_chat
def test_tools_that_the_template_does_not_take_are_refused(tiny_server, form):
    with tiny_server.http() as http:
        response = form.post(http, QUESTION, tools=TOOLS)
    assert response.status_code == 400 and "tools: the model's chat template takes no tools" in response.text


TWINS = {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 2, "uniqueItems": True}


@pytest.mark.parametrize("name", [*CHATS, "ollama generate"])
def test_a_schema_is_enforced_and_what_is_not_is_told(http, form):
    """A schema with uniqueItems was refused, and what was not enforced had no effect."""
    for stream in (False, True):
        valid = form.ask(http, NO_NUMBER, schema=FLAG, max_tokens=60, stream=stream).text
        jsonschema.validate(json.loads(valid), FLAG)
        warning = form.ask(http, NO_NUMBER, schema=TWINS, max_tokens=60, stream=stream).warning
        assert warning == 'Unimplemented keys: ["uniqueItems"]'
    refused = form.post(http, QUESTION, schema=FLAG, effort="medium")
    assert refused.status_code == 400 and "effort medium cannot be combined with a grammar" in refused.text
    assert form.post(http, NO_NUMBER, schema={"enum": []}).status_code == 400


@every_format
def test_answers_and_tokens_are_held_to_the_limits(tool_server, form):
    """Tokens above the limit are lowered, and the field is named."""
    limits = RequestLimits(answers=8, max_tokens=7)
    with serve_engine(tool_server.service.engine, limits=limits) as server, server.http() as http:
        refused = form.post(http, QUESTION, effort="high")
        assert refused.status_code == 400 and "high samples up to 10 answers, at most 8" in refused.text
        response = form.post(http, NO_NUMBER, max_tokens=8)
        ignored = response.headers.get("X-Thirteen-Ignored")
        assert form.whole(response.json()).tokens == 7
        assert ignored in {"max_tokens", "max_output_tokens", "num_predict"}
        assert form.ask(http, NO_NUMBER).tokens == 7


@every_format
def test_unknown_and_empty_fields(http, form, name):
    """Ignored ones are named, once and safely, wherever they are."""
    for value in (None, "", [], {}, False, 0):
        response = form.post(http, NO_NUMBER, max_tokens=1, user=value)
        assert response.status_code == 200 and "X-Thirteen-Ignored" not in response.headers
    messages = [{"role": "user", "content": NO_NUMBER, "mood": "b"}] * 2
    response = form.post(http, messages, max_tokens=1.0, user=1, **{"a\r\nb": 1, "é": 1, "x" * 65: 1})
    told = "user, mood" if name in CHATS else "user"
    assert response.status_code == 200 and response.headers["X-Thirteen-Ignored"] == told


@every_format
def test_errors_are_one_line_in_the_formats_own_shape(http, form):
    for asked, options, status, problem in (
        (" ", {}, 400, "is empty"),
        (QUESTION, {"temperature": 3}, 422, "temperature must be less than or equal to 2"),
        (QUESTION, {"temperature": 1e-40}, 400, "temperature must be 0 or"),
        (QUESTION, {"max_tokens": True}, 422, "must be a valid integer"),
        (QUESTION, {"model": "gpt-4o"}, 404, "the model 'gpt-4o' does not exist"),
        ("one two " * 3000, {}, 400, "tokens"),
    ):
        response = form.post(http, asked, **options)
        error = response.json()["error"]
        message = error if form.path.startswith("/api/") else error["message"]
        assert response.status_code == status and problem in message and "\n" not in message
        assert isinstance(error, str) == form.path.startswith("/api/")
    if not form.path.startswith("/api/"):
        assert error["code"] == "context_length_exceeded"


@every_format
def test_a_stream_that_fails_says_so_at_its_end(tool_server, http, form):
    body = form.body([{"role": "user", "content": QUESTION}], {"stream": True})
    with halted(running=1):
        with http.stream("POST", form.path, json=body) as response:
            wait_until(lambda: tool_server.service.engine.load.running, pause_s=0.01)
            tool_server.service.abort_all()
            last = events("".join(response.iter_text()))[-1]
        wait_until(lambda: tool_server.service.idle)
    assert "the server is shutting down" in json.dumps(last)


@every_format
def test_a_model_made_for_embeddings_answers_nothing(embedding_server, form):
    with embedding_server.http() as http:
        response = form.post(http, QUESTION)
    assert response.status_code == 400 and "made for embeddings" in response.text
