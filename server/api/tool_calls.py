"""Tool calls of chat completions: what an answer may call, its grammar, and the calls in its text.

Models write calls in one of two notations. Hermes and Qwen, whose chat templates name the tag, write
<tool_call>{"name": …, "arguments": {…}}</tool_call>, also behind other text. Llama 3 writes nothing but
{"name": …, "parameters": {…}}.
"""

import json
import re
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any, NamedTuple, Self
from uuid import uuid4

from ...errors import RequestError
from ...runtime.grammar.grammar import Grammar, from_lark, from_schema
from ...runtime.prompt.prompt_encoder import NO_TOOLS, check_nesting
from ..http_errors import HttpError
from .request_models import TOOLS_BYTES_MAX, ChatRequest, FunctionDefinition

Json = dict[str, Any]

_TAG, _END_TAG = "<tool_call>", "</tool_call>"
_SPACE, _BETWEEN_CALLS = re.compile(r"\s*"), re.compile(r"[\s;]*")
_DECODER = JSONDecoder(strict=False)  # models write line breaks in strings
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}
# What a call begins with, what stands between name and arguments, and its end; behind the tag.
_TAGGED_CALL = '\n{"name": "', '", "arguments": ', f"}}\n{_END_TAG}"
_BARE_CALL = '{"name": "', '", "parameters": ', "}"
# Answers that call a function or have a text, which must not look like a call.
_TAGGED_ANSWER = f"""
start: (before call)* TEXT?
before[lazy]: /(?s:.*){_TAG}/
TEXT: /(?s:.+)/ & ~/(?s:.*){_TAG}(?s:.*)/
"""
_BARE_ANSWER = r"""
start: call | TEXT
TEXT: /\s*([^{\s](?s:.*))?/
"""


def check_tools(body: ChatRequest, *, takes_tools: bool) -> None:
    """Check the fields of a request that speak of tools; `takes_tools` is whether the chat template does.

    Raises:
        HttpError: 400 they contradict each other, or the template takes no tools.
    """
    choice, names = body.tool_choice, [tool.function.name for tool in body.tools or ()]
    named = choice.function.name if choice and choice.function else None
    for field in ("tool_choice", "parallel_tool_calls"):
        if not names and getattr(body, field) is not None:
            raise HttpError(400, f"{field} requires tools", param=field)
    if names and not takes_tools:
        raise HttpError(400, f"tools: {NO_TOOLS}", param="tools")
    if len({*names}) < len(names):
        raise HttpError(400, "tools has two functions of the same name", param="tools")
    if choice and (choice.type == "function") == (named is None):
        raise HttpError(
            400,
            "tool_choice.function is required for the type function and not allowed otherwise",
            param="tool_choice.function",
        )
    if named is not None and named not in names:
        raise HttpError(
            400,
            f"tool_choice.function.name is {named}, which is no function in tools",
            param="tool_choice.function.name",
        )
    if names and body.response_format and body.response_format.type != "text":
        raise HttpError(400, "response_format cannot be combined with tools", param="response_format")


