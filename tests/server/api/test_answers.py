"""/v1/answer and /v1/check over HTTP: values, checked equations, turns and votes."""

import pytest
from thirteen.runtime.engine.conversation import Conversation

from .formats import events

PRODUCT = "Repeat exactly: 12 * 13 ="


@pytest.fixture(scope="module")
def http(smollm2_server):
    with smollm2_server.http() as client:
        yield client


def answer(http, **body):
    response = http.post("/v1/answer", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_answer_is_the_engines(http, smollm2_server):
    served, direct = answer(http, question=PRODUCT), smollm2_server.service.engine.answer(PRODUCT)
    for name in ("text", "value", "verified", "grounded"):
        assert served[name] == getattr(direct, name)
    (step,) = served["steps"]
    assert (step["expression"], step["claimed"], step["ok"]) == ("12 * 13", "156", True)
    assert served["text"][step["result"] : step["end"]] == step["claimed"]
    assert (served["model"], served["value"], served["verified"]) == ("smollm2", "156", True)
    assert (served["stop_reason"], served["tally"]) == ("end", None)
    assert served["usage"]["sampled_tokens"] < served["usage"]["completion_tokens"]
    assert served["timings"]["decode_tokens_per_s"] > 0 < served["timings"]["first_token_s"]
    last = events(http.post("/v1/answer", json={"question": PRODUCT, "stream": True}).text)[-1]
    equal = ("model", "value", "verified", "steps", "text", "stop_reason", "tally")
    assert last["event"] == "answer" and all(last[name] == served[name] for name in equal)


def test_earlier_turns_are_the_conversation_of_the_engine(http, smollm2_server):
    turns = [{"question": "Hi", "answer": "Hello!"}, {"question": "1 + 1?", "answer": "1 + 1 = 2"}]
    served = answer(http, question="And 2 + 2?", turns=turns, system="Be brief.", max_tokens=8)
    conversation = Conversation(smollm2_server.service.engine, "Be brief.")
    for turn in turns:
        conversation.add(turn["question"], turn["answer"])
    request = conversation.next_turn("And 2 + 2?", max_tokens=8).request
    assert served["usage"]["prompt_tokens"] == len(request.tokens)
    assert served["text"] == smollm2_server.service.engine.submit(request).answer().text
    assert served["dropped_turns"] == 0


def test_turns_for_which_there_is_no_room_are_dropped_and_counted(tiny_server):
    turns = [{"question": f"{number} " * 10, "answer": "yes"} for number in range(20)]
    body = {"question": "Why?", "turns": turns, "max_tokens": 4}
    with tiny_server.http() as http:
        served = answer(http, **body)
        streamed = events(http.post("/v1/answer", json=body | {"stream": True}).text)[-1]
    assert 0 < served["dropped_turns"] == streamed["dropped_turns"] < 20
    assert served["usage"]["prompt_tokens"] <= 256 - 4


def test_check_claim(http):
    for claim, value, verified in (
        ("12 * 13 = 156", "156", True),
        ("12 * 13 = 155", "155", False),
        ("", None, False),
    ):
        checked = http.post("/v1/check", json={"claim": claim}).json()
        assert (checked["value"], checked["verified"]) == (value, verified)
        assert [step["computed"] for step in checked["steps"]] == ["156"] * bool(claim)


def test_an_answer_tells_how_its_value_came_about(tool_server, say):
    """A wrong equation has no vote, and of equal values the one with a sum is shown."""
    http = tool_server.http()
    body = {"question": "How much is 2 + 3?", "effort": "medium", "calculator": False}
    say("So 2 + 3 = 6.", "It is 2 + 3 = 5.", "The answer is 5.")
    found = answer(http, **body)
    assert (found["value"], found["text"], found["grounded"]) == ("5", "It is 2 + 3 = 5.", True)
    assert found["tally"] == {"asked": 8, "ended": 3, "votes": {"5": 2}} and 0 < found["confidence"] < 1
    unsure = answer(http, **body, min_confidence=0.9999)
    assert (found["sure"], unsure["sure"], unsure["value"]) == (True, False, None)
    assert unsure["text"] == "The answer is 5." and unsure["confidence"] < 0.9999
