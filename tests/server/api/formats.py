"""The HTTP formats as the tests see them: how each asks, and what each says, whole and as a stream."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from thirteen.runtime.answer import VoteTally

Json = dict[str, Any]


@dataclass
class Said:
    """What an answer says; of a stream, what its events say together."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Json]] = field(default_factory=list)
    end: str | None = None
    tokens: int = 0
    warning: str = ""

    def add(self, other: "Said") -> None:
        self.text, self.reasoning = self.text + other.text, self.reasoning + other.reasoning
        self.calls += other.calls
        self.end, self.tokens = other.end or self.end, other.tokens or self.tokens
        self.warning += other.warning


@dataclass(frozen=True)
class Format:
    """A format: its path, its body for a conversation with options, and its answers and their parts."""

    path: str
    body: Callable[[list[Json], Json], Json]
    whole: Callable[[Json], Said]
    part: Callable[[Json], Said]
    back: Callable[[Json], list[Json]] | None = None  # a call and its result, as messages

    def post(self, http: httpx.Client, asked: str | list[Json], **options: Any) -> httpx.Response:
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        return http.post(self.path, json=self.body(messages, options))

    def ask(self, http: httpx.Client, asked: str | list[Json], **options: Any) -> Said:
        response = self.post(http, asked, **options)
        assert response.status_code == 200, response.text
        if not options.get("stream"):
            return self.whole(response.json())
        said = Said()
        for event in events(response.text):
            said.add(self.part(event))
        return said


def events(text: str) -> list[Json]:
    """The events of a stream, in either kind of lines; `event` is the name of one that has a name."""
    found, named = list[Json](), dict[str, str]()
    for line in text.split("\n"):
        if line.startswith("event: "):
            named = {"event": line.removeprefix("event: ")}
        elif (data := line.removeprefix("data: ")).startswith("{"):
            found.append(json.loads(data) | named)
    return found


def _named(options: Json, **names: str) -> Json:
    return {names.get(name, name): value for name, value in options.items()}


def _calls(found: Iterable[Json]) -> list[tuple[str, Json]]:
    return [(one["name"], json.loads(one["arguments"])) for one in found]


def _chat_body(messages: list[Json], options: Json) -> Json:
    body = _named(options, effort="reasoning_effort")
    if schema := body.pop("schema", None):
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    if body.get("stream"):
        body["stream_options"] = {"include_usage": True}
    return {"messages": messages, **body}


def _chat_said(found: Json) -> Said:
    said = Said(tokens=(found.get("usage") or {}).get("completion_tokens", 0))
    for choice in found["choices"]:
        message = choice.get("message") or choice["delta"]
        said.text = message.get("content") or ""
        said.reasoning, said.end = message.get("reasoning_content", ""), choice["finish_reason"]
        said.calls = _calls(call["function"] for call in message.get("tool_calls", ()))
        said.warning = choice.get("warning", "")
    return said


def _chat_back(found: Json) -> list[Json]:
    message = found["choices"][0]["message"]
    return [message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Rain"}]


def _responses_body(messages: list[Json], options: Json) -> Json:
    body = _named(options, max_tokens="max_output_tokens")
    if "effort" in body:
        body["reasoning"] = {"effort": body.pop("effort")}
    if "tools" in body:
        body["tools"] = [{"type": tool["type"], **tool["function"]} for tool in body["tools"]]
    if schema := body.pop("schema", None):
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    return {"input": messages, **body}


def _responses_said(found: Json) -> Said:
    reason = {"completed": "stop", "incomplete": "length"}[found["status"]]
    said = Said(end=reason, tokens=found["usage"]["output_tokens"])
    for item in found["output"]:
        if item["type"] == "reasoning":
            said.reasoning = "".join(part["text"] for part in (*item["summary"], *item.get("content", ())))
        elif item["type"] == "message":
            said.text, said.warning = item["content"][0]["text"], item.get("warning", "")
        else:
            said.calls, said.end = said.calls + _calls([item]), "tool_calls"
    return said


def _responses_back(found: Json) -> list[Json]:
    call_id = found["output"][-1]["call_id"]
    return [*found["output"], {"type": "function_call_output", "call_id": call_id, "output": "Rain"}]


def _responses_part(event: Json) -> Said:
    match event["type"].removeprefix("response."):
        case "output_text.delta":
            return Said(event["delta"])
        case "reasoning_text.delta" | "reasoning_summary_text.delta":
            return Said(reasoning=event["delta"])
        case "output_item.done" if event["item"]["type"] == "function_call":
            return Said(calls=_calls([event["item"]]))
        case "completed" | "incomplete":
            return replace(_responses_said(event["response"]), text="", reasoning="", calls=[])
    return Said()


def _ollama_body(messages: list[Json], options: Json) -> Json:
    body = {"model": "default", "stream": False, **_named(options, effort="think", schema="format")}
    names = {"max_tokens": "num_predict", "temperature": "temperature", "stop": "stop"}
    given = {names[name]: body.pop(name) for name in names if name in body}
    return {"messages": messages, **body, "options": given}


def _generate_body(messages: list[Json], options: Json) -> Json:
    body = _ollama_body(messages, options)
    return {"prompt": body.pop("messages")[-1]["content"], **body}


def _ollama_said(found: Json) -> Said:
    assert found["done"] == ("done_reason" in found)
    message = found.get("message") or found | {"content": found["response"]}
    said = Said(message["content"], message.get("thinking", ""), end=found.get("done_reason"))
    said.tokens, said.warning = found.get("eval_count", 0), found.get("warning", "")
    functions = [call["function"] for call in message.get("tool_calls", ())]
    said.calls = [(one["name"], one["arguments"]) for one in functions]
    return said


def _ollama_back(found: Json) -> list[Json]:
    return [found["message"], {"role": "tool", "content": "Rain", "tool_name": "weather"}]


def _answer_body(messages: list[Json], options: Json) -> Json:
    return {"question": messages[-1]["content"], **options}


def _tally(tally: Json) -> str:
    return f"{VoteTally(tally['asked'], tally['ended'], tally['votes']).agreement}\n"


def _answer_said(found: Json) -> Said:
    reasoning = (_tally(found["tally"]) if found["tally"] else "") + found["thinking"]
    end = "length" if found["stop_reason"] == "length" else "stop"
    return Said(found["text"], reasoning, [], end, found["usage"]["completion_tokens"])


def _answer_part(event: Json) -> Said:
    match event["event"]:
        case "text":
            return Said(event["text"])
        case "thinking":
            return Said(reasoning=event["text"])
        case "tally":
            return Said(reasoning=_tally(event))
        case "answer":
            return replace(_answer_said(event), text="", reasoning="")
    return Said()


FORMATS = {
    "chat": Format("/v1/chat/completions", _chat_body, _chat_said, _chat_said, _chat_back),
    "responses": Format("/v1/responses", _responses_body, _responses_said, _responses_part, _responses_back),
    "ollama chat": Format("/api/chat", _ollama_body, _ollama_said, _ollama_said, _ollama_back),
    "ollama generate": Format("/api/generate", _generate_body, _ollama_said, _ollama_said),
    "answer": Format("/v1/answer", _answer_body, _answer_said, _answer_part),
}
CHATS = ("chat", "responses", "ollama chat")  # that take conversations and tools
