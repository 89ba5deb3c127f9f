"""Prompts of models that think, with the parts of published templates that say how."""

import pytest
from thirteen.runtime.prompt.chat_template import Thinking
from thirteen.runtime.prompt.prompt_encoder import Message

from ..thinking_templates import TEMPLATES
from .test_prompt_encoder import Bytes, decode, encoder

TURN = "[<|im_start|>]{}\n{}[<|im_end|>]\n"
BEGIN = "[<|im_start|>]assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


def prompt(template, *messages, think=None):
    asked = encoder(template)
    tokens = asked.encode_conversation([Message(*one) for one in messages], think=think)
    return decode(tokens), asked.thinking, tokens


@pytest.mark.parametrize(
    ("name", "begins", "without"),
    [
        ("qwen3", BEGIN, BEGIN + EMPTY),
        ("smollm3", BEGIN, BEGIN + EMPTY.removesuffix("\n")),
        ("deepseek-r1", f"{BEGIN}<think>\n", f"{BEGIN}<think>\n</think>\n\n"),
        ("no switch", BEGIN, BEGIN + EMPTY),
        ("magistral", BEGIN, f"{BEGIN}[[THINK]]\n\n[[/THINK]]\n\n"),
    ],
)
def test_a_model_thinks_as_its_template_has_it_or_behind_an_empty_thought_does_not(name, begins, without):
    for think, end in ((None, begins), (True, begins), (False, without)):
        text, thinking, tokens = prompt(TEMPLATES[name], ("user", "Hi"), think=think)
        assert text.endswith(f"[<|im_end|>]\n{end}") and thinking
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
    assert Thinking.of("{% if enable_thinking %}<|channel>{% endif %}", Bytes()) is None
