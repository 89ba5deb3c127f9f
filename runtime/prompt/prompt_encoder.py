"""Prompt encoder: conversations and texts to prompt tokens."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ...errors import PromptLengthError, RequestError
from ...files.json_file import json_texts
from ..options import check_type
from .chat_template import PROMPT_LENGTH_MAX, ChatTemplate, Json, JsonObject, Thinking
from .control_tokens import ControlNames, split_at_names

if TYPE_CHECKING:
    from ..llama.vocabulary import Vocabulary

JSON_NESTING_MAX = 64  # of tools, and of the arguments of their calls


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
    """A message of a conversation."""

    role: str  # the chat template's word: system, user, assistant, tool
    content: str  # the text
    tool_calls: tuple[ToolCall, ...] = ()  # functions that the model has called in it
    tool_call_id: str | None = None  # the call whose result it is

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
    return [Message(*turn) for pair in examples for turn in zip(("user", "assistant"), pair, strict=True)]


class PromptEncoder:
    """Encodes prompts with a model's chat template, or without one where the model has none.

    Text from outside never becomes a control token: messages, tools, and the arguments and results of their
    calls. See control_tokens.py.
    """

    def __init__(
        self,
        vocabulary: "Vocabulary",
        template: ChatTemplate,
        bytes_max: int = PROMPT_LENGTH_MAX,
        hint: str = "",
        examples_max: int = 0,
    ) -> None:
        """Encode for a model; texts of more than `bytes_max` are refused, with a hint.

        With an empty template, prompts with worked examples have at most `examples_max` tokens.
        """
        self._vocabulary, self._template = vocabulary, template
        self._bytes_max, self._hint = min(bytes_max, PROMPT_LENGTH_MAX), hint
        self._examples_max = examples_max
        self.template_source, self.takes_tools = template.source, template.takes_tools
        self.thinking = Thinking.of(self.template_source, vocabulary)
        self._names = ControlNames(vocabulary.control_tokens)

    def encode_conversation(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonObject] = (),
        think: bool | None = None,
        begin: str = "",
    ) -> tuple[int, ...]:
        """Encode a conversation and its tools, for the model's next message, which may have a beginning.

        Thoughts of earlier answers are left out. RequestError: all messages are empty, they or the tools are
        too long, or the template takes no tools, rejects the conversation, or makes control tokens of it.
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
            raise RequestError("tools: the model's chat template takes no tools")
        for value in (*tools, *(call.arguments for call in calls)):
            check_nesting(value)
        if not self.template_source:
            return self._encode_completion(messages, begin)
        asked = [[message.template_fields() for message in messages], [*tools]]
        self._check_length(json_texts(asked))
        render = partial(self._render, think if thinking else None)
        pieces = split_at_names(render, asked, self._names, self.template_source)
        return self._with_bos(self._encode([*pieces[:-1], pieces[-1] + begin]))

    def _render(self, think: bool | None, asked: list[Json]) -> str:
        """Render a conversation, and a thought without words if there is to be none."""
        messages, tools = asked
        prompt = self._template.render(messages, tools, think)
        return prompt + self.thinking.without_thought(prompt) if self.thinking and think is False else prompt

    def _encode_completion(self, messages: Sequence[Message], begin: str) -> tuple[int, ...]:
        """Encode a conversation for a model that only continues texts, after worked examples if they fit."""
        with suppress(PromptLengthError):
            tokens = self.encode_text(as_completion(messages) + (begin and f" {begin}"))
            if len(tokens) <= self._examples_max:
                return tokens
        return self.encode_text("\n\n".join(message.content for message in messages))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text without the chat template, with the tokenizer's begin-of-text token."""
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
        strips = False
        for text, name in zip(parts[::2], [*parts[1::2], None], strict=True):
            shown = text.lstrip() if strips else text
            yield from self._vocabulary.tokenize(shown, special=False, bos=False)
            if name is not None:
                yield self._vocabulary.control_tokens[name]
                strips = name in self._vocabulary.stripping_tokens

    def _with_bos(self, tokens: Iterable[int]) -> tuple[int, ...]:
        begin, tokens = tuple(self._vocabulary.tokenize("", special=False, bos=True)), tuple(tokens)
        return tokens if tokens[: len(begin)] == begin else begin + tokens


def check_nesting(value: Json, nesting: int = JSON_NESTING_MAX) -> None:
    """Raise RequestError if a tool, or the arguments of a call, are nested too deeply."""
    if isinstance(value, Mapping | list | tuple):
        if not nesting:
            raise RequestError(f"tools: nested more than {JSON_NESTING_MAX} deep")
        for inner in value.values() if isinstance(value, Mapping) else value:
            check_nesting(inner, nesting - 1)


WORKED_EXAMPLES = (
    (
        "A box has 12 pens. Tom takes 5 of them and then puts 2 back. How many pens are in the box?",
        "Tom takes 5 of the 12 pens and puts 2 back, so the box has 12 - 5 + 2 = 9 pens. The answer is 9.",
    ),
    (
        "Each of 6 bags has 8 apples. Ann eats 3 of the apples. How many apples are left?",
        "Each of the 6 bags has 8 apples and 3 apples are eaten, so 6 * 8 - 3 = 45 apples are left. "
        "The answer is 45.",
    ),
    (
        "A book of 120 pages costs 15 dollars. Mia reads 30 pages every day. How many days does she read?",
        "She reads 30 of the 120 pages every day, so she reads for 120 / 30 = 4 days. The answer is 4.",
    ),
    (
        "Ben is 14 years old. He is 5 years older than Eva. How old will Eva be in 3 years?",
        "Eva is 5 years younger than Ben, who is 14, and 3 years pass, so she will be 14 - 5 + 3 = 12. "
        "The answer is 12.",
    ),
)


_LABELS = {"user": "Question: ", "assistant": "Answer: "}
COMPLETION_STOP = "\nQuestion:"  # with which a base would go on after its answer


def as_completion(messages: Sequence[Message]) -> str:
    """The conversation after worked examples as a text that ends where the answer comes."""
    shown = [*with_worked_examples(()), *messages]
    turns = (_LABELS.get(one.role, "") + one.content + "\n" * (1 + (one.role != "user")) for one in shown)
    return "".join(turns) + "Answer:"


def with_worked_examples(messages: Sequence[Message]) -> list[Message]:
    """The conversation with worked examples before its first question."""
    first = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    return [*messages[:first], *example_messages(WORKED_EXAMPLES), *messages[first:]]
