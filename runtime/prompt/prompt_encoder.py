"""Prompt encoder: questions, conversations and texts to prompt tokens."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from ...errors import PromptLengthError, RequestError

PROMPT_CHARACTERS_MAX = 1 << 22  # of a prompt's texts, and of what a chat template makes of them
PRIVATE_USE = range(0xF0000, 0x10FFFE)  # characters that no tokenizer or template uses
JSON_NESTING_MAX = 64  # of tools, and of the arguments of their calls
NO_TOOLS = "the model's chat template takes no tools"

Json = Any  # a JSON value
JsonObject = Mapping[str, Json]


class PromptVocabulary(Protocol):
    """The part of llama.model.Model that turns text into tokens."""

    @property
    def control_tokens(self) -> dict[str, int]:
        """Control tokens by name."""

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """Split a text into tokens."""


class PromptTemplate(Protocol):
    """A model's chat template; see chat_template.ChatTemplate."""

    source: str
    takes_tools: bool

    def render(self, messages: Sequence[JsonObject], tools: Sequence[JsonObject] = ()) -> str:
        """Render a conversation as a prompt for the model's next message."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function by the model."""

    id: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation.

    Attributes:
        role: the chat template's word: system, user, assistant, tool.
        content: the text.
        tool_calls: functions that the model has called in it.
        tool_call_id: the call whose result it is.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def template_fields(self) -> dict[str, Json]:
        """The message as chat templates expect it: in the form of OpenAI's API, with parsed arguments."""
        fields: dict[str, Json] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        return fields


