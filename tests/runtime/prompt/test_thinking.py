"""Prompts of models that think, with the parts of published templates that say how."""

from typing import ClassVar

import pytest
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.prompt_encoder import Message, PromptEncoder
from thirteen.runtime.prompt.thinking import Thinking, resolve_thinking

from ..thinking_templates import TEMPLATES

TURN = "<|im_start|>{}\n{}<|im_end|>\n"
BEGIN = "<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


class Vocabulary:
    """Bytes, and markers that are control tokens."""

    stripping_tokens = frozenset()
    control_tokens: ClassVar = {"<|im_start|>": 256, "<|im_end|>": 257, "[THINK]": 258, "[/THINK]": 259}

    def tokenize(self, text, *, special, bos):
        names = {name: token for name, token in self.control_tokens.items() if special and name in text}
        if not names:
            return list(text.encode())
        before, _, after = text.partition(name := next(iter(names)))
        return [*before.encode(), names[name], *after.encode()]

    def token_to_piece(self, token):
        return bytes((token,)) if token < 256 else b""


def prompt(template, *messages, think=None):
    encoder = PromptEncoder(Vocabulary(), ChatTemplate(template))
    names = {token: name.encode() for name, token in Vocabulary.control_tokens.items()}
    tokens = encoder.encode_conversation([Message(*one) for one in messages], think=think)
    return (
        b"".join(names.get(token) or bytes((token,)) for token in tokens).decode(),
        encoder.thinking,
        tokens,
    )


@pytest.mark.parametrize(
    ("name", "begins", "without"),
    [
        ("qwen3", BEGIN, BEGIN + EMPTY),
        ("smollm3", BEGIN, BEGIN + EMPTY.removesuffix("\n")),
        ("deepseek-r1", f"{BEGIN}<think>\n", f"{BEGIN}<think>\n</think>\n\n"),
        ("no switch", BEGIN, BEGIN + EMPTY),
        ("magistral", BEGIN, f"{BEGIN}[THINK]\n\n[/THINK]\n\n"),
    ],
)
def test_a_model_thinks_as_its_template_has_it_or_behind_an_empty_thought_does_not(name, begins, without):
    for think, end in ((None, begins), (True, begins), (False, without)):
        text, thinking, tokens = prompt(TEMPLATES[name], ("user", "Hi"), think=think)
        assert text.endswith(f"<|im_end|>\n{end}") and thinking
        assert thinking.begun(tokens) is (False if think is False else "<think>" in begins or None)


def test_a_system_prompt_can_turn_thoughts_off_too():
    text, thinking, tokens = prompt(TEMPLATES["smollm3"], ("system", "Be brief. /no_think"), ("user", "Hi"))
    assert text.endswith("<think>\n\n</think>\n") and thinking.begun(tokens) is False


@pytest.mark.parametrize("name", TEMPLATES)
def test_thoughts_of_earlier_answers_are_left_out(name):
    opening, closing = ("[THINK]", "[/THINK]") if name == "magistral" else ("<think>", "</think>")
    for said in (f"{opening}\nsix\n{closing}\n\n7", f"six{closing}7", "7"):
        text, *_ = prompt(TEMPLATES[name], ("user", "a"), ("assistant", said), ("user", "b"))
        assert TURN.format("user", "a") + TURN.format("assistant", "7") + TURN.format("user", "b") in text


def test_other_templates_are_as_before():
    """A text about markers is a text."""
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ enabled }}"
    text, thinking, _ = prompt(plain, ("assistant", "a</think>b"), think=False)
    assert (text, thinking) == ("assistant: a</think>b\n", None)
    assert Thinking.of("{% if enable_thinking %}<|channel>{% endif %}", Vocabulary()) is None


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        ((None, None), (None, None)),
        ((True, 0), (False, 0)),
        ((False, 9), (False, 0)),
        ((None, 9), (True, 9)),
        ((True, None), (True, None)),
    ],
)
def test_no_budget_is_no_thought(asked, resolved):
    assert resolve_thinking(*asked) == resolved
