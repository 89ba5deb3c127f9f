"""A model that thinks, by the official clients: thoughts beside answers, switches and budgets."""

import json

import gguf
import httpx
import ollama
import pytest

from ...runtime.thinking_templates import TEMPLATES
from ..serving import open_engine, serve_engine
from ..tool_model import CONTEXT, record_prompts

pytestmark = pytest.mark.slow

QUESTION, THOUGHT = "How much is 2 + 3?", "It is 2 * 3 = 7. The answer is 7."
FIVE = "The answer is 5."
SAID = f"<think>\n{THOUGHT}\n</think>\n\n{FIVE}"
MESSAGES = [{"role": "user", "content": QUESTION}]
TOKENS, THOUGHT_TOKENS = len(SAID) + 1, len(SAID) - len(FIVE)


@pytest.fixture(scope="module")
def server(tmp_path_factory, write_tiny):
    kinds = gguf.GGUFValueType
    keys = {
        "tokenizer.chat_template": (TEMPLATES["qwen3"], kinds.STRING, None),
        "llama.context_length": (CONTEXT, kinds.UINT32, None),
    }
    path = write_tiny(tmp_path_factory.mktemp("thinking") / "tiny.gguf", keys)
    with open_engine(path, context=CONTEXT) as engine, serve_engine(engine, name="tiny") as running:
        yield running


@pytest.fixture
def openai(server, say):
    say(SAID)
    with server.openai() as client:
        yield client


@pytest.fixture
def prompts(server, monkeypatch):
    return record_prompts(server.service.engine, monkeypatch)


def test_chat_completions(openai, prompts):
    asked = {"model": "tiny", "messages": MESSAGES, "logprobs": True}
    whole = openai.chat.completions.create(**asked)
    message, usage = whole.choices[0].message, whole.usage
    assert (message.content, message.reasoning_content) == (FIVE, THOUGHT)
    assert usage.completion_tokens == TOKENS
    assert usage.completion_tokens_details.reasoning_tokens == THOUGHT_TOKENS
    deltas = [chunk.choices[0] for chunk in openai.chat.completions.create(**asked, stream=True)]
    texts = [(getattr(one.delta, "reasoning_content", None) or "", one.delta.content) for one in deltas]
    assert ["".join(parts) for parts in zip(*texts, strict=True)] == [THOUGHT, FIVE]
    for choices in (whole.choices, deltas):
        found = [entry.token for one in choices if one.logprobs for entry in one.logprobs.content]
        assert "".join(found) == FIVE
    earlier = {"role": "assistant", "content": SAID, "reasoning_content": THOUGHT}
    openai.chat.completions.create(model="tiny", messages=[*MESSAGES, earlier, *MESSAGES])
    assert f"assistant\n{FIVE}[<|im_end|>]" in prompts[-1] and THOUGHT not in prompts[-1]


def test_responses_and_their_events(openai):
    asked = {"model": "tiny", "input": QUESTION}
    whole = openai.responses.create(**asked)
    with openai.responses.stream(**asked) as stream:
        events = list(stream)
    for found in (whole, events[-1].response):
        reasoning, message = found.output
        assert (reasoning.content[0].text, message.content[0].text) == (THOUGHT, FIVE)
        assert reasoning.content[0].type == "reasoning_text" and reasoning.summary == []
        assert found.usage.output_tokens_details.reasoning_tokens == THOUGHT_TOKENS
    kinds = list(dict.fromkeys(event.type.removeprefix("response.") for event in events))
    assert kinds[2:7] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
    ]
    assert "".join(one.delta for one in events if one.type == "response.reasoning_text.delta") == THOUGHT
    done = [event.output_index for event in events if event.type == "response.output_item.done"]
    assert done == [0, 1]
    again = openai.responses.create(model="tiny", input=[*whole.output, *MESSAGES])
    assert again.output_text == FIVE
    thinking = openai.responses.create(**asked, extra_body={"reasoning": {"effort": True}})
    assert thinking.reasoning.effort == "low"  # its one answer; it was told as medium, that of other models


