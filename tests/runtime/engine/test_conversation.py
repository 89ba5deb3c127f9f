"""Conversation: turns reach the model, and the oldest are dropped for room."""

import pytest
from thirteen.errors import PromptLengthError, RequestError
from thirteen.runtime.engine.conversation import Conversation
from thirteen.runtime.prompt.chat_template import PROMPT_LENGTH_MAX
from thirteen.runtime.prompt.prompt_encoder import Message

from ..conftest import CONTEXT


@pytest.mark.parametrize("turns", [7, 200])
def test_the_oldest_turns_make_room_and_the_system_prompt_stays(engine, turns):
    conversation = Conversation(engine, system="be brief")
    for number in range(100, 100 + turns):
        conversation.add(f"question {number}", "answer " * 3)
    said = list(conversation.messages)
    turn = conversation.next_turn("last", max_tokens=100)
    assert turn.dropped % 2 == 0 and conversation.messages == said[turn.dropped :] != said
    text = b"".join(map(engine.model.token_to_piece, turn.request.tokens)).decode()
    assert "be brief" in text and said[-2].content in text and said[0].content not in text
    longer = engine.chat([Message("system", "be brief"), *said[turn.dropped - 2 :], Message("user", "last")])
    assert len(turn.request.tokens) <= CONTEXT - 64 < len(longer.tokens)
    assert said[-2].content in turn.request.question and turn.request.question.endswith("\nlast")
    assert conversation.next_turn("last", max_tokens=100).dropped == 0


def test_a_message_that_fills_the_context_is_asked_alone_and_a_longer_one_is_refused(engine):
    conversation = Conversation(engine)
    conversation.add("one", "two")
    assert conversation.next_turn("x" * 200).dropped == 2
    conversation.add("x" * (PROMPT_LENGTH_MAX + 1), "two")
    conversation.add("one", "two")
    assert conversation.next_turn("five").dropped == 2
    for text in ("x" * 300, "x" * 100_000):
        with pytest.raises(PromptLengthError):
            conversation.next_turn(text)
    assert conversation.messages == [Message("user", "one"), Message("assistant", "two")]
    with pytest.raises(RequestError, match="empty"):
        conversation.next_turn(" ")
