"""Conversation: turns reach the model, the oldest are dropped for room, and a file holds it."""

import json

import pytest
from thirteen.errors import FileError, OutputError, PromptLengthError, RequestError
from thirteen.runtime.engine.conversation import Conversation
from thirteen.runtime.prompt.prompt_encoder import PROMPT_CHARACTERS_MAX, Message
from thirteen.runtime.prompt.question_prompt import QuestionPrompt

from ...server.serving import open_engine


@pytest.fixture(scope="module")
def engine(tiny):
    with open_engine(tiny, slots=1, context=256) as engine:
        yield engine


def prompt_text(engine, turn):
    """The prompt with its control tokens, of which the tiny model has one byte each for the others."""
    names = {token: name for name, token in engine.model.control_tokens.items()}
    return "".join(names.get(t) or engine.model.token_to_piece(t).decode() for t in turn.request.tokens)


def test_a_turn_has_what_was_said_before(engine):
    conversation = Conversation(engine, system="be brief")
    conversation.add("one", "two")
    turn = conversation.next_turn("three", max_tokens=5)
    said = ["be brief", "one", "two", "three"]
    text = prompt_text(engine, turn)
    assert [text.index(word) for word in said] == sorted(text.index(word) for word in said)
    assert turn.request.max_tokens == 5 and turn.dropped == 0
    assert turn.context_share == len(turn.request.tokens) / 256
    assert engine.submit(turn.request).answer().usage.completion_tokens


@pytest.mark.parametrize(
    ("question", "alone"),
    [
        ("A box holds 12 eggs. How many eggs are in 7 boxes?", True),
        ("How many are 7 such boxes of 12?", False),
    ],
)
def test_votes_on_a_question_that_stands_alone_are_of_it_alone(engine, question, alone):
    """Over an earlier conversation 6 of 18 answers were right that were right without it."""
    conversation = Conversation(engine, system="be brief")
    conversation.add("one", "two")
    turn = conversation.next_turn(question, effort="medium")
    own = engine.request(question, system="be brief", effort="medium")
    assert (turn.request.tokens == own.tokens and turn.request.examples == own.examples) == alone
    assert len(conversation.messages) == 2 and turn.dropped == 0
    assert "one" in prompt_text(engine, conversation.next_turn(question))  # without votes


def test_the_oldest_turns_make_room_and_the_system_prompt_stays(engine):
    conversation = Conversation(engine, system="be brief")
    for number in range(8):
        conversation.add(f"question {number}", "answer " * 3)
    turn = conversation.next_turn("last", max_tokens=100)
    assert turn.dropped % 2 == 0 and 0 < turn.dropped < 16
    assert len(conversation.messages) == 16 - turn.dropped
    text = prompt_text(engine, turn)
    assert "be brief" in text and "question 7" in text and "question 0" not in text
    assert len(turn.request.tokens) <= 256 - 64
    assert "question 7" in turn.request.question and turn.request.question.endswith("\nlast")
    assert conversation.next_turn("last", max_tokens=100).dropped == 0


def test_few_prompts_are_encoded_to_find_how_many_turns_fit(engine, monkeypatch):
    """One for each turn would take seconds in a long conversation."""
    conversation, encoded = Conversation(engine), []
    for number in range(200):
        conversation.add(f"question {number}", "answer")
    encode = engine.conversation
    monkeypatch.setattr(engine, "conversation", lambda messages, think: encoded.append(1) or encode(messages))
    turn = conversation.next_turn("last")
    assert 0 < turn.dropped < 400 and len(encoded) <= 10
    one_more = [Message("user", f"question {turn.dropped // 2 - 1}"), Message("assistant", "answer")]
    longer = encode([*one_more, *conversation.messages, Message("user", "last")])
    assert len(turn.request.tokens) <= 256 - 64 < len(longer)


def test_an_adapter_that_learned_without_thoughts_is_asked_without_in_a_conversation(engine, monkeypatch):
    """Its thought was shown as its answer."""
    conversation, encode, found = Conversation(engine), engine.conversation, []
    monkeypatch.setattr(
        engine, "conversation", lambda messages, think: found.append(think) or encode(messages)
    )
    turn = conversation.next_turn("one", prompt=QuestionPrompt(think=False))
    assert turn.request.think_budget == 0 and {*found} == {False}
    found.clear()
    assert conversation.next_turn("one").request.think_budget is None and {*found} == {None}


def test_a_message_that_fills_the_context_is_asked_alone_and_a_longer_one_is_refused(engine):
    conversation = Conversation(engine)
    conversation.add("one", "two")
    assert conversation.next_turn("x" * 200).dropped == 2
    conversation.add("one", "two")
    for text in ("x" * 300, "x" * 100_000):
        with pytest.raises(PromptLengthError):
            conversation.next_turn(text)
    assert conversation.messages == [Message("user", "one"), Message("assistant", "two")]
    with pytest.raises(RequestError, match="empty"):
        conversation.next_turn(" ")


def test_more_characters_than_a_prompt_may_have_are_dropped_too(engine):
    conversation = Conversation(engine)
    conversation.add("x" * (PROMPT_CHARACTERS_MAX + 1), "two")
    conversation.add("three", "four")
    assert conversation.next_turn("five").dropped == 2


def test_a_conversation_is_saved_and_loaded(engine, tmp_path):
    conversation, other = Conversation(engine, "be brief"), Conversation(engine)
    conversation.add("é", "\ud7ff 12")
    conversation.save(tmp_path / "talk.json")
    other.load(tmp_path / "talk.json")
    assert (other.system, other.messages) == (conversation.system, conversation.messages)
    assert (tmp_path / "talk.json").stat().st_mode & 0o077 == 0
    with pytest.raises(OutputError):
        conversation.save(tmp_path / "none" / "talk.json")


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"system": 1, "messages": []}', '{"system": null, "messages": [], "more": 1}',
        *(
            json.dumps({"system": None, "messages": messages})
            for messages in (
                [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}],
                [{"role": "user", "content": "a"}],
                [{"role": "user", "content": 1}, {"role": "assistant", "content": "a"}],
                [{"role": "user", "content": "a", "x": 1}, {"role": "assistant", "content": "a"}],
                ["a", "b"],
            )
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_conversation_is_refused_by_name(engine, tmp_path, content):
    conversation = Conversation(engine)
    conversation.add("one", "two")
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(FileError, match=r"bad\.json: "):
        conversation.load(tmp_path / "bad.json")
    assert len(conversation.messages) == 2
