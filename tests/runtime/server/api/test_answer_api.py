"""Questions, whose answers carry a value and checked equations, and claims of arithmetic, over HTTP."""

import json
from time import monotonic, sleep

import pytest

SUM = "Repeat exactly: 1234 * 5678 ="


@pytest.fixture(scope="module")
def http(smollm2_server):
    with smollm2_server.http() as client:
        yield client


def answer(http, **body):
    response = http.post("/v1/answer", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def events(http, **body):
    """The names and data of a stream's events."""
    with http.stream("POST", "/v1/answer", json=body | {"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(response.iter_text()).split("\n\n")
    assert blocks.pop() == ""
    pairs = [block.split("\n") for block in blocks]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def test_an_answer_is_the_engines(http, smollm2_server):
    told, own = answer(http, question=SUM), smollm2_server.desk.engine.answer(SUM)
    assert (told["text"], told["value"], told["verified"]) == (own.text, own.value, own.verified)
    assert told["steps"] == [
        {"expression": "1234 * 5678", "claimed": "7006652", "computed": "7006652", "ok": True}
    ]
    assert (told["model"], told["value"], told["verified"]) == ("smollm2", "7006652", True)
    assert (told["stop_reason"], told["tally"]) == ("end", None)
    assert told["usage"]["sampled_tokens"] < told["usage"]["completion_tokens"]
    assert told["timings"]["decode_tokens_per_s"] > 0 < told["timings"]["first_token_s"]


def test_without_the_calculator_the_model_is_on_its_own(http):
    assert answer(http, question=SUM, calculator=False)["verified"] is False


def test_a_system_text_and_a_limit_are_heeded(http, smollm2_server):
    told = answer(http, question="Hi", system="Speak of pirates only.", max_tokens=5)
    own = smollm2_server.desk.engine.answer("Hi", system="Speak of pirates only.", max_tokens=5)
    assert (told["text"], told["stop_reason"]) == (own.text, "length")


@pytest.mark.parametrize("votes", [1, 3])
def test_a_question_longer_than_the_context_says_so_by_its_code(http, votes):
    response = http.post("/v1/answer", json={"question": "one two " * 3000, "votes": votes})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_stream_has_the_text_each_step_and_the_answer(http):
    told = events(http, question=SUM)
    whole = answer(http, question=SUM)
    assert "".join(data["text"] for name, data in told if name == "text") == whole["text"]
    assert [data for name, data in told if name == "step"] == whole["steps"]
    name, last = told[-1]
    same = ("model", "value", "verified", "steps", "text", "stop_reason", "tally")
    assert name == "answer" and all(last[key] == whole[key] for key in same)


def test_a_step_comes_before_the_text_goes_on():
    """Told at the end only, a reader could not see sums being verified; told at once, "= 1" would be one."""
    import asyncio

    from thirteen.runtime.answer import Answer
    from thirteen.runtime.arithmetic.calculator import steps
    from thirteen.runtime.engine.handle import Piece
    from thirteen.runtime.request import StopReason, Timings, Usage
    from thirteen.runtime.server.api.answer_api import answer_events

    parts = ["12 * 13", " = 1", "56", ", then", " 1 + 1 = 3", " and so 5 + 5 = 10"]
    text = "".join(parts)

    async def pieces():
        for part in parts:
            yield Piece(part)
        whole = Answer("10", text, StopReason.END, Usage(1, 1), Timings(0, 0, 0), steps(text), verified=False)
        yield Piece("", answer=whole)

    async def told():
        return [event async for event in answer_events(pieces(), "m")]

    events = asyncio.run(told())
    names = [name for name, _ in events]
    assert names == ["text"] * 4 + ["step"] + ["text"] * 2 + ["step"] * 2 + ["answer"]
    assert [data["claimed"] for name, data in events if name == "step"] == ["156", "3", "10"]


def test_votes_are_counted(http):
    told = answer(http, question="What is 2 + 2?", votes=3, max_tokens=16)
    assert told["tally"]["asked"] == 3 and 1 <= told["tally"]["ended"] <= 3
    assert answer(http, question="What is 2 + 2?", votes=3, max_tokens=16)["text"] == told["text"], (
        "no chance in it"
    )


def test_votes_stream_nothing_but_the_answer(http):
    ((name, data),) = events(http, question="What is 2 + 2?", votes=2, max_tokens=8)
    assert name == "answer" and data["tally"]["asked"] == 2


def test_who_hangs_up_on_a_vote_frees_all_slots(http, smollm2_server):
    import httpx

    with pytest.raises(httpx.ReadTimeout):
        http.post(
            "/v1/answer", json={"question": "Tell a long story.", "votes": 4, "max_tokens": 400}, timeout=0.4
        )
    end = monotonic() + 1
    while not smollm2_server.desk.idle and monotonic() < end:
        sleep(0.01)
    assert smollm2_server.desk.idle and smollm2_server.desk.engine.load.running == 0


@pytest.mark.parametrize(
    ("claim", "value", "verified"),
    [
        ("12 * 13 = 156", "156", True),
        ("12 * 13 = 155", "155", False),
        ("no sum at all", None, False),
        ("", None, False),
    ],
)
def test_a_claim_is_checked(http, claim, value, verified):
    told = http.post("/v1/check", json={"claim": claim}).json()
    assert (told["value"], told["verified"]) == (value, verified)
    assert [step["computed"] for step in told["steps"]] == ["156"] * claim.startswith("12")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("answer", {}, 422, "question"),
        ("answer", {"question": ""}, 422, "question"),
        ("answer", {"question": " "}, 400, None),
        ("answer", {"question": "x", "votes": 17}, 422, "votes"),
        ("answer", {"question": "x", "temperature": 1}, 422, "temperature"),
        ("answer", {"question": "x", "model": "y"}, 404, "model"),
        ("answer", {"question": "x", "max_tokens": 1.5}, 422, "max_tokens"),
        ("answer", {"question": "\ud800"}, 422, "question"),
        ("answer", {"question": "x", "\ud800": 1}, 422, "?"),
        ("answer", [], 422, None),
        ("check", {"claim": "1" * 4097}, 422, "claim"),
        ("check", {"claim": 1}, 422, "claim"),
    ],
)
def test_what_is_wrong_is_named(http, path, body, status, param):
    content = json.dumps(body).encode()
    response = http.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param and error["message"] and "\n" not in error["message"]
