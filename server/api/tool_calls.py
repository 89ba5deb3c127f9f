"""Tool calls: what an answer may call, its grammar, and the calls in its text.

Models write calls in one of two notations. Hermes and Qwen, whose chat templates name the tag, write
<tool_call>{"name": …, "arguments": {…}}</tool_call>, also behind other text. Llama 3 writes nothing but
{"name": …, "parameters": {…}}. Small models mix them, and write code fences: all of this is read.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from json import JSONDecoder
from typing import NamedTuple, Self
from uuid import uuid4

from ...errors import RequestError
from ...runtime.answer import Piece
from ...runtime.engine.engine import Engine
from ...runtime.grammar import Grammar, from_lark, from_schema
from ...runtime.prompt.prompt_encoder import ToolCall, check_nesting
from ..http_errors import HttpError, check_field
from .bodies import FunctionDefinition, Json, NamedFunction

_TAG, _END_TAG, _FENCE = "<tool_call>", "</tool_call>", "```"
# Where a call may begin: at a tag, or at a fence or an object at the start of a line.
_OPENING = re.compile(rf"(?P<tag>{_TAG})\s*|^[^\S\n]*(?:(?P<fence>{_FENCE})[\w-]*\s*|(?={{))", re.MULTILINE)
# The same while the text grows: also what may become a tag or a fence.
_MAY_OPEN = re.compile(rf"{_TAG}|<[a-z_]*\Z|^[^\S\n]*(?:{_FENCE}|{{|`+\Z)", re.MULTILINE)
# What stands behind the calls.
_CLOSED = {
    "tag": re.compile(rf"\s*(?:{_END_TAG}|\Z)"),
    "fence": re.compile(rf"\s*{_FENCE}"),
    None: re.compile(r"[^\S\n;]*;?[^\S\n]*(?=\n|\Z)"),
}
_BETWEEN_CALLS = re.compile(r"[\s;]*")
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


def parse_call(call_id: str, name: str, arguments: str, param: str) -> ToolCall:
    """A call that a client sends back; HttpError 400 if its arguments (`param`) are no JSON object."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        parsed = None
    check_field(isinstance(parsed, dict), param, "must be a JSON object, as text")
    return ToolCall(call_id, name, parsed)


class AnswerCall(NamedTuple):
    """A call in an answer; the arguments are a JSON object, as text."""

    name: str
    arguments: str
    id: str


class ToolUse(NamedTuple):
    """Tools of an answer.

    Attributes:
        tools: what the model is told of.
        functions: what it may call.
        required: whether it must call one of them.
        several: whether it may call more than one.
        tagged: whether the chat template writes tags around calls.
    """

    tools: Sequence[FunctionDefinition] = ()
    functions: Sequence[FunctionDefinition] = ()
    required: bool = False
    several: bool = True
    tagged: bool = False

    @classmethod
    def of(
        cls,
        tools: Sequence[FunctionDefinition],
        engine: Engine,
        choice: str | NamedFunction = "auto",
        *,
        several: bool = True,
    ) -> Self:
        """The tools of an answer; `choice` is auto, none, required, or the function to call.

        HttpError: 400 a call is required without tools, or of a function that is not there.
        """
        named = "" if isinstance(choice, str) else choice.name
        functions = [tool for tool in tools if named in ("", tool.name)]
        required = bool(named) or choice == "required"
        check_field(functions or not required, "tool_choice", f"requires {named or 'a function'} in tools")
        if choice == "none" or not tools:
            return cls()
        return cls(tools, functions, required, several, _TAG in engine.chat_template)

    def template_fields(self) -> list[Json]:
        """The tools as chat templates expect them."""
        functions = (
            tool.model_dump(include={"name", "description"}, exclude_none=True)
            | {"parameters": tool.parameters or _NO_PARAMETERS}
            for tool in self.tools
        )
        return [{"type": "function", "function": function} for function in functions]

    def grammar(self, text: Grammar | None = None) -> Grammar | None:
        """Grammar of the answer, None if it is free; calls that are required or strict follow their schemas.

        `text` is the grammar of an answer without calls. HttpError: 400 a schema is rejected.
        """
        strict = any(function.strict for function in self.functions)
        if not (self.required or strict or (text and self.functions)):
            return text
        start, key, end = _TAGGED_CALL if self.tagged else _BARE_CALL
        values = {f"a{number}": self._arguments(function) for number, function in enumerate(self.functions)}
        named = zip(self.functions, values, strict=True)
        calls = " | ".join(f"{json.dumps(function.name + key)} {rule}" for function, rule in named)
        rules = [f"call: {json.dumps(start)} function {json.dumps(end)}", f"function: {calls}"]
        if self.required or text:
            rules.append(f"start: {json.dumps(_TAG) if self.tagged else ''} call")
        else:
            rules.append(_TAGGED_ANSWER if self.tagged else _BARE_ANSWER)
        if text and not self.required:
            rules[-1] += " | text"
            values["text"] = text
        grammar = from_lark("\n".join(rules), values)
        return grammar if self.required or text else replace(grammar, digits=0)  # not in free text

    def _arguments(self, function: FunctionDefinition) -> Grammar:
        schema = (function.parameters or _NO_PARAMETERS) if self.required or function.strict else {}
        try:
            return from_schema({**schema, "type": "object"})
        except RequestError as error:
            raise HttpError(400, f"tools: {function.name}: {error}", param="tools") from None

    def parser(self) -> "ToolCallParser":
        """Parser of one answer."""
        return ToolCallParser(frozenset(function.name for function in self.functions), several=self.several)


