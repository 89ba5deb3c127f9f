"""Calls in the text of an answer: found in any pieces, in both notations, and nothing else is lost."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.llama.model import Model
from thirteen.runtime.prompt.prompt_encoder import JSON_NESTING_MAX
from thirteen.server.api.fields import FunctionDefinition
from thirteen.server.api.tool_calls import ToolCallParser, ToolUse

from ...runtime.grammar.texts import GrammarTexts

NAMES = frozenset({"add", "get_weather"})
CALL = '{"name": "add", "arguments": {"a": 1}}'
ADD = ("add", {"a": 1})
NESTED = "[" * (JSON_NESTING_MAX - 1) + "%s" + "]" * (JSON_NESTING_MAX - 1)
WEATHER = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "$defs": {"city": {"enum": ["Oslo", "São Paulo"]}},
}
SUM = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}},
    "required": ["a"],
}
SCHEMAS = {"get_weather": WEATHER, "add": SUM, "now": {"type": "object", "properties": {}}}


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
        (tag(CALL), "", [ADD]),
        (f"<tool_call>\n{CALL}\n</tool_call>\n", "", [ADD]),
        (f"Let me see.\n\n{tag(CALL)}", "Let me see.", [ADD]),
        (f"{tag(CALL)}\n{tag(CALL)}", "", [ADD]),
        (f"{tag(CALL)}\nDone.", "\nDone.", [ADD]),
        (f"<tool_call>{CALL}", "", [ADD]),  # the model ended its turn instead
        (tag(CALL.replace("arguments", "parameters")), "", [ADD]),
        (
            tag('{"name": "add", "arguments": {"a": "</tool_call>\n"}}'),
            "",
            [("add", {"a": "</tool_call>\n"})],
        ),
        (f"<tool_call>{tag(CALL)}", "<tool_call>", [ADD]),
        (tag(CALL.replace("1", NESTED % "")), "", [("add", {"a": json.loads(NESTED % "")})]),
    ],
)
def test_calls_with_tags(text, content, calls):
    assert parse(text) == (content, calls)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (CALL, [ADD]),
        (f" \n{CALL}\n", [ADD]),
        (CALL.replace("arguments", "parameters"), [ADD]),
        (f"{CALL}; {CALL}", [ADD]),
        (f"{CALL}\n{CALL};", [ADD]),
        ('{"type": "function", ' + CALL[1:], [ADD]),
        ('{"type": "function", "function": ' + CALL + "}", [ADD]),
        (fence(CALL), [ADD]),
        (f" {fence(CALL, '')}\n", [ADD]),
        (f"{fence(CALL)}\n\n{fence(CALL, 'tool_call')}", [ADD]),
    ],
)
def test_calls_without_tags(text, calls):
    assert parse(text) == ("", calls)


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"Sure:\n{CALL}\nDone.", "Sure:\nDone.", [ADD]),
        (f"Sure:\n{fence(CALL)}\nDone.", "Sure:\nDone.", [ADD]),
        (f"```python\nx = {{}}\n```\n{CALL}", "```python\nx = {}\n```", [ADD]),
        (f"{{a}}\n{CALL}", "{a}", [ADD]),
        (fence(CALL)[:-4], "```json", [ADD]),  # the model ended its turn instead
        (f"Write {CALL}", f"Write {CALL}", []),
        (f"Write {fence('{}')}", f"Write {fence('{}')}", []),
        (fence(f"{CALL} # calls"), fence(f"{CALL} # calls"), []),
    ],
)
def test_calls_between_other_text(text, content, calls):
    assert parse(text) == parse(*text) == (content, calls)


@pytest.mark.parametrize(
    "call",
    [
        CALL.replace("add", "unknown"),
        '{"name": "add"}',
        '{"name": "add", "arguments": [1]}',
        '{"name": ["add"], "arguments": {}}',
        '{"name": "add", "arguments": {"a": NaN}}',
        '{"name": "add", "arguments": {"a": ' + "9" * 5000 + "}}",
        '{"name": "add", "arguments": {"a": ' + "[" * 100_000 + "}}",
        CALL.replace("1", NESTED % "[]"),
        CALL.replace("1", '"\\ud800"'),  # no text: Ollama's API could not send it
        CALL[:-1],
        "add(1)",
        "",
        f"{CALL} and more",
    ],
)
def test_what_is_no_call_of_a_known_function_stays_text(call):
    for text in (f" see: {tag(call)} \n", f" {call}\n", f" {fence(call)}\n"):
        assert parse(text) == (text, [])


def test_only_the_first_of_several_calls_may_be_wanted():
    assert parse(tag(CALL) * 2, several=False) == ("", [ADD])
    assert parse(f"{CALL};{CALL}", several=False) == ("", [ADD])


@pytest.mark.parametrize(
    ("pieces", "fed"),
    [
        (
            ["a <b", "> \n", "c <to", "ol", " d", "\n<tool_call", ">{}", " e"],
            ["a", " <b>", " \nc", "", " <tool d", *[""] * 3],
        ),
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
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    content, calls = parse(*pieces)
    assert (content, calls) == parse(text)
    assert calls or content == text


@given(
    st.lists(CALLS, min_size=1, max_size=3, unique_by=json.dumps),
    st.text(st.characters(exclude_characters="<{`"), max_size=9),
    st.booleans(),
)
def test_calls_that_are_written_are_read(calls, before, ascii_only):
    """Whatever the arguments hold, tags and brackets included."""
    texts = [
        json.dumps({"name": name, "arguments": arguments}, ensure_ascii=ascii_only)
        for name, arguments in calls
    ]
    assert parse(before, *(f"<tool_call>\n{text}\n</tool_call>" for text in texts)) == (
        before.rstrip(),
        calls,
    )
    assert parse("; ".join(texts)) == parse(fence("\n".join(texts))) == ("", calls)


@pytest.fixture(scope="module")
def texts(tiny):
    with Model(tiny) as model:
        yield GrammarTexts(model)


def tool_use(tagged, *, required=True, several=True, strict=False, schemas=SCHEMAS):
    functions = tuple(
        FunctionDefinition(name=name, parameters=schemas[name], strict=strict) for name in schemas
    )
    return ToolUse((), functions, required, several, tagged)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("tagged", [True, False])
def test_a_strict_call_is_optional_and_fits_its_schema(texts, tagged, several):
    use = tool_use(tagged, required=False, strict=True, several=several)
    call = '{"name": "get_weather", "%s": {"city": "Oslo","days": %d}}'
    call %= ("arguments", 3) if tagged else ("parameters", 3)
    wrong = call.replace("3", "33")
    if tagged:
        call, wrong = (f"<tool_call>\n{text}\n</tool_call>" for text in (call, wrong))
    accepted = [call, "", "12 <b> is }\n", *([f"Let me see: {call}", call * 2] if tagged else [" \n[1]"])]
    rejected = [wrong, wrong[:-1], *([f"Let me see: {wrong}"] if tagged else ["{}", " {"])]
    assert [text for text in accepted if not texts.accepts(use.grammar(), text)] == []
    assert [text for text in rejected if texts.accepts(use.grammar(), text)] == []


def test_only_strict_functions_are_held_to_their_schemas_where_a_call_is_optional(texts):
    loose = FunctionDefinition(name="loose", parameters={"anything": "goes"})
    strict = FunctionDefinition(name="add", parameters=SUM, strict=True)
    use = ToolUse((), (loose, strict), required=False, tagged=True)
    call = '<tool_call>\n{"name": "%s", "arguments": {"a": "text"}}\n</tool_call>'
    assert texts.accepts(use.grammar(), call % "loose")
    assert not texts.accepts(use.grammar(), call % "add")
    assert ToolUse((), (loose,), required=False).grammar() is None
