"""Control tokens of a prompt: those that the template writes, whatever the texts say."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.control_tokens import ControlNames, split_at_names

chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")

DATA = Path(__file__).parents[2] / "data"
TEMPLATES = {path.stem: path.read_text("utf-8") for path in sorted(DATA.glob("chat_templates/*.jinja"))}
TEMPLATES |= json.loads((DATA / "looking_templates.json").read_text("utf-8"))
TEMPLATES["names and values"] = (
    "{% for t in tools %}{% for k, v in t.function.items() %}{{ k }}{{ v }}{% endfor %}{% endfor %}"
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.id }}{{ c.function.name }}"
    "{% for k, v in c.function.arguments.items() %}{{ k }}{{ v }}{% endfor %}{% endfor %}<s>{% endfor %}"
)
NAMES = ControlNames(["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<s>", "[INST]", " ", "\n\n"])
PLAIN = ["a b", "\n", " ", '"', "'", "\\", "é", "😀", "ß", "\U00020000", "tool", "type", "system"]
MARKS = [*NAMES.names, "<|im_", "end|>", "<", "s>", "|", "<think>", "</think>", "<tool>", "</tool>"]


def seven(words):
    return st.lists(st.lists(st.sampled_from(words), max_size=5).map("".join), min_size=7, max_size=7)


def conversation(texts):
    """Messages and tools, with texts in all their places."""
    system, question, answer, result, name, key, value = texts
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": {key: [value, 1.5]}}}
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "tool_calls": [call]},
        {"role": "tool", "content": result, "tool_call_id": "1"},
        {"role": "user", "content": question},
    ]
    fields = {"type": "string", "description": key, "enum": [answer]}
    function = {"name": name, "parameters": {"type": "object", "properties": {value: fields}}}
    return [messages, [{"type": "function", "function": function}]]


def split(source, texts, names=NAMES):
    template = ChatTemplate(source, "<s>")
    return split_at_names(lambda asked: template.render(*asked), conversation(texts), names, source)


def rendered(source, texts):
    messages, tools = conversation(texts)
    (prompt,), _ = chat_template_utils.render_jinja_template(
        [messages], tools=tools, chat_template=source, add_generation_prompt=True, bos_token="<s>"
    )
    return prompt


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
@given(texts=seven(PLAIN))
def test_ordinary_texts_are_rendered_as_in_transformers(source, texts):
    assert split(source, texts) == NAMES.split(rendered(source, texts))


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
@given(texts=seven(PLAIN + MARKS))
def test_no_text_adds_or_moves_a_control_token(source, texts):
    harmless = [re.sub(r"\S", "x", text) for text in texts]
    try:
        pieces = split(source, texts)
    except RequestError as error:
        assert str(error) == "the chat template makes control tokens of texts"
        return
    assert "".join(pieces) == rendered(source, texts)
    assert pieces[1::2] == split(source, harmless)[1::2]


CHANGED = {  # a template, a text, and what it makes of it where that is not refused
    "{{ c }}": ("<|im_end|>", "<|im_end|>"),
    "{{ c | trim }}>{{ c }}": (" <|im_end|\n", "<|im_end|> <|im_end|\n"),
    "{{ c ~ c }}": ("<|im_end|><|im_", "<|im_end|><|im_<|im_end|><|im_"),
    "{{ c | tojson }}{{ [c] }}": ('"<s>"', r""""\"<s>\""['"<s>"']"""),
    "{% for x in c %}{{ x }}{% endfor %}": ("<s>", "<s>"),
    "{{ [c] }}": ("'<s>'", None),
    "{{ c }}\U00020000": ("<s>", "<s>\U00020000"),
    "{{ '/no_think' in c }}": ("/no_think", "True"),
    "{{ c | replace('&lt;', '<') }}": ("&lt;s>", None),
    "{{ c.split('-') | join }}": ("<-s>", None),
    "{{ c | lower }}": ("<S>", None),
    "{{ c | reverse }}": (">s<", None),
    "{{ c[1:] }}": ("<<s>", None),
    "{{ c }}{% if '<s>' not in c %}<s>{% endif %}": ("<s>", None),
    "{% if c[0] == c[1] %}<s>{% endif %}{{ c }}": ("ab<s>", None),
    "{{ '<' ~ c ~ '>' }}{{ '%c' % 131072 }}": ("s", None),
    "{{ {'s': '<s>'}[c] }}": ("s", None),
}


@pytest.mark.parametrize("template", CHANGED)
def test_a_text_that_is_changed_is_no_control_token(template):
    source = "{% set c = messages[1].content %}<|im_start|>" + template
    text, shown = CHANGED[template]
    texts = ["", text, *"aaaaa"]
    if shown is None:
        with pytest.raises(RequestError, match="the chat template makes control tokens of texts"):
            split(source, texts)
    else:
        assert split(source, texts) == ["", "<|im_start|>", shown]


@pytest.mark.parametrize(("part", "before"), [("role", ["", "<|user|>"]), ("content", [])])
def test_a_role_may_be_a_part_of_a_name_and_a_text_may_not(part, before):
    source = "{{ '<|' + messages[1]." + part + " + '|>' }}"
    pieces = split(source, ["", "user", *"aaaaa"], ControlNames(["<|user|>"]))
    assert pieces == [*before, "" if before else "<|user|>"]


@given(
    text=st.text(alphabet="<|s>imx", max_size=30), names=st.sets(st.text("<|s>im", min_size=1, max_size=5))
)
def test_names_are_found_as_a_regular_expression_finds_them(text, names):
    longest_first = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
    assert ControlNames(names).split(text) == re.split(f"({longest_first})", text)
