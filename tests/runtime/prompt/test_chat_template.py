"""Chat templates: Jinja in a sandbox, with one clear error for bad ones."""

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.runtime.llama.model import Model
from thirteen.runtime.prompt.chat_template import (
    REPRODUCIBLE_DATE,
    ChatTemplate,
    Thinking,
    read_chat_template,
)
from thirteen.runtime.prompt.prompt_encoder import Message

from ..fakes import TEMPLATES
from .test_prompt_encoder import Bytes, decode, encoder

MESSAGES = [{"role": "user", "content": "a \ud800 <b> é"}]


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for x in %}", "{% unknown %}", "x" * 65537])
def test_a_template_that_is_too_long_or_does_not_compile_is_an_error_of_the_file(source):
    reason = r"(cannot be compiled: [^\n]+|has 65537 bytes, more than 65536)$"
    with pytest.raises(FileError, match=r"^a\.gguf: the chat template " + reason):
        ChatTemplate(source, where="a.gguf: ")


def test_a_hostile_or_failing_template_is_one_clear_error():
    for source in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",  # CVE-2024-34359
        "{{ messages.append(1) }}",
        "{{ dict.update(messages[0], x=1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ('%s' | attr('format'))('x') }}{{ ''['__class__'] }}{{ raise_exception('no') }}",
        "{% include 'other' %}",
        "{{ 1 / 0 }}",
        "{% for a in range(100000000) %}{% endfor %}",  # the sandbox's own limit of a range
        "{% for a in range(90000) %}{{ 'a' * 1000 }}{% endfor %}",  # too many characters
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ raise_exception('no \x1b[31m\u2028é\x00') }}",
    ):
        with pytest.raises(RequestError, match=r"^the chat template failed: ") as failed:
            ChatTemplate(source).render(MESSAGES)
        assert str(failed.value).isprintable()


def test_a_template_takes_tools_if_it_uses_the_variable():
    for source, takes in (
        ("{% for tool in tools or [] %}{{ tool }}{% endfor %}", True),
        ("{%- if not tools is defined %}{%- set tools = none %}{%- endif %}{{ tools }}", True),  # Llama 3.1
        ("{% macro m(x) %}{{ x }}{{ tools }}{% endmacro %}{{ m(1) }}", True),
        ("{% for m in messages %}{{ m.tools }}{{ m['tools'] }}{% endfor %} tools {# tools #}", False),
        ("{% set tools = messages %}{{ tools }}", False),
    ):
        assert ChatTemplate(source).takes_tools == takes


@pytest.mark.parametrize("source", ["", " \n"])
def test_a_blank_template_is_none(tmp_path, write_tiny, source):
    """The prompt was blank, whatever the question."""
    path = write_tiny(tmp_path / "blank.gguf", {"tokenizer.chat_template": source})
    with Model(path, vocabulary_only=True) as model:
        assert read_chat_template(model).source == ""


def test_a_date_can_be_fixed():
    """A batch that was resumed the next day had other prompts."""
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", date=REPRODUCIBLE_DATE)
    assert template.render(MESSAGES) == "26 Jul 2024"


TURN = "[<|im_start|>]{}\n{}[<|im_end|>]\n"
BEGIN = "[<|im_start|>]assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


def prompt(template, *messages, think=None):
    asked = encoder(template)
    tokens = asked.encode_conversation([Message(*one) for one in messages], think=think)
    return decode(tokens), asked.thinking, tokens


def test_a_model_thinks_as_its_template_has_it_or_behind_an_empty_thought_does_not():
    for name, begins, without in (
        ("qwen3", BEGIN, BEGIN + EMPTY),
        ("smollm3", BEGIN, BEGIN + EMPTY.removesuffix("\n")),
        ("deepseek-r1", f"{BEGIN}<think>\n", f"{BEGIN}<think>\n</think>\n\n"),
        ("no switch", BEGIN, BEGIN + EMPTY),
        ("magistral", BEGIN, f"{BEGIN}[[THINK]]\n\n[[/THINK]]\n\n"),
    ):
        for think, end in ((None, begins), (True, begins), (False, without)):
            text, thinking, tokens = prompt(TEMPLATES[name], ("user", "Hi"), think=think)
            assert text.endswith(f"[<|im_end|>]\n{end}") and thinking
            assert thinking.begun(tokens) is (False if think is False else "<think>" in begins or None)


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
