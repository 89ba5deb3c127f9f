"""Conversation: turns of a user and a model, kept within the model's context."""

from bisect import bisect_left
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from ...errors import PromptLengthError
from ..arithmetic.grounding import stands_alone
from ..options import Options, Request
from ..prompt.prompt_encoder import Message
from .engine import Engine

_ANSWER_TOKENS_MIN = 64  # room for an answer, which the oldest turns make


class Turn(NamedTuple):
    """Next turn of a conversation."""

    request: Request  # the request for the next answer
    dropped: int  # how many of the oldest messages were dropped for it
    context_share: float  # share of the context that its prompt takes, from 0 to 1


class Conversation:
    """Turns of a user and a model within its context; those that were not answered are not kept."""

    def __init__(self, engine: Engine, system: str | None = None) -> None:
        self.engine, self.system = engine, system
        self.messages: list[Message] = []

    def next_turn(self, text: str, options: Options | None = None, **changes: Any) -> Turn:
        """Make the request for the next answer; the oldest turns are dropped if there is no room for it.

        A vote on a question that stands alone sees that question alone. PromptLengthError: the text alone
        does not fit the context.
        """
        engine, limit = self.engine, self.engine.context
        alone = engine.request(text, options, **changes | {"system": self.system})
        if alone.options.votes and stands_alone(text):  # votes are worse over a conversation
            return Turn(alone, 0, len(alone.tokens) / limit)
        answer_tokens = alone.options.max_tokens or engine.default_max_tokens
        room = limit - min(answer_tokens, max(_ANSWER_TOKENS_MIN, limit // 4))

        @cache
        def request(dropped: int) -> Request | None:
            try:
                return engine.chat(self._said(text, dropped), alone.options)
            except PromptLengthError:  # it has too many bytes to be tokenized
                return None

        def fits(dropped: int) -> bool:
            asked = request(dropped)
            return asked is not None and len(asked.tokens) <= room

        # Of a long conversation, few prompts are encoded: the number to drop is found by bisection.
        counts = range(0, len(self.messages) + 1, 2)
        last = len(counts) - 1
        dropped = counts[0 if fits(0) else bisect_left(counts, True, lo=min(1, last), hi=last, key=fits)]
        asked = request(dropped)
        if asked is None or len(asked.tokens) > limit:  # with less than `room`, a short answer has room
            raise PromptLengthError(
                f"the message does not fit the context of {limit} tokens; {engine.plan.context_hint}"
            )
        del self.messages[:dropped]
        said = "\n".join(message.content for message in self.messages)
        return Turn(replace(asked, question=f"{said}\n{text}"), dropped, len(asked.tokens) / limit)

    def _said(self, text: str, dropped: int) -> list[Message]:
        system = [Message("system", self.system)] if self.system else []
        return [*system, *self.messages[dropped:], Message("user", text)]

    def add(self, text: str, answer: str) -> None:
        """Keep what the user said and what the model answered."""
        self.messages += [Message("user", text), Message("assistant", answer)]