class PromptEncoder:
    """Encodes prompts with a model's chat template, or without one where the model has none.

    Text from outside never becomes a control token: messages, tools, and the arguments and results of their
    calls. A marker, a private-use character that occurs nowhere else, breaks every name of a control token in
    such a text. It also breaks the beginning of a name at the text's end, where the template might put
    another text with the rest of the name. After rendering, only the names that the template wrote are whole.
    The text between them loses its markers and is tokenized as plain text. Any other text reaches the
    template unchanged.
    """

    def __init__(
        self, vocabulary: PromptVocabulary, template: PromptTemplate | None, bytes_max: int | None = None
    ) -> None:
        """Encode for a model; texts of more than `bytes_max` bytes are refused before they are tokenized."""
        self._vocabulary, self._template, self._bytes_max = vocabulary, template, bytes_max
        longest_first = sorted(vocabulary.control_tokens, key=len, reverse=True)  # as tokenizers match them
        self._names = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._name_start = re.compile(f"(?={self._names})")
        self._sorted_names = sorted(longest_first)
        self._name_max = max(map(len, longest_first), default=0)

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    @property
    def template_source(self) -> str:
        """The chat template, in Jinja; empty if the model has none."""
        return self._template.source if self._template else ""

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template tells the model of tools."""
        return self._template is not None and self._template.takes_tools

    def encode_question(self, question: str, system: str | None = None) -> tuple[int, ...]:
        """Encode a question, and a system prompt.

        Raises:
            RequestError: the question is empty or too long (PromptLengthError), or the template rejects it.
        """
        if not question.strip():
            raise RequestError("the question is empty")
        user = Message("user", question)
        return self.encode_conversation([Message("system", system), user] if system else [user])

    def encode_conversation(
        self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()
    ) -> tuple[int, ...]:
        """Encode a conversation, for the model's next message.

        Args:
            messages: what was said so far.
            tools: what the model may call, each in the form of OpenAI's API.

        Raises:
            RequestError: all messages are empty, they or the tools are too long, or the template takes no
                tools or rejects the conversation.
        """
        contents = [message.content for message in messages]
        fields = [message.template_fields() for message in messages]
        calls = [one["tool_calls"] for one in fields if "tool_calls" in one]
        if not (calls or any(map(str.strip, contents))):
            raise RequestError("the conversation is empty")
        results = [message for message in messages if message.tool_call_id is not None]
        if (tools or calls or results) and not self.takes_tools:
            raise RequestError(f"tools: {NO_TOOLS}")
        for value in (*tools, *(call.arguments for message in messages for call in message.tool_calls)):
            check_nesting(value)
        if self._template is None:
            return self.encode_text("\n\n".join(contents))
        strings = list(_strings([fields, tools]))
        self._check_length(strings)
        marker = _unused_character(self._template.source, *strings)
        prompt = self._template.render(self._mark_all(fields, marker), self._mark_all(list(tools), marker))
        return self._with_bos(self._encode(prompt, marker))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text without the chat template, with the tokenizer's begin-of-text token.

        Raises:
            RequestError: the text is too long.
        """
        self._check_length([text])
        return tuple(self._vocabulary.tokenize(text, special=False, bos=True))

    def _check_length(self, texts: Sequence[str]) -> None:
        if (characters := sum(map(len, texts))) > PROMPT_CHARACTERS_MAX:
            raise RequestError(
                f"the prompt has {characters} characters; at most {PROMPT_CHARACTERS_MAX} are accepted"
            )
        nbytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if self._bytes_max is not None and nbytes > self._bytes_max:
            raise PromptLengthError(
                f"the prompt has {nbytes} bytes, but the context holds at most {self._bytes_max}"
            )

    def _mark_all(self, value: Json, marker: str) -> Json:
        """Mark all strings of a JSON value, names included."""
        if isinstance(value, str):
            return self._mark(value, marker)
        if isinstance(value, Mapping):
            return {self._mark(name, marker): self._mark_all(inner, marker) for name, inner in value.items()}
        return (
            [self._mark_all(inner, marker) for inner in value] if isinstance(value, list | tuple) else value
        )

    def _mark(self, text: str, marker: str) -> str:
        """Put a marker behind the first character of each name, and of each beginning of one at the end.

        The end is also that without white space, which a template may trim.
        """
        names = {match.start() + 1 for match in self._name_start.finditer(text)}
        beginnings = {
            start + 1
            for end in (len(text), len(text.rstrip()))
            for start in range(max(end - self._name_max, 0), end)
            if self._begins_name(text[start:end])
        }
        cuts = sorted(names | beginnings)
        return (
            marker.join(text[start:end] for start, end in pairwise([0, *cuts, len(text)])) if cuts else text
        )

    def _begins_name(self, text: str) -> bool:
        at = bisect_left(self._sorted_names, text)  # names that begin with a text follow it in the order
        return at < len(self._sorted_names) and self._sorted_names[at].startswith(text)

    def _encode(self, prompt: str, marker: str) -> Iterator[int]:
        parts = re.split(f"({self._names})(?!{marker})", prompt)  # text, name, text, name, …, text
        for text, name in zip(parts[::2], [*parts[1::2], None], strict=True):
            yield from self._vocabulary.tokenize(text.replace(marker, ""), special=False, bos=False)
            if name is not None:
                yield self._vocabulary.control_tokens[name]

    def _with_bos(self, tokens: Iterable[int]) -> tuple[int, ...]:
        """Add the tokenizer's begin-of-text token, unless the template wrote it."""
        begin, tokens = tuple(self._vocabulary.tokenize("", special=False, bos=True)), tuple(tokens)
        return tokens if tokens[: len(begin)] == begin else begin + tokens


def check_nesting(value: Json, nesting: int = JSON_NESTING_MAX) -> None:
    """Raise RequestError if a tool, or the arguments of a call, are nested too deeply."""
    if isinstance(value, Mapping | list | tuple):
        if not nesting:
            raise RequestError(f"tools: nested more than {JSON_NESTING_MAX} deep")
        for inner in value.values() if isinstance(value, Mapping) else value:
            check_nesting(inner, nesting - 1)


def _strings(value: Json) -> Iterator[str]:
    """All strings of a JSON value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        if isinstance(value, Mapping):
            yield from value
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)


def _unused_character(*texts: str) -> str:
    used = set().union(*texts)
    character = next((chr(code) for code in PRIVATE_USE if chr(code) not in used), None)
    if character is None:
        raise RequestError("the prompt uses every private-use character of Unicode")
    return character
