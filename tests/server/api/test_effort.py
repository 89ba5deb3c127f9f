"""Effort over HTTP: one meaning under five names, progress in streams, and what excludes it."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import httpx
import ollama
import pytest
from thirteen.runtime.answer import VoteTally
from thirteen.server.access.request_limits import RequestLimits

from ...waiting import wait_until
from ..serving import TIMEOUT_S, halted, serve_engine

pytestmark = pytest.mark.slow

QUESTION, NO_NUMBER = "How much is 2 + 3?", "Name a colour."
FIVE = "The answer is 5."
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def said(question):
    return {"messages": [{"role": "user", "content": question}]}


def flat(tools):
    return [{"type": "function", **tool["function"]} for tool in tools]


# Each API: its path, its body, the name of the effort, its answer's text, tokens and progress.
APIS = {
    "answer": (
        "/v1/answer",
        lambda question, effort: {"question": question, "effort": effort},
        lambda found: (found["text"], found["usage"]["completion_tokens"], found["tally"]),
    ),
    "chat": (
        "/v1/chat/completions",
        lambda question, effort: {**said(question), "reasoning_effort": effort},
        lambda found: (
            (message := found["choices"][0]["message"])["content"],
            found["usage"]["completion_tokens"],
            message.get("reasoning_content"),
        ),
    ),
    "responses": (
        "/v1/responses",
        lambda question, effort: {"input": question, "reasoning": {"effort": effort}},
        lambda found: (
            found["output"][-1]["content"][0]["text"],
            found["usage"]["output_tokens"],
            found["output"][0].get("summary"),
        ),
    ),
    "ollama chat": (
        "/api/chat",
        lambda question, effort: {"model": "tiny", "stream": False, **said(question), "think": effort},
        lambda found: (found["message"]["content"], found["eval_count"], found["message"].get("thinking")),
    ),
    "ollama generate": (
        "/api/generate",
        lambda question, effort: {"model": "tiny", "stream": False, "prompt": question, "think": effort},
        lambda found: (found["response"], found["eval_count"], found.get("thinking")),
    ),
}


@pytest.fixture(scope="module")
def http(tool_server):
    with tool_server.http() as client:
        yield client


def ask(http, api, question=QUESTION, effort="medium", **fields):
    path, body, found = APIS[api]
    response = http.post(path, json=body(question, effort) | fields)
    assert response.status_code == 200, response.text
    assert "X-Thirteen-Ignored" not in response.headers
    return found(response.json())


@pytest.mark.parametrize("api", APIS)
def test_an_effort_is_the_same_by_all_names(http, say, api):
    """The usage is that of all answers that counted: of two that agree at once, of three for high."""
    say(FIVE)
    one = len(FIVE) + 1  # a byte is a token, and so is the end
    for effort, answers in {
        **dict.fromkeys(("none", "minimal", "low", False, None), 1),
        **dict.fromkeys(("medium", True), 2),
        **dict.fromkeys(("high", "xhigh", "max"), 3),
    }.items():
        text, tokens, progress = ask(http, api, effort=effort)
        assert (text, tokens, bool(progress)) == (FIVE, answers * one, answers > 1), effort


@pytest.mark.parametrize("api", APIS)
def test_without_a_number_or_with_tools_there_is_one_answer(http, say, api):
    say(FIVE)
    asked = [(NO_NUMBER, {})]
    if api in {"chat", "responses", "ollama chat"}:
        asked.append((QUESTION, {"tools": flat(TOOLS) if api == "responses" else TOOLS}))
    for question, fields in asked:
        assert ask(http, api, question, "high", **fields) == (FIVE, len(FIVE) + 1, None)


def test_an_answer_tells_how_its_value_came_about(http, say):
    """A wrong equation has no vote, and of equal values the one with a sum is shown."""
    body = {"question": QUESTION, "effort": "medium", "calculator": False}
    say("So 2 + 3 = 6.", "It is 2 + 3 = 5.", FIVE)
    found = http.post("/v1/answer", json=body).json()
    assert (found["value"], found["text"], found["grounded"]) == ("5", "It is 2 + 3 = 5.", True)
    assert found["tally"] == {"asked": 8, "ended": 3, "votes": {"5": 2}} and 0 < found["confidence"] < 1
    unsure = http.post("/v1/answer", json=body | {"min_confidence": 0.9999}).json()
    assert (found["sure"], unsure["sure"], unsure["value"]) == (True, False, None)
    assert unsure["text"] == FIVE and unsure["confidence"] < 0.9999


# The values: 6, 7, none, 5, 5, 5, 5. The answers that run together end one after the other.
DISSENT = (
    "The answer is 6.",
    "So the answer is 7.",
    "I do not know any answer.",
    FIVE,
    f"So {FIVE}",
    FIVE,
    FIVE,
)
COUNTS = ["1 of 1", "1 of 2", "1 of 3", "1 of 4", "2 of 5", "3 of 6", "4 of 7"]


def progress_and_text(event):
    """The progress and the text in an event of a stream."""
    match event:
        case {"asked": _}:
            parts = f"{VoteTally(**event).agreement}\n", ""
        case {"choices": [{"delta": {"content": said, **more}}]}:
            parts = more.get("reasoning_content", ""), said
        case {"message": {"content": said, **more}} | {"response": str(said), **more}:
            parts = more.get("thinking", ""), said
        case {"type": "response.reasoning_summary_text.delta", "delta": told}:
            parts = told, ""
        case {"type": "response.output_text.delta", "delta": said}:
            parts = "", said
        case {"text": said} if len(event) == 1:
            parts = "", said
        case _:
            parts = "", ""
    return parts


@pytest.mark.parametrize("api", APIS)
def test_a_stream_tells_of_the_progress_and_then_the_answer(http, say, api):
    """Tallies may be left out, but for the last one."""
    path, body, _ = APIS[api]
    say(*DISSENT)
    body = body(QUESTION, "medium") | {"stream": True, "calculator": False}
    with http.stream("POST", path, json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines()]
    parts = [progress_and_text(json.loads(line)) for line in lines if line.startswith("{")]
    told, texts = ([at for at, part in enumerate(column) if part] for column in zip(*parts, strict=True))
    tallies = "".join(progress for progress, _ in parts).splitlines()
    counts = [line.partition(" agree on ")[0] for line in tallies]  # at a tie, of the likeliest value
    assert counts == sorted(set(counts), key=COUNTS.index) and tallies[-1] == "4 of 7 agree on 5"
    assert "".join(text for _, text in parts) in {FIVE, f"So {FIVE}"}
    assert len(told) > 1 and max(told) <= min(texts)


def test_the_official_clients_show_it(tool_server, say):
    """A response can be sent back with its reasoning."""
    say(FIVE)
    asked = {"model": "tiny", "input": QUESTION, "reasoning": {"effort": "medium", "summary": "auto"}}
    with tool_server.openai() as client:
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            kinds = [event.type.removeprefix("response.") for event in stream]
            streamed = stream.get_final_response()
        again = client.responses.create(
            **asked | {"input": [*whole.output, {"role": "user", "content": "And 1?"}]}
        )
        chat = client.chat.completions.create(model="tiny", **said(QUESTION), reasoning_effort="medium")
    for found in (whole, streamed, again):
        reasoning, message = found.output
        assert reasoning.summary[0].text.endswith("2 of 2 agree on 5" + "\n" * (found is streamed))
        assert (message.content[0].text, found.reasoning.effort) == (FIVE, "medium")
        assert reasoning.id != message.id and found.usage.output_tokens == 2 * (len(FIVE) + 1)
    summary = [f"reasoning_summary_{name}" for name in ("part.added", "text.delta", "text.done", "part.done")]
    item = ["output_item.added", *summary, "output_item.done"]
    assert list(dict.fromkeys(kinds))[2:8] == item and kinds.index("output_text.delta") > kinds.index(
        item[-1]
    )
    assert chat.choices[0].message.reasoning_content == "2 of 2 agree on 5\n"
    found = ollama.Client(tool_server.url).chat("tiny", **said(QUESTION), think="medium")
    assert (found.message.thinking, found.message.content) == ("2 of 2 agree on 5\n", FIVE)


SCHEMA = {"type": "object"}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
MEDIUM = "effort medium cannot be combined with"


@pytest.mark.parametrize(
    ("api", "effort", "fields", "status", "message"),
    [
        ("answer", "much", {}, 422, "effort must be low, medium or high"),
        ("answer", 2, {}, 422, "effort must be low, medium or high"),
        ("chat", "much", {}, 422, "reasoning_effort must be low, medium or high"),
        ("responses", "much", {}, 422, "reasoning.effort must be low, medium or high"),
        ("ollama chat", "much", {}, 422, "think must be low, medium or high"),
        ("ollama generate", 1, {}, 422, "think must be low, medium or high"),
        ("chat", "medium", {"n": 2}, 400, f"reasoning_{MEDIUM} n above 1"),
        ("chat", "medium", {"logprobs": True}, 400, f"{MEDIUM} logprobs"),
        ("chat", "medium", {"response_format": FORMAT}, 400, f"{MEDIUM} a grammar"),
        ("ollama chat", "medium", {"format": SCHEMA}, 400, f"{MEDIUM} a grammar"),
        ("answer", "medium", {"min_confidence": 1}, 422, "min_confidence must be less than 1"),
        ("answer", "high", {}, 400, "effort high samples up to 10 answers, at most 8 here"),
        ("chat", "high", {}, 400, "reasoning_effort high samples up to 10 answers, at most 8 here"),
        ("responses", "high", {}, 400, "reasoning.effort high samples up to 10 answers, at most 8 here"),
        ("ollama chat", "high", {}, 400, "think high samples up to 10 answers, at most 8 here"),
        ("chat", "low", {"n": 9}, 422, "n must be less than or equal to 8"),
    ],
)
def test_what_cannot_be_is_one_line(eight_answers, api, effort, fields, status, message):
    path, body, _ = APIS[api]
    response = eight_answers.post(path, json=body(QUESTION, effort) | fields)
    error = response.json()["error"]
    error = error if isinstance(error, str) else error["message"]
    assert response.status_code == status and message in error and "\n" not in error


@pytest.fixture(scope="module")
def eight_answers(tool_server):
    """A server with --answers 8."""
    engine, limits = tool_server.service.engine, RequestLimits(answers=8)
    with serve_engine(engine, name="tiny", limits=limits) as server, server.http() as client:
        yield client


def test_a_client_that_leaves_ends_its_vote(tool_server, say):
    say(FIVE)
    service, body = tool_server.service, {"question": QUESTION, "effort": "high"}

    async def ask_and_leave():
        async with httpx.AsyncClient(base_url=tool_server.url, timeout=TIMEOUT_S) as client:
            asking = asyncio.create_task(client.post("/v1/answer", json=body))
            while service.engine.load.running < 3:  # one slot is kept for others
                assert not asking.done()
                await asyncio.sleep(0.01)
            asking.cancel()

    with halted(running=3):
        asyncio.run(ask_and_leave())
        wait_until(lambda: service.idle)
        assert service.engine.load.running == 0


@pytest.mark.parametrize("drain_s", [0, 30])
def test_a_shutdown_waits_for_a_vote_or_ends_it(tool_server, say, drain_s):
    say(*DISSENT)
    limits, engine = RequestLimits(drain_s=drain_s), tool_server.service.engine
    with (
        serve_engine(engine, name="tiny", limits=limits) as server,
        server.http() as client,
        ThreadPoolExecutor(1) as pool,
        nullcontext() if drain_s else halted(running=3),
    ):
        asking = pool.submit(client.post, "/v1/answer", json={"question": QUESTION, "effort": "medium"})
        wait_until(lambda: engine.load.running or asking.done(), pause_s=0.001)
        assert not asking.done()
        server.server.drain()
        response = asking.result(TIMEOUT_S)
    assert response.status_code == (200 if drain_s else 503), response.text
    assert drain_s == 0 or response.json()["value"] == "5"


def test_votes_share_the_slots_with_the_same_clients_other_requests(tool_server, say):
    """A long vote would keep the page's next question waiting."""
    say("word " * 100)
    service, body = tool_server.service, {"question": QUESTION, "effort": "high"}
    with tool_server.http() as client, ThreadPoolExecutor(2) as pool:
        votes = [pool.submit(client.post, "/v1/answer", json=body) for _ in range(2)]
        wait_until(lambda: service.engine.load.waiting, pause_s=0.001)
        assert client.post("/v1/answer", json={"question": NO_NUMBER, "max_tokens": 4}).status_code == 200
        assert not any(vote.done() for vote in votes)
        service.abort_all()
        assert [vote.result(TIMEOUT_S).status_code for vote in votes] == [503, 503]
