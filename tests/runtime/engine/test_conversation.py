"""Conversation: turns reach the model, and the oldest are dropped for room."""

import pytest
from thirteen.errors import PromptLengthError, RequestError
from thirteen.runtime.engine.conversation import Conversation
from thirteen.runtime.prompt.chat_template import PROMPT_LENGTH_MAX
from thirteen.runtime.prompt.prompt_encoder import Message

from ..conftest import CONTEXT


@pytest.fixture
def conversation(engine):
    conversation = Conversation(engine, system="be brief")
    conversation.add("one", "two")
    return conversation


def prompt_text(engine, turn):
    """The prompt with its control tokens, of which the tiny model has one byte each for the others."""
    names = {token: name for name, token in engine.model.control_tokens.items()}
    return "".join(names.get(t) or engine.model.token_to_piece(t).decode() for t in turn.request.tokens)


def test_a_turn_has_what_was_said_before(engine, conversation):
    turn = conversation.next_turn("three", max_tokens=5)
    said = ["be brief", "one", "two", "three"]
    text = prompt_text(engine, turn)
    assert [text.index(word) for word in said] == sorted(text.index(word) for word in said)
    assert turn.request.options.max_tokens == 5 and turn.dropped == 0
    assert engine.submit(turn.request).answer().usage.completion_tokens


@pytest.mark.parametrize("turns", [7, 200])
def test_the_oldest_turns_make_room_and_the_system_prompt_stays(engine, conversation, turns):
    conversation.messages.clear()
    for number in range(100, 100 + turns):
        conversation.add(f"question {number}", "answer " * 3)
    said = list(conversation.messages)
    turn = conversation.next_turn("last", max_tokens=100)
    assert turn.dropped % 2 == 0 and conversation.messages == said[turn.dropped :] != said
    text = prompt_text(engine, turn)
    assert "be brief" in text and said[-2].content in text and said[0].content not in text
    longer = engine.chat([Message("system", "be brief"), *said[turn.dropped - 2 :], Message("user", "last")])
    assert len(turn.request.tokens) <= CONTEXT - 64 < len(longer.tokens)
    assert said[-2].content in turn.request.question and turn.request.question.endswith("\nlast")
    assert conversation.next_turn("last", max_tokens=100).dropped == 0


def test_a_message_that_fills_the_context_is_asked_alone_and_a_longer_one_is_refused(engine, conversation):
    conversation.system = None
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