def test_ollama(server, say, prompts):
    say(SAID)
    client = ollama.Client(server.url)
    for think in (None, True, "low"):
        found = client.chat("tiny", MESSAGES, think=think)
        assert (found.message.thinking, found.message.content) == (THOUGHT, FIVE)
        assert found.eval_count == TOKENS
    parts = list(client.generate("tiny", QUESTION, stream=True))
    assert "".join(part.thinking or "" for part in parts) == THOUGHT
    assert "".join(part.response for part in parts) == FIVE
    say(FIVE)
    assert client.chat("tiny", [*MESSAGES, found.message, *MESSAGES], think=False).message.thinking is None
    assert prompts[-1].endswith("assistant\n<think>\n\n</think>\n\n")


def test_the_answer_api_reads_the_value_behind_the_thought(server, say):
    """Neither the thought's value nor its wrong equation counts, also not in a vote."""
    say(SAID)
    with server.http() as http:
        whole = http.post("/v1/answer", json={"question": QUESTION}).json()
        assert (whole["value"], whole["text"], whole["thinking"]) == ("5", FIVE, THOUGHT)
        assert (whole["steps"], whole["usage"]["thinking_tokens"]) == ([], THOUGHT_TOKENS)
        vote = http.post("/v1/answer", json={"question": QUESTION, "effort": "medium"}).json()
        assert vote["tally"]["votes"] == {"5": 2} and vote["thinking"] == THOUGHT
        assert vote["usage"]["thinking_tokens"] == 2 * THOUGHT_TOKENS
        text = http.post("/v1/answer", json={"question": QUESTION, "stream": True}).text
    events = [block.splitlines() for block in text.strip().split("\n\n")]
    found = {"thinking": "", "text": ""}
    for kind, data in events:
        if (name := kind.removeprefix("event: ")) in found:
            found[name] += json.loads(data.removeprefix("data: "))["text"]
    assert found == {"thinking": THOUGHT, "text": FIVE}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "reasoning_effort": "none"}),
        ("/v1/chat/completions", {"messages": MESSAGES, "chat_template_kwargs": {"enable_thinking": False}}),
        ("/v1/chat/completions", {"messages": MESSAGES, "think_budget": 0}),
        ("/v1/responses", {"input": QUESTION, "reasoning": {"effort": "none"}}),
        ("/v1/answer", {"question": QUESTION, "effort": "none"}),
        ("/api/generate", {"model": "tiny", "prompt": QUESTION, "think": False, "stream": False}),
    ],
)
def test_thoughts_can_be_turned_off(server, say, prompts, path, body):
    say(FIVE)
    with server.http() as http:
        response = http.post(path, json=body)
    assert response.status_code == 200 and FIVE in response.text
    assert "X-Thirteen-Ignored" not in response.headers
    assert prompts[-1].endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(("fields", "kept"), [({"think_budget": 12}, 12), ({"max_tokens": 48}, 36)])
def test_a_budget_ends_the_thought(openai, fields, kept):
    """What the model would have gone on to think is then its answer."""
    extra, chosen = {"think_budget": fields.pop("think_budget", None)}, fields
    found = openai.chat.completions.create(
        model="tiny", messages=MESSAGES, logprobs=True, extra_body=extra, **chosen
    )
    message = found.choices[0].message
    assert message.reasoning_content == SAID[:kept].removeprefix("<think>\n").rstrip()
    assert message.content and SAID[kept:].lstrip().startswith(message.content[:4])


def test_text_completions_are_the_text_that_the_model_writes(openai):
    found = openai.completions.create(model="tiny", prompt="a", extra_body={"calculator": False})
    assert found.choices[0].text == SAID


def test_a_budget_must_be_a_number(server):
    response = httpx.post(f"{server.url}/v1/answer", json={"question": QUESTION, "think_budget": -1})
    assert response.status_code == 422 and "think_budget" in response.json()["error"]["message"]
