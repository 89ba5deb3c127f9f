"""Calls in the text of an answer: found in any pieces, in both notations, and nothing else is lost."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.prompt.prompt_encoder import JSON_NESTING_MAX
from thirteen.server.api.bodies import FunctionDefinition
from thirteen.server.api.tool_calls import ToolCallParser, ToolUse

from ..tool_model import NOTATIONS

NAMES = frozenset({"add", "get_weather"})
CALL = '{"name": "add", "arguments": {"a": 1}}'
ADD = [("add", {"a": 1})]
NESTED = "[" * (JSON_NESTING_MAX - 1) + "%s" + "]" * (JSON_NESTING_MAX - 1)


def parse(*pieces, several=True):
    """Text and calls of an answer that comes in pieces."""
    parser = ToolCallParser(NAMES, several=several)
    text = "".join(map(parser.feed, pieces))
    rest, calls = parser.finish()
    return text + rest, [(call.name, json.loads(call.arguments)) for call in calls]


def tag(call):
    return f"<tool_call>{call}</tool_call>"


def fence(call, info="json"):
    return f"```{info}\n{call}\n```"


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>\n", "", ADD),
        (f"Let me see.\n\n{tag(CALL)}", "Let me see.", ADD),
        (f"{tag(CALL)}\n{tag(CALL)}", "", ADD),
        (f"{tag(CALL)}\nDone.", "\nDone.", ADD),
        (f"<tool_call>{CALL}", "", ADD),  # the model ended its turn instead
        (tag(CALL.replace("arguments", "parameters")), "", ADD),
        (f"<tool_call>{tag(CALL)}", "<tool_call>", ADD),
        (tag(CALL.replace("1", NESTED % "")), "", [("add", {"a": json.loads(NESTED % "")})]),
        (f"{CALL}\n{CALL};", "", ADD),
        ('{"type": "function", ' + CALL[1:], "", ADD),
        ('{"type": "function", "function": ' + CALL + "}", "", ADD),
        (f" {fence(CALL, '')}\n", "", ADD),
        (f"{fence(CALL)}\n\n{fence(CALL, 'tool_call')}", "", ADD),
        (f"Sure:\n{CALL}\nDone.", "Sure:\nDone.", ADD),
        (f"Sure:\n{fence(CALL)}\nDone.", "Sure:\nDone.", ADD),
        (f"```python\nx = {{}}\n```\n{CALL}", "```python\nx = {}\n```", ADD),
        (f"{{a}}\n{CALL}", "{a}", ADD),
        (fence(CALL)[:-4], "```json", ADD),  # the model ended its turn instead
        (f"Write {CALL}", f"Write {CALL}", []),
        (f"Write {fence('{}')}", f"Write {fence('{}')}", []),
        (fence(f"{CALL} # calls"), fence(f"{CALL} # calls"), []),
    ],
)
def test_calls_are_taken_out_of_the_text(text, content, calls):
    assert parse(text) == parse(*text) == (content, calls)


@pytest.mark.parametrize(
    "call",
    [
        CALL.replace("add", "unknown"),
        '{"name": "add"}',
        '{"name": "add", "arguments": [1]}',
        '{"name": ["add"], "arguments": {}}',
        CALL.replace("1", "NaN"),
        CALL.replace("1", "9" * 5000),
        CALL.replace("1", "[" * 100_000),
        CALL.replace("1", NESTED % "[]"),
        CALL.replace("1", '"\\ud800"'),  # no text: Ollama's API could not send it
        CALL[:-1],
        "",
        f"{CALL} and more",
    ],
)
def test_what_is_no_call_of_a_known_function_stays_text(call):
    for text in (f" see: {tag(call)} \n", f" {call}\n", f" {fence(call)}\n"):
        assert parse(text) == (text, [])


def test_only_the_first_of_several_calls_may_be_wanted():
    other = CALL.replace("1", "2")
    assert parse(f"{CALL};{other}") == ("", [*ADD, ("add", {"a": 2})])
    assert parse(f"{CALL};{other}", several=False) == ("", ADD)


@pytest.mark.parametrize(
    ("pieces", "fed"),
    [
        (["a <b", "> \n", "c <to", "ol", " d"], ["a", " <b>", " \nc", "", " <tool d"]),
        (["d", "\n<tool_call", ">{}"], ["d", "", ""]),
        ([" ", "\n", "a ", "{", "b"], ["", "", " \na", " {", "b"]),
        (["a`b``", "\n``", "x`\n", "``", "`py", "\nx\n```\n"], ["a`b``", "", "\n``x`", "", "", ""]),
    ],
)
def test_text_comes_before_the_answer_ends_unless_it_may_belong_to_a_call(pieces, fed):
    parser = ToolCallParser(NAMES)
    assert [parser.feed(piece) for piece in pieces] == fed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.tuples(st.sampled_from(sorted(NAMES)), st.dictionaries(st.text(), JSON, max_size=3))
SCRAPS = ["<tool_call>", "</tool_call>", "<tool", "<", CALL, CALL[:9], *"{};\n a`", "```", "json", "\ud800"]
TEXTS = st.lists(st.sampled_from(SCRAPS) | st.text(max_size=3), max_size=12).map("".join)


@given(TEXTS, st.lists(st.integers(0, 60)))
def test_any_pieces_of_a_text_give_the_same(text, cuts):
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    content, calls = parse(*(text[start:end] for start, end in pairwise(bounds)))
    assert (content, calls) == parse(text)
    assert calls or content == text


@given(
    st.lists(CALLS, min_size=1, max_size=3, unique_by=json.dumps),
    st.text(st.characters(exclude_characters="<{`"), max_size=9),
    st.booleans(),
)
def test_calls_that_are_written_are_read(calls, before, ascii_only):
    """Whatever the arguments hold, tags and brackets included."""
    named = [{"name": name, "arguments": arguments} for name, arguments in calls]
    texts = [json.dumps(call, ensure_ascii=ascii_only) for call in named]
    assert parse(before, *map(tag, texts)) == (before.rstrip(), calls)
    assert parse("; ".join(texts)) == parse(fence("\n".join(texts))) == ("", calls)


WEATHER = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "$defs": {"city": {"enum": ["Oslo", "São Paulo"]}},
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_strict_call_is_optional_and_fits_its_schema(texts, notation):
    tagged, (opening, closing) = notation == "tagged", NOTATIONS[notation]
    functions = [FunctionDefinition(name="get_weather", parameters=WEATHER, strict=True)]
    functions += [FunctionDefinition(name="loose", parameters={"anything": "goes"})]
    grammar = ToolUse((), functions, required=False, tagged=tagged).grammar()
    key = "arguments" if tagged else "parameters"
    call, wrong, loose = (
        f'{opening}{{"name": "{name}", "{key}": {{"city": "Oslo","days": {days}}}}}{closing}'
        for name, days in (("get_weather", 3), ("get_weather", 33), ("loose", 33))
    )
    accepted = [call, loose, "", "12 <b> is }\n"]
    accepted += [f"Let me see: {call}", call * 2] if tagged else [" \n[1]"]
    rejected = [wrong, wrong[:-1]]
    rejected += [f"Let me see: {wrong}"] if tagged else ["{}", " {"]
    assert [text for text in accepted if not texts.accepts(grammar, text)] == []
    assert [text for text in rejected if texts.accepts(grammar, text)] == []
    assert ToolUse((), functions[1:], required=False).grammar() is None
