"""Schemas and grammars are enforced completely or refused by name, within limits on time and memory."""

import json
import random
import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.grammar.grammar import from_lark, from_regex, from_schema
from thirteen.runtime.llama.constraint import GrammarCompiler
from thirteen.runtime.llama.model import Model

from .json_schemas import any_keywords, described_values
from .texts import GrammarTexts

EXAMPLES = 5 * settings.default.max_examples


@pytest.fixture(scope="module")
def texts(tiny):
    with Model(tiny) as model:
        yield GrammarTexts(model)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def error_message(make, *arguments):
    with pytest.raises(RequestError) as caught:
        make(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


def enforceable(schema):
    """The grammar of a schema; a schema that is refused is no example."""
    try:
        return from_schema(schema)
    except RequestError:
        assume(False)


def check_sample(texts, schema, seed):
    """The oracle is the package jsonschema."""
    text = texts.sample(enforceable(schema), random.Random(seed))
    if text is not None:
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        value = json.loads(text, parse_int=below_2_53(int), parse_float=below_2_53(float))
        jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(described=described_values(), seed=st.integers(0, 2**32))
def test_valid_values_are_accepted_and_sampled_texts_are_valid(texts, described, seed):
    value, schema = described
    assert texts.accepts(enforceable(schema), dumps(value))
    check_sample(texts, schema, seed)


@settings(max_examples=2 * EXAMPLES, suppress_health_check=list(HealthCheck))
@given(schema=any_keywords(), seed=st.integers(0, 2**32))
def test_schemas_with_any_keywords_are_enforced_or_refused(texts, schema, seed):
    """Most are refused: keywords that contradict each other, or cannot be enforced together."""
    check_sample(texts, schema, seed)


def below_2_53(parse):
    """Larger numbers, such as 9942330319005945.0, are multiples of 7.5 that jsonschema's doubles round."""

    def parse_number(text):
        assume(abs(float(text)) < 2**53)
        return parse(text)

    return parse_number


# texts: schema, accepted texts, rejected texts. A length is in code points; a number has 16 digits at most.
# refused: schema, reason; of several numbers, llguidance would allow a neighbour, such as 9007199254740992.
CASES = json.loads((Path(__file__).parents[2] / "data" / "schema_cases.json").read_text("utf-8"))


@pytest.mark.parametrize(("schema", "accepted", "rejected"), CASES["texts"])
def test_accepted_and_rejected_texts_of_schemas(texts, schema, accepted, rejected):
    for grammar in (from_schema(schema), from_schema(json.dumps(schema))):
        assert [text for text in accepted if not texts.accepts(grammar, text)] == []
        assert [text for text in rejected if texts.accepts(grammar, text)] == []


UNKNOWN_KEYWORDS = """
not if then else contains dependentSchemas dependentRequired minContains unevaluatedProperties
unevaluatedItems contentMediaType $anchor $dynamicRef nullable dependencies $vocabulary x-anything x-guidance
Type
"""
BAD_PATTERNS = (
    *("^[]$", "^[^]$", "^[b-a]$", r"^\b$", "^a(?=b)", "^(?!a)", "^(?=a)b|c", r"^\1$", "^a{2,1}$", "^a{,2}$"),
    *("^a{$", "^[a$", 5, r"^[\uD800]$", "^a^$", "^a$b$", "a" * 1001, "(" * 300 + ")" * 300),
    *("^[a[b]]$", "^[[:digit:]]$", "^[a&&z]$", "^[^a~~b]$", r"^\a$", r"^\Aa$", r"^a\z"),  # Rust's own
)
REFUSED = [
    *CASES["refused"],
    *(
        ({"items": {keyword: {}}}, f'schema at #/items: "{keyword}" cannot be enforced')
        for keyword in UNKNOWN_KEYWORDS.split()
    ),
    *(({"pattern": pattern}, 'schema at #: "pattern" cannot be enforced') for pattern in BAD_PATTERNS),
    (  # the patterns were left out without a word
        {"patternProperties": {"a": {"type": "null"}}, "propertyNames": {"enum": ["a", "b"]}},
        '"propertyNames" cannot be enforced beside patternProperties',
    ),
    ({"const": float("nan")}, "not JSON"),
    ('{"type": "null"', "not JSON at line 1 column 16"),
    ('{"const": NaN}', "NaN is not a finite number"),
    ('{"const": 1e400}', "1e400 is not a finite number"),
    (f'{{"const": {"1" * 5000}}}', "not JSON"),
    ('{"type": "null", "type": "string"}', "duplicate key"),
    ('{"const": "\\ud800"}', "hex escape"),
    ('{"\\ud800": 1}', r'"\ud800" cannot be enforced'),
    ("[" * 30000 + "]" * 30000, "not JSON"),
    (f'{{"const": "{"a" * 70000}"}}', "bytes are more than 65536"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_unenforceable_schemas_are_refused(schema, reason):
    assert reason in error_message(from_schema, schema)


def test_counts_of_properties_that_cannot_be_enforced_are_left_out_by_name(texts):
    """They failed with llguidance's own words, although the caller takes what is left."""
    ignored = []
    schema = {"properties": {"a": {}, "b": {}}, "minProperties": 2, "maxProperties": 2}
    assert texts.accepts(from_schema(schema, ignored), "{}")
    assert ignored == ["#/minProperties", "#/maxProperties"]


@pytest.mark.parametrize("key", ["enum", "minimum"])
def test_values_that_just_fit_the_limit_of_recursion_are_refused(key):
    """They were parsed, and exceeded the limit where an error quoted them."""
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit(), 2):
        assert error_message(from_schema, f'{{"{key}": {"[" * depth}{"]" * depth}}}')


def nested(levels, inner, wrap):
    for _ in range(levels):
        inner = wrap(inner)
    return inner


def overlapping(levels):
    """Nested objects that differ only in their last property."""

    def branch(level, last):
        properties = {"x": {"$ref": f"#/$defs/{level}"}, last: {}}
        return {"type": "object", "properties": properties, "required": ["x", last]}

    defs = {
        str(level): {"anyOf": [branch(level - 1, last) for last in "yz"]} for level in range(1, levels + 1)
    }
    return {"$ref": f"#/$defs/{levels}", "$defs": defs | {"0": {"type": "null"}}}


def reference_chain(length, wrap):
    defs = {str(n): wrap({"$ref": f"#/$defs/{n + 1}"}) for n in range(length)}
    return {"$ref": "#/$defs/0", "$defs": defs | {str(length): {"type": "null"}}}


def rule_chain(length, rule, last):
    rules = (rule.format(this=f"a{n}", next=f"a{n + 1}") for n in range(length))
    return "\n".join(["start: a0", *rules, f"a{length}: {last}"])


def pattern_by_many_names():
    """A $ref for each spelling of the name of one definition."""
    spelled = product(*((letter, f"%{ord(letter):x}") for letter in "abcdefgh"))
    references = {f"q{n}": {"$ref": f"#/$defs/{''.join(name)}"} for n, name in enumerate(spelled)}
    patterns = {f"p{n}": {"pattern": f"(.*{n}){{9}}"} for n in range(100)}
    return {"properties": references, "$defs": {"abcdefgh": {"properties": patterns}}}


LARGE = {
    "a definition by many names": (pattern_by_many_names(), None),
    "deep": (nested(200, {}, lambda inner: {"items": inner}), "more than 64 keywords and names deep"),
    "doubling parses": (overlapping(30), None),
    "references in unions": (reference_chain(490, lambda one: {"anyOf": [one, {"type": "null"}]}), None),
    "multiples": ({"properties": {f"p{n}": {"multipleOf": 997 - n} for n in range(200)}}, "multipleOf"),
    "ambiguous patterns": (
        {"properties": {f"p{n}": {"pattern": f"(a|b)*a(a|b){{{n}}}$"} for n in range(100)}},
        None,
    ),
    "patterns in a oneOf": (
        {"oneOf": [{"type": "string", "pattern": f"(a|b)*{n:07b}(a|b){{9}}$"} for n in range(64)]},
        "oneOf",
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_schemas_are_compiled_or_refused_within_seconds(texts, name):
    schema, reason = LARGE[name]
    start_s = time.perf_counter()
    try:
        texts.sample(from_schema(schema), random.Random(13), max_bytes=60)
        assert reason is None
    except RequestError as error:
        limits = ("Too many items", "too many expressions", "fuel", "max is", "too big", "items", "limit")
        assert (reason or "") in str(error) and (reason or any(limit in str(error) for limit in limits)), (
            error
        )
    assert time.perf_counter() - start_s < 5


LARK_REFUSED = {
    "empty": "",
    "no start": 'other: "a"',
    "undefined rule": "start: nothing",
    "token by name": 'start: "a" <|im_end|>',
    "a schema": "start: %json {}",
    "limited tokens": "start: a\na[max_tokens=3]: /[a-z]+/",
    "deep groups": "start: " + "(" * 8000 + '"a"' + ")" * 8000,
    "a circular token": 'start: A\nA: A "x" | "b"',
    "too long": 'start: "a"' + ' "a"' * 5000,
}


@pytest.mark.parametrize("name", LARK_REFUSED)
def test_lark_that_is_malformed_or_not_enforced_is_refused(name):
    assert error_message(from_lark, LARK_REFUSED[name]).startswith("grammar")


@pytest.mark.parametrize(
    "text", ["(", "a{2,1}", r"\bx", "(?=a)", "a" * 5000, "(" * 300 + ")" * 300, "\ud800"]
)
def test_expressions_that_cannot_be_enforced_are_refused(text):
    assert error_message(from_regex, text).startswith("regex")


def test_a_grammar_without_texts_is_refused_for_the_model(texts):
    assert "no text" in error_message(texts.sample, from_lark("start: start"), random.Random(1))


def test_lark_grammars_are_enforced(texts):
    grammar = from_lark('start: "<b>" WORD ("," WORD)* // <|a comment|>\nWORD: /[a-z]+@x|%json/')
    assert texts.accepts(grammar, "<b>a@x,%json")
    assert not texts.accepts(grammar, "<b>a")


@given(st.from_regex(re.compile(r"[ab]{1,3}(c|d+)?\Z"), fullmatch=True), st.text("abcd", max_size=6))
def test_expressions_match_the_whole_text(texts, matching, other):
    grammar = from_regex("[ab]{1,3}(c|d+)?")
    assert texts.accepts(grammar, matching)
    assert texts.accepts(grammar, other) == bool(re.fullmatch("[ab]{1,3}(c|d+)?", other))


HOSTILE = [
    rule_chain(900, "{this}: {next}", '"x"'),
    rule_chain(600, '{this}: {next} "x" | {next} "y"', '"z"'),
    'start: a\na: "x" a "y" | "x" a "z" | "w"',
    'start: (start | "a" | "")*',
    'start: ((("a" b){1000}){1000}){1000}\nb: "c"',
    rule_chain(300, "{this}: {next} & /.*A.*/", "/.*/").upper().replace("START", "start"),
    "start: /" + "a?" * 5000 + "/",
]


@pytest.mark.slow
def test_hostile_grammars_end_no_process(tiny):
    """Without a deep stack and limits the library ends the process, or computes for minutes."""
    script = Path(__file__).with_name("sample_grammar.py")
    command = [sys.executable, script, tiny, *HOSTILE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr[-2000:])
    assert len(done.stdout.splitlines()) == len(HOSTILE)


def test_a_grammar_is_compiled_once_for_all_sequences(tiny, monkeypatch):
    with Model(tiny) as model:
        compiler = GrammarCompiler(model)
        first = compiler.constraint(from_regex("aab"))
        monkeypatch.setattr("thirteen.runtime.llama.constraint.compile_matcher", None)
        second = compiler.constraint(from_regex("aab"))
        a, b = (token for token in range(256) if model.token_to_piece(token) in (b"a", b"b"))
        assert [first.accept(token) for token in (b, a, a, b)] == [False, True, True, True]
        assert second.accept(a), "each sequence has its own position"
        assert (first.finished, second.finished) == (True, False)