class AnswerCall(NamedTuple):
    """A call in an answer; the arguments are a JSON object, as text."""

    name: str
    arguments: str

    def to_json(self) -> Json:
        """The call as OpenAI's API describes it, with a new id."""
        return {"id": f"call_{uuid4().hex}", "type": "function", "function": self._asdict()}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What an answer may call.

    Attributes:
        tools: what the model is told of.
        functions: what it may call.
        required: whether it must call one of them.
        several: whether it may call more than one.
        tagged: whether it writes tags around calls.
    """

    tools: tuple[FunctionDefinition, ...] = ()
    functions: tuple[FunctionDefinition, ...] = ()
    required: bool = False
    several: bool = True
    tagged: bool = False

    @classmethod
    def of(cls, body: ChatRequest, chat_template: str) -> Self:
        """What the answer to a request may call; see check_tools()."""
        choice = body.tool_choice
        if not body.tools or (choice and choice.type == "none"):
            return cls()
        named = choice.function.name if choice and choice.function else None
        return cls(
            tools=tuple(tool.function for tool in body.tools),
            functions=tuple(tool.function for tool in body.tools if named in {None, tool.function.name}),
            required=choice is not None and choice.type != "auto",
            several=body.parallel_tool_calls is not False,
            tagged=_TAG in chat_template,
        )

    def template_fields(self) -> list[Json]:
        """The tools as chat templates expect them.

        Raises:
            HttpError: 400 they are too large.
        """
        fields: list[Json] = []
        for tool in self.tools:
            function: Json = {"name": tool.name}
            if tool.description is not None:
                function["description"] = tool.description
            function["parameters"] = tool.parameters or _NO_PARAMETERS
            fields.append({"type": "function", "function": function})
        try:
            size = len(json.dumps(fields))
        except RecursionError:
            raise HttpError(400, "tools is nested too deeply", param="tools") from None
        if size > TOOLS_BYTES_MAX:
            raise HttpError(
                400, f"tools has {size} bytes as JSON, more than {TOOLS_BYTES_MAX}", param="tools"
            )
        return fields

    def grammar(self) -> Grammar | None:
        """Grammar of the answer, None if it is free; calls that are required or strict follow their schemas.

        Raises:
            HttpError: 400 a schema cannot be enforced.
        """
        if not (self.required or any(function.strict for function in self.functions)):
            return None
        start, key, end = _TAGGED_CALL if self.tagged else _BARE_CALL
        numbers = range(len(self.functions))
        rules = [
            f"call: {json.dumps(start)} function {json.dumps(end)}",
            "function: " + " | ".join(f"f{number}" for number in numbers),
        ]
        for number, function in enumerate(self.functions):
            rules.append(f"f{number}: {json.dumps(function.name + key)} a{number}")
        if self.required:
            rules.append(f"start: {json.dumps(_TAG)} call" if self.tagged else "start: call")
        else:
            rules.append(_TAGGED_ANSWER if self.tagged else _BARE_ANSWER)
        values = {f"a{number}": self._arguments(self.functions[number]) for number in numbers}
        return from_lark("\n".join(rules), values)

    def _arguments(self, function: FunctionDefinition) -> Grammar:
        schema = (function.parameters or _NO_PARAMETERS) if self.required or function.strict else {}
        if schema.get("type", "object") != "object":
            raise HttpError(400, f'tools: {function.name}: schema: "type" must be "object"', param="tools")
        try:
            return from_schema({"type": "object"} | schema)
        except RequestError as error:
            raise HttpError(400, f"tools: {function.name}: {error}", param="tools") from None

    def parser(self) -> "ToolCallParser":
        """Parser of one answer."""
        return ToolCallParser(
            frozenset(one.name for one in self.functions), tagged=self.tagged, several=self.several
        )


class ToolCallParser:
    """Takes the calls out of the text of an answer while it is generated.

    What is no call of a known function remains text, and so does a call nested too deeply to be sent back in
    a prompt. White space before a call is dropped.
    """

    def __init__(self, names: frozenset[str], *, tagged: bool, several: bool = True) -> None:
        """Start an answer that may call the functions of these names; see ToolUse."""
        self._names, self._tagged, self._several = names, tagged, several
        self._held = ""  # what may belong to a call
        self._in_call = self._is_text = False

    def feed(self, text: str) -> str:
        """Take more of the answer, and return what is certain not to belong to a call."""
        self._held += text
        end = self._certain()
        certain, self._held = self._held[:end], self._held[end:]
        return certain

    def finish(self) -> tuple[str, list[AnswerCall]]:
        """Return the rest of the text, and the calls; the answer is complete."""
        if not self._in_call:
            return self._held, []
        text, calls = self._tagged_calls() if self._tagged else self._bare_calls()
        return text, calls if self._several else calls[:1]

    def _certain(self) -> int:
        """How many of the held characters are certain not to belong to a call."""
        if self._in_call:
            return 0
        if not self._tagged:
            first = "" if self._is_text else self._held.lstrip()[:1]
            self._in_call, self._is_text = first == "{", self._is_text or first not in {"", "{"}
            return len(self._held) if self._is_text else 0
        end = self._held.find(_TAG)
        self._in_call = end >= 0
        if end < 0:
            begun = next((size for size in range(len(_TAG), 0, -1) if self._held.endswith(_TAG[:size])), 0)
            end = len(self._held) - begun
        return len(self._held[:end].rstrip())

    def _bare_calls(self) -> tuple[str, list[AnswerCall]]:
        """The calls that are the whole text, or the text."""
        calls, position = [], _after(_SPACE, self._held, 0)
        while position < len(self._held):
            call, end = self._read_call(self._held, position)
            if call is None:
                return self._held, []
            calls.append(call)
            position = _after(_BETWEEN_CALLS, self._held, end)
        return "", calls

    def _tagged_calls(self) -> tuple[str, list[AnswerCall]]:
        """The calls in the text, and the text without them."""
        text, calls, position = [], [], 0
        while (start := self._held.find(_TAG, position)) >= 0:
            call, end = self._read_call(self._held, _after(_SPACE, self._held, start + len(_TAG)))
            end = _after(_SPACE, self._held, end)
            closed = self._held.startswith(_END_TAG, end) or end == len(self._held)
            if call is None or not closed:
                end = start + len(_TAG)
                text.append(self._held[position:end])
            else:
                end = min(end + len(_END_TAG), len(self._held))
                text.append(self._held[position:start].rstrip())
                calls.append(call)
            position = end
        rest = self._held[position:]
        return "".join([*text, rest.rstrip() if calls else rest]), calls

    def _read_call(self, text: str, start: int) -> tuple[AnswerCall | None, int]:
        """Read a call of a known function, and return where it ends."""
        try:
            value, end = _DECODER.raw_decode(text, start)
            match value:
                case {"name": str(name), "arguments": dict(arguments)} | {
                    "name": str(name),
                    "parameters": dict(arguments),
                } if name in self._names:
                    check_nesting(arguments)
                    return AnswerCall(name, json.dumps(arguments, allow_nan=False)), end
        except (ValueError, RecursionError, RequestError):  # no JSON, or too deep for the next prompt
            pass
        return None, start


def _after(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where a match of the pattern ends that begins at `start`; it may be empty."""
    match = pattern.match(text, start)
    assert match, "the pattern matches the empty text"
    return match.end()
