"""Prompt encoder: conversations and texts to prompt tokens."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import PromptLengthError, RequestError
from ...files.json_file import json_texts
from ..validation import check_type
from .control_tokens import ControlNames, split_at_names
from .thinking import Thinking

if TYPE_CHECKING:
    from ..llama.vocabulary import Vocabulary
    from .chat_template import ChatTemplate

PROMPT_LENGTH_MAX = 1 << 22  # bytes of a prompt's texts, and characters that a chat template makes of them
JSON_NESTING_MAX = 64  # of tools, and of the arguments of their calls
TURN_ROLES = ("user", "assistant")  # of the turns of a conversation
NO_TOOLS = "the model's chat template takes no tools"

Json = Any  # a JSON value
JsonObject = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function by the model."""

    id: str
    name: str
    arguments: JsonObject

    def template_fields(self) -> dict[str, Json]:
        """The call as chat templates expect it: in the form of OpenAI's API, with parsed arguments."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


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
        """The message as chat templates expect it: in the form of OpenAI's API."""
        fields: dict[str, Json] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [call.template_fields() for call in self.tool_calls]
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        return fields


def example_messages(examples: Iterable[tuple[str, str]]) -> list[Message]:
    """Worked examples, each a question and its answer, as turns of a conversation."""
    return [Message(role, text) for pair in examples for role, text in zip(TURN_ROLES, pair, strict=True)]


class PromptEncoder:
    """Encodes prompts with a model's chat template, or without one where the model has none.

    Text from outside never becomes a control token: messages, tools, and the arguments and results of their
    calls. See control_tokens.py.

    Attributes:
        template_source: the chat template, in Jinja; empty if the model has none.
        takes_tools: whether it tells the model of tools.
        thinking: how the model thinks; None if it does not.
    """

    def __init__(
        self,
        vocabulary: "Vocabulary",
        template: "ChatTemplate | None",
        bytes_max: int = PROMPT_LENGTH_MAX,
        hint: str = "",
        examples_max: int = 0,
    ) -> None:
        """Encode for a model.

        Args:
            vocabulary: the model's vocabulary.
            template: its chat template.
            bytes_max: texts of more bytes are refused before they are tokenized.
            hint: the end of the error, with what to do about it.
            examples_max: tokens of the longest prompt with worked examples, for a model without a template.
        """
        self._vocabulary, self._template = vocabulary, template
        self._bytes_max, self._hint = min(bytes_max, PROMPT_LENGTH_MAX), hint
        self._examples_max = examples_max
        self.template_source, self.takes_tools = (
            (template.source, template.takes_tools) if template else ("", False)
        )
        self.thinking = Thinking.of(self.template_source, vocabulary)
        self._names = ControlNames(vocabulary.control_tokens)

    def encode_conversation(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonObject] = (),
        think: bool | None = None,
        begin: str = "",
    ) -> tuple[int, ...]:
        """Encode a conversation, for the model's next message.

        Args:
            messages: what was said so far; thoughts of earlier answers are left out.
            tools: what the model may call, each in the form of OpenAI's API.
            think: whether a model that can think is to do so; None leaves it to the template.
            begin: beginning of that message, which the model continues.

        Raises:
            RequestError: all messages are empty, they or the tools are too long, or the template takes no
                tools, rejects the conversation, or makes control tokens of it.
        """
        if thinking := self.thinking:
            messages = [
                replace(one, content=thinking.answer(one.content)) if one.role == "assistant" else one
                for one in messages
            ]
        calls = [call for message in messages for call in message.tool_calls]
        if not (calls or any(message.content.strip() for message in messages)):
            raise RequestError("the conversation is empty")
        results = any(message.tool_call_id is not None for message in messages)
        if (tools or calls or results) and not self.takes_tools:
            raise RequestError(f"tools: {NO_TOOLS}")
        for value in (*tools, *(call.arguments for call in calls)):
            check_nesting(value)
        if self._template is None:
            return self._encode_completion(messages, begin)
        asked = [[message.template_fields() for message in messages], [*tools]]
        self._check_length(json_texts(asked))
        render = partial(self._render, self._template, think if thinking else None)
        pieces = split_at_names(render, asked, self._names, self.template_source)
        return self._with_bos(self._encode([*pieces[:-1], pieces[-1] + begin]))

    def _render(self, template: "ChatTemplate", think: bool | None, asked: list[Json]) -> str:
        """Render a conversation, and a thought without words if there is to be none."""
        messages, tools = asked
        prompt = template.render(messages, tools, think)
        return prompt + self.thinking.without_thought(prompt) if self.thinking and think is False else prompt

    def _encode_completion(self, messages: Sequence[Message], begin: str) -> tuple[int, ...]:
        """Encode a conversation for a model that only continues texts, after worked examples if they fit."""
        from .worked_examples import as_completion  # noqa: PLC0415 - it imports this module

        with suppress(PromptLengthError):
            tokens = self.encode_text(as_completion(messages) + (begin and f" {begin}"))
            if len(tokens) <= self._examples_max:
                return tokens
        return self.encode_text("\n\n".join(message.content for message in messages))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text without the chat template, with the tokenizer's begin-of-text token.

        Raises:
            RequestError: the text is too long.
        """
        check_type("text", text, str)
        self._check_length([text])
        return tuple(self._vocabulary.tokenize(text, special=False, bos=True))

    def _check_length(self, texts: Iterable[str]) -> None:
        nbytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if nbytes > self._bytes_max:
            raise PromptLengthError(
                f"the prompt has {nbytes} bytes, but the context holds at most {self._bytes_max}"
                f"; {self._hint}"
            )

    def _encode(self, parts: Sequence[str]) -> Iterator[int]:
        """Encode text, name, text, name, …, text."""
        strips = False
        for text, name in zip(parts[::2], [*parts[1::2], None], strict=True):
            shown = text.lstrip() if strips else text
            yield from self._vocabulary.tokenize(shown, special=False, bos=False)
            if name is not None:
                yield self._vocabulary.control_tokens[name]
                strips = name in self._vocabulary.stripping_tokens

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
