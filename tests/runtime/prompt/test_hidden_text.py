"""Texts in stand-ins: what a template asks of them is answered as of the texts themselves."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.hidden_text import StandIns

TEXT = st.text(max_size=8) | st.lists(st.sampled_from("a<|\n \t\"\\'é😀ßx"), max_size=8).map("".join)
LOOKS = [
    lambda text, other: other in text,
    lambda text, other: (text == other, other == text, text != other),
    lambda text, other: (text in [other], {text: 1}.get(other)),
    lambda text, other: (text < other, text >= other, sorted([text, other])),
    lambda text, other: (text[1:], text[::-1], text[:1], len(text), list(text), [*text, *other]),
    lambda text, other: (text.strip(), text.lstrip(other), text.rstrip("\n")),
    lambda text, other: (text.split(), text.split(other or "a"), text.rpartition("a"), text.splitlines()),
    lambda text, other: (text.replace(other, "-"), text.removeprefix(other), text.upper(), text.title()),
    lambda text, other: (text.startswith((other, "a")), text.endswith(other), text.find(other)),
    lambda text, other: (str(text), repr(text), f"{text}", "".join([text, text]), text + other, other + text),
]


def shown(stand_ins, value):
    """A value with all of its texts shown."""
    if isinstance(value, list | tuple):
        return type(value)(shown(stand_ins, one) for one in value)
    return stand_ins.show(value)


@pytest.mark.parametrize("look", LOOKS)
@given(text=TEXT, other=TEXT)
def test_a_hidden_text_answers_as_the_text_does(look, text, other):
    stand_ins = StandIns("")
    hidden = stand_ins.hide(text)
    assert all(ord(c) >= 0xF0000 or (0x1680 <= ord(c) <= 0x3000 and str.isspace(chr(ord(c)))) for c in hidden)
    assert shown(stand_ins, look(hidden, other)) == look(text, other)
    assert shown(stand_ins, look(hidden, stand_ins.hide(other))) == look(text, other)


@given(
    value=st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT, max_size=2), max_size=3),
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_json_of_hidden_texts_is_that_of_the_texts_and_its_escapes_are_text(value, ensure_ascii, indent):
    stand_ins = StandIns("")
    hidden = stand_ins.to_json(stand_ins.hide(value), ensure_ascii, indent, sort_keys=True)
    parts = stand_ins.split(hidden)
    assert "".join(parts) == json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=True)
    assert not set("".join(parts[::2])) - set('{}[],: \n"-0123456789')


def test_characters_of_the_template_stand_for_nothing():
    source = "\U000f0000\u2000{{ messages[0].content }}"
    assert ChatTemplate(source).parts([{"role": "user", "content": "a b"}]) == [
        "",
        "\U000f0000",
        "\u2000",
        "a b",
        "",
    ]


# Templates of common models, in short, that look into texts.
LOOKING = json.loads((Path(__file__).parents[2] / "data" / "looking_templates.json").read_text("utf-8"))


@pytest.mark.parametrize("source", LOOKING.values(), ids=LOOKING)
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(
                [
                    *("a b", "\n", " ", '"', "'", "\\", "é", "😀", "<think>", "</think>", "<tool>"),
                    *("</tool>", "tool", "<|im_end|>", "ß"),
                ]
            ),
            max_size=6,
        ).map("".join),
        min_size=7,
        max_size=7,
    )
)
def test_templates_that_look_into_texts_render_as_in_transformers(source, texts):
    chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    fields = {"type": "string", "description": texts[5]}
    tools = [
        {"type": "function", "function": {"name": texts[4], "parameters": {"properties": {texts[6]: fields}}}}
    ]
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": texts[4], "arguments": {texts[5]: [texts[6], 1.5]}},
    }
    messages = [
        {"role": "system", "content": texts[0]},
        {"role": "user", "content": texts[1]},
        {"role": "assistant", "content": texts[2], "tool_calls": [call]},
        {"role": "tool", "content": texts[3], "tool_call_id": "1"},
    ]
    (expected,), _ = chat_template_utils.render_jinja_template(
        [messages], tools=tools, chat_template=source, add_generation_prompt=True, bos_token="<s>"
    )
    assert "".join(ChatTemplate(source, "<s>").parts(messages, tools)) == expected
