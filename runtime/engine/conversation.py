"""Conversation: turns of a user and a model, kept within the model's context."""

import json
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Unpack

from ...errors import FileError, PromptLengthError
from ...files.atomic_write import write_file
from ...files.json_file import parse_json, read_bounded
from ..arithmetic.grounding import stands_alone
from ..prompt.prompt_encoder import TURN_ROLES, Message
from ..prompt.thinking import resolve_thinking
from ..request import Request
from .engine import Engine, RequestOptions

FILE_BYTES_MAX = 1 << 24
_ANSWER_TOKENS_MIN = 64  # room for an answer, which the oldest turns make


@dataclass(frozen=True, slots=True)
class Turn:
    """Next turn of a conversation.

    Attributes:
        request: the request for the next answer.
        dropped: how many of the oldest messages were dropped for it.
        context_share: share of the context that its prompt takes, from 0 to 1.
    """

    request: Request
    dropped: int
    context_share: float


class Conversation:
    """Turns of a user and a model; those that were not answered are not kept.

    Attributes:
        engine: answers; it may be replaced.
        system: system prompt; None for the chat template's own.
        messages: what was said so far, without dropped messages.
    """

    def __init__(self, engine: Engine, system: str | None = None) -> None:
        """Start without messages; the engine must outlive the conversation."""
        self.engine, self.system = engine, system
        self.messages: list[Message] = []

    def next_turn(self, text: str, **options: Unpack[RequestOptions]) -> Turn:
        """Make the request for the next answer; the oldest turns are dropped if there is no room for it.

        Votes on a question that stands alone are of that question alone. For the options, see
        Engine.request(); `system` is the conversation's own.

        Raises:
            RequestError: the text is empty, or the chat template rejects the conversation.
            PromptLengthError: the text alone does not fit the context.
        """
        own = options | RequestOptions(system=self.system)
        request, limit = self.engine.request(text, **own), self.engine.context
        if request.effort.votes and stands_alone(text):  # votes are worse over a conversation
            return Turn(request, 0, len(request.tokens) / limit)
        think, _ = resolve_thinking(options.get("think"), options.get("think_budget"))
        think = False if request.think_budget == 0 else think  # of the adapter's prompt
        room = limit - min(request.max_tokens, max(_ANSWER_TOKENS_MIN, limit // 4))
        dropped, tokens = self._fit(text, room, think)
        if tokens is None or len(tokens) > limit:  # with less than `room`, a short answer has room
            raise PromptLengthError(
                f"the message does not fit the context of {limit} tokens; {self.engine.plan.context_hint}"
            )
        del self.messages[:dropped]
        said = "\n".join(message.content for message in self.messages)
        request = replace(request, tokens=tokens, question=f"{said}\n{text}")
        if request.effort.votes:
            request = replace(request, examples=self.engine.after_examples(self._said(text), think))
        return Turn(request, dropped, len(tokens) / limit)

    def _fit(self, text: str, room: int, think: bool | None) -> tuple[int, tuple[int, ...] | None]:
        """How many of the oldest messages to drop, and the prompt; all are dropped if nothing fits the room.

        Of a long conversation, few prompts are encoded: the number is found by bisection.
        """

        @cache
        def encode(dropped: int) -> tuple[int, ...] | None:
            try:
                return self.engine.conversation(self._said(text, dropped), think=think)
            except PromptLengthError:  # it has too many bytes to be tokenized
                return None

        def fits(dropped: int) -> bool:
            tokens = encode(dropped)
            return tokens is not None and len(tokens) <= room

        counts = range(0, len(self.messages) + 1, 2)
        last = len(counts) - 1
        at = 0 if fits(0) else bisect_left(counts, True, lo=min(1, last), hi=last, key=fits)
        return counts[at], encode(counts[at])

    def _said(self, text: str, dropped: int = 0) -> list[Message]:
        """The conversation without its oldest messages, up to a text of the user."""
        system = [Message("system", self.system)] if self.system else []
        return [*system, *self.messages[dropped:], Message("user", text)]

    def add(self, text: str, answer: str) -> None:
        """Keep what the user said and what the model answered."""
        self.messages += [Message("user", text), Message("assistant", answer)]

    def save(self, path: Path) -> None:
        """Write the conversation as JSON, over another saved one if there is a file.

        Raises:
            FileError: the file is another one.
            OutputError: the file cannot be written.
        """
        if path.is_file():
            Conversation(self.engine).load(path)
        messages = [message.template_fields() for message in self.messages]
        text = json.dumps({"system": self.system, "messages": messages}, indent=1)
        write_file(path, text.encode(), mode=0o600)

    def load(self, path: Path) -> None:
        """Replace the conversation by one that save() wrote.

        Raises:
            FileError: the file cannot be read, is too large, or holds no conversation.
        """
        match parse_json(read_bounded(path, FILE_BYTES_MAX), str(path)):
            case {"system": str() | None as system, "messages": [*entries], **rest} if not rest:
                messages = [_message(entry, TURN_ROLES[at % 2], path) for at, entry in enumerate(entries)]
            case _:
                raise FileError(f"{path}: not a saved conversation")
        if len(messages) % 2:
            raise FileError(f"{path}: the last message has no answer")
        self.system, self.messages = system, messages


def _message(entry: object, role: str, path: Path) -> Message:
    match entry:
        case {"role": found, "content": str(content), **rest} if found == role and not rest:
            return Message(role, content)
    raise FileError(f"{path}: users and assistants must take turns, each with a role and a content")