NO_TOOL_USE = ToolUse()


class ToolCallParser:
    """Takes the calls out of the text of an answer while it is generated.

    What is no call of a known function remains text, and so does a call nested too deeply to be sent back in
    a prompt. White space before a call is dropped. Behind a call, other text begins a line of its own.
    """

    def __init__(self, names: frozenset[str], *, several: bool = True) -> None:
        """Start an answer that may call the functions of these names; see ToolUse."""
        self._names, self._several = names, several
        self._text, self._sent = "", 0  # all of it, and how many characters were certain to be no call

    def take(self, piece: Piece) -> tuple[str, list[AnswerCall]]:
        """Text and calls of a piece; the calls come with the last one."""
        text = self.feed(piece.text)
        rest, calls = self.finish() if piece.answer else ("", [])
        return text + rest, calls

    def feed(self, text: str) -> str:
        """Take more of the answer, and return what is certain not to belong to a call."""
        self._text += text
        certain = self._text[self._sent :]
        if self._names:
            opening = _MAY_OPEN.search(self._text, self._sent)
            certain = self._text[self._sent : opening.start() if opening else None].rstrip()
        self._sent += len(certain)
        return certain

    def finish(self) -> tuple[str, list[AnswerCall]]:
        """Return the rest of the text, and the calls; the answer is complete."""
        text, position = "", self._sent
        calls = dict[tuple[str, str], AnswerCall]()  # a model may repeat itself
        while self._names and (opening := _OPENING.search(self._text, position)):
            found, end = self._read_calls(opening)
            before = self._text[position : opening.start() if found else end]
            text += before.rstrip() if found else before
            for call in found:
                calls.setdefault((call.name, call.arguments), call)
            position = end
        rest = self._text[position:]
        text += rest.rstrip() if calls else rest
        return text, [*calls.values()][: None if self._several else 1]

    def _read_calls(self, opening: re.Match[str]) -> tuple[list[AnswerCall], int]:
        """The calls that begin at a place, and where they end; without calls, where to look on."""
        calls, end, position = list[AnswerCall](), opening.end(), opening.end()
        while found := self._read_call(position):
            calls.append(found[0])
            end, position = found[1], next(_BETWEEN_CALLS.finditer(self._text, found[1])).end()
        last = _CLOSED[opening.lastgroup].match(self._text, end)
        if calls and last:
            return calls, last.end()
        return [], max(opening.end("tag"), opening.end("fence"), opening.start() + 1)

    def _read_call(self, start: int) -> tuple[AnswerCall, int] | None:
        """Read a call of a known function, and return where it ends."""
        try:
            value, end = _DECODER.raw_decode(self._text, start)
            match value.get("function", value) if isinstance(value, dict) else None:
                case {"name": str(name), "arguments": dict(arguments)} | {
                    "name": str(name),
                    "parameters": dict(arguments),
                } if name in self._names:
                    check_nesting(arguments)
                    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode().decode()
                    return AnswerCall(name, text, f"call_{uuid4().hex}"), end
        except (ValueError, RecursionError, RequestError):  # no JSON, no text, or too deep for a prompt
            pass
        return None
