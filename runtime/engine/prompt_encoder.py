"""Prompt encoder: questions, conversations and texts to prompt tokens."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import PromptLengthError, RequestError
from .prefix_cache import common_length

PROMPT_CHARACTERS_MAX = 1 << 22  # of a prompt's texts, and of what a chat template makes of them
PRIVATE_USE = range(0xF0000, 0x10FFFE)  # characters that no tokenizer or template uses


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

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Render a conversation as a prompt for the model's next message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation; `role` is the chat template's word: system, user, assistant."""

    role: str
    content: str


class PromptEncoder:
    """Encodes prompts with a model's chat template, or without one where the model has none.

    Text from outside never becomes a control token. A marker, a private-use character that occurs nowhere
    else, breaks every name of a control token in it. After rendering, only the names that the template wrote
    are whole. The text between them loses its markers and is tokenized as plain text. A text without such
    names reaches the template unchanged.
    """

    def __init__(
        self, vocabulary: PromptVocabulary, template: PromptTemplate | None, bytes_max: int | None = None
    ) -> None:
        """Encode for a model; texts of more than `bytes_max` bytes are refused before they are tokenized."""
        self._vocabulary, self._template, self._bytes_max = vocabulary, template, bytes_max
        longest_first = sorted(vocabulary.control_tokens, key=len, reverse=True)  # as tokenizers match them
        self._names = "|".join(map(re.escape, longest_first)) or r"(?!)"

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    def encode_question(self, question: str, system: str | None = None) -> tuple[int, ...]:
        """Encode a question, and a system prompt.

        Raises:
            RequestError: the question is empty or too long (PromptLengthError), or the template rejects it.
        """
        if not question.strip():
            raise RequestError("the question is empty")
        user = Message("user", question)
        return self.encode_conversation([Message("system", system), user] if system else [user])

    def encode_conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Encode a conversation, for the model's next message.

        Raises:
            RequestError: all messages are empty, they are too long, or the template rejects them.
        """
        if not any(message.content.strip() for message in messages):
            raise RequestError("the conversation is empty")
        self._check_length(message.content for message in messages)
        if self._template is None:
            return self.encode_text("\n\n".join(message.content for message in messages))
        texts = [text for message in messages for text in (message.role, message.content)]
        marker = _unused_character(self._template.source, *texts)
        marked = [
            {"role": self._mark(message.role, marker), "content": self._mark(message.content, marker)}
            for message in messages
        ]
        return self._with_bos(self._encode(self._template.render(marked), marker))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text without the chat template, with the tokenizer's begin-of-text token.

        Raises:
            RequestError: the text is too long.
        """
        self._check_length([text])
        return tuple(self._vocabulary.tokenize(text, special=False, bos=True))

    def common_prefix(self) -> tuple[int, ...]:
        """Tokens with which every question begins: the chat template's own."""
        try:
            one, other = (self.encode_question(question) for question in ("0", "A"))
        except RequestError:  # the template rejects such questions
            return ()
        return one[: common_length(one, other)]

    def _check_length(self, texts: Iterable[str]) -> None:
        texts = [text.strip() for text in texts]
        if (characters := sum(map(len, texts))) > PROMPT_CHARACTERS_MAX:
            raise RequestError(
                f"the question has {characters} characters; at most {PROMPT_CHARACTERS_MAX} are accepted"
            )
        nbytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if self._bytes_max is not None and nbytes > self._bytes_max:
            raise PromptLengthError(
                f"the prompt has {nbytes} bytes, but the context holds at most {self._bytes_max}"
            )

    def _mark(self, text: str, marker: str) -> str:
        return re.sub(self._names, lambda name: name[0][0] + marker + name[0][1:], text)

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


def _unused_character(*texts: str) -> str:
    used = set().union(*texts)
    character = next((chr(code) for code in PRIVATE_USE if chr(code) not in used), None)
    if character is None:
        raise RequestError("the question uses every private-use character of Unicode")
    return character
