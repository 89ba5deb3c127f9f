"""Conversation: turns of a user and a model, kept within the model's context."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from ...errors import PromptLengthError
from ..options import Options, Request
from ..prompt.prompt_encoder import Message
from .engine import Engine

_ANSWER_TOKENS_MIN = 64  # room for an answer, which the oldest turns make


class Turn(NamedTuple):
    """Next turn of a conversation."""

    request: Request  # the request for the next answer
    dropped: int  # how many of the oldest messages were dropped for it


class Conversation:
    """Turns of a user and a model within its context; those that were not answered are not kept."""

    def __init__(self, engine: Engine, system: str | None = None) -> None:
        self.engine, self.system = engine, system
        self.messages: list[Message] = []

    def next_turn(self, text: str, options: Options | None = None, **changes: Any) -> Turn:
        """Make the request for the next answer; the oldest turns are dropped if there is no room for it.

        PromptLengthError: the text alone does not fit the context.
        """
        engine, limit = self.engine, self.engine.context
        options = engine.request(text, options, **changes).options
        answer_tokens = options.max_tokens or engine.default_max_tokens
        room = limit - min(answer_tokens, max(_ANSWER_TOKENS_MIN, limit // 4))
        system = [Message("system", self.system)] if self.system else []
        for dropped in range(0, len(self.messages) + 1, 2):
            with suppress(PromptLengthError):  # it has too many bytes to be tokenized
                asked = engine.chat([*system, *self.messages[dropped:], Message("user", text)], options)
                # Of a message alone with less room, a short answer has room.
                if len(asked.tokens) <= (limit if dropped == len(self.messages) else room):
                    del self.messages[:dropped]
                    said = "\n".join(message.content for message in self.messages)
                    return Turn(replace(asked, question=f"{said}\n{text}"), dropped)
        raise PromptLengthError(
            f"the message does not fit the context of {limit} tokens; {engine.plan.context_hint}"
        )

    def add(self, text: str, answer: str) -> None:
        """Keep what the user said and what the model answered."""
        self.messages += [Message("user", text), Message("assistant", answer)]
