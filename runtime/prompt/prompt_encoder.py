"""Prompt encoder: questions, conversations and texts to prompt tokens."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ...errors import PromptLengthError, RequestError
from ...files.json_file import json_texts
from ..validation import check_type
from .thinking import PromptVocabulary, Thinking

if TYPE_CHECKING:
    from .chat_template import ChatTemplate
    from .question_prompt import QuestionPrompt
    from .template_process import TemplateProcess

PROMPT_CHARACTERS_MAX = 1 << 22  # of a prompt's texts, and of what a chat template makes of them
JSON_NESTING_MAX = 64  # of tools, and of the arguments of their calls
TURN_ROLES = ("user", "assistant")  # of the turns of a conversation
NO_TOOLS = "the model's chat template takes no tools"

Json = Any  # a JSON value
JsonObject = Mapping[str, Json]
Sight = Literal["all", "patterns", "lengths"]  # of the texts by a template; see hidden_text.StandIns


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


def question_messages(question: str, system: str | None = None) -> list[Message]:
    """The conversation that asks a question."""
    user = Message("user", question)
    return [Message("system", system), user] if system else [user]


def example_messages(examples: Iterable[tuple[str, str]]) -> list[Message]:
    """Worked examples, each a question and its answer, as turns of a conversation."""
    return [Message(role, text) for pair in examples for role, text in zip(TURN_ROLES, pair, strict=True)]


class ControlNames:
    """Finds names in texts, the longest first, as tokenizers do.

    The time is that of the text times the number of lengths that names with one first character have, however
    many names there are. A regular expression would try one name after the other, and hold Python's lock.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(filter(None, names))
        lengths: dict[str, set[int]] = {}
        for name in self._names:
            lengths.setdefault(name[0], set()).add(len(name))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._first = re.compile(f"[{''.join(map(re.escape, lengths))}]" if lengths else r"(?!)")

    def split(self, text: str) -> list[str]:
        """Split a text at names, into text, name, text, name, …, text."""
        parts, end = [], 0
        for match in self._first.finditer(text):
            start = match.start()
            if start < end:
                continue
            for length in self._lengths[text[start]]:
                name = text[start : start + length]
                if name in self._names:
                    parts += [text[end:start], name]
                    end = start + length
                    break
        return [*parts, text[end:]]


class PromptEncoder:
    """Encodes prompts with a model's chat template, or without one where the model has none.

    Text from outside never becomes a control token: messages, tools, and the arguments and results of their
    calls. Names of control tokens are looked for in what the template itself has written only; see
    hidden_text.py. Each conversation is rendered twice: which control tokens there are must not hang on what
    the texts say, so they are those of a template that sees only the lengths of texts. If one that sees the
    texts writes others, one that does not read them is tried, and then the conversation is refused.

    Attributes:
        thinking: how the model thinks; None if it does not.
    """

    def __init__(
        self,
        vocabulary: PromptVocabulary,
        template: "ChatTemplate | TemplateProcess | None",
        bytes_max: int | None = None,
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
        self._hint, self._examples_max = hint, examples_max
        self._vocabulary, self._template, self._bytes_max = vocabulary, template, bytes_max
        self._names = ControlNames(vocabulary.control_tokens)
        self.thinking = Thinking.of(template.source, vocabulary) if template else None

    @property
    def template_source(self) -> str:
        """The chat template, in Jinja; empty if the model has none."""
        return self._template.source if self._template else ""

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template tells the model of tools."""
        return self._template is not None and self._template.takes_tools

    def encode_question(
        self,
        question: str,
        system: str | None = None,
        think: bool | None = None,
        prompt: "QuestionPrompt | None" = None,
    ) -> tuple[int, ...]:
        """Encode a question, a system prompt, and what else stands around it; see encode_conversation().

        Raises:
            RequestError: the question is empty or too long (PromptLengthError), or the template rejects it.
        """
        if not question.strip():
            raise RequestError("the question is empty")
        if prompt is None:
            return self.encode_conversation(question_messages(question, system), think=think)
        return self.encode_conversation(prompt.messages(question, system), think=think, begin=prompt.begin)

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
        for message in messages:
            check_type("messages: each", message, Message)
        if thinking := self.thinking:
            messages = [
                replace(one, content=thinking.answer(one.content)) if one.role == "assistant" else one
                for one in messages
            ]
        calls = [call for message in messages for call in message.tool_calls]
        if not (calls or any(message.content.strip() for message in messages)):
            raise RequestError("the conversation is empty")
        results = [message for message in messages if message.tool_call_id is not None]
        if (tools or calls or results) and not self.takes_tools:
            raise RequestError(f"tools: {NO_TOOLS}")
        for value in (*tools, *(call.arguments for call in calls)):
            check_nesting(value)
        if self._template is None:
            return self._encode_completion(messages, begin)
        fields = [message.template_fields() for message in messages]
        self._check_length([*json_texts([fields, tools])])
        render = partial(self._render, self._template, fields, tools, think)
        names = render("lengths")[1::2]
        sights: tuple[Sight, ...] = ("all", "patterns")
        for sight in sights:
            if (pieces := render(sight))[1::2] == names:
                return self._with_bos(self._encode([*pieces[:-1], pieces[-1] + begin]))
        raise RequestError("the chat template makes control tokens of texts")

    def _render(
        self,
        template: "ChatTemplate | TemplateProcess",
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject],
        think: bool | None,
        sight: Sight,
    ) -> list[str]:
        """Render a conversation as text, name of a control token, text, …, text."""
        parts = template.parts(messages, tools, sight, think if self.thinking else None)
        if self.thinking and think is False:
            parts[-1] += self.thinking.without_thought(parts[-1])
        return self._split(parts)

    def _encode_completion(self, messages: Sequence[Message], begin: str) -> tuple[int, ...]:
        """Encode a conversation for a model that only continues texts, after worked examples if they fit."""
        from .worked_examples import as_completion  # noqa: PLC0415 - it imports this module

        if self._examples_max:
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

    def _check_length(self, texts: Sequence[str]) -> None:
        if (characters := sum(map(len, texts))) > PROMPT_CHARACTERS_MAX:
            raise PromptLengthError(
                f"the prompt has {characters} characters; at most {PROMPT_CHARACTERS_MAX} are accepted"
            )
        nbytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if self._bytes_max is not None and nbytes > self._bytes_max:
            raise PromptLengthError(
                f"the prompt has {nbytes} bytes, but the context holds at most {self._bytes_max}"
                f"; {self._hint}"
            )

    def _split(self, parts: Sequence[str]) -> list[str]:
        """Split what a template has written, a text, … at the names in the former: text, name, …, text."""
        found, text = [], []
        for at, part in enumerate(parts):
            first, *rest = [part] if at % 2 else self._names.split(part)
            text.append(first)
            for name, after in zip(rest[::2], rest[1::2], strict=True):
                found += ["".join(text), name]
                text = [after]
        return [*found, "".join(text)]

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
