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


NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "inner": {"$ref": "#/$defs/nodes"}},
    "required": ["name", "inner"],
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": NODE, "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
}
KINDS = [
    {"type": "object", "properties": {"kind": {"const": kind}, "of": {"$ref": "#"}}, "required": ["kind"]}
    for kind in ("a", "b", "c")
]
# Schema, accepted texts, rejected texts; a string has texts without white space.
SCHEMA_TEXTS = [
    (True, ["{}", '"é😀"', "-0.5e-7", '{"a": [1, {}]}', '{\n\t"a":1 }'], ["", "nul", "01"]),
    (
        {"type": "array", "items": {"type": "integer"}},
        ["[]", "[ ]", "[1, 2]", "[\n  1,\n  2\n]", f"[\n{' ' * 20}]"],
        ["[  ]", "[\n\n]", " []", "[] ", f"[\n{' ' * 21}]", "[1,]"],
    ),
    (TREE, '{"name":"","inner":[{"name":"x","inner":[]}]}', '{"name":""} {"inner":[],"name":""}'),
    ({"oneOf": KINDS}, '{"kind":"a","of":{"kind":"c"}}', '{"kind":"d"} {"of":{"kind":"a"}}'),
    (
        {"properties": {"a": {}, 'b"\\\n': {"type": "null"}, "c": {}, "d": {}}, "required": ["c"]},
        r'{"c":1} {"a":1,"c":1} {"a":1,"b\"\\\n":null,"c":1,"d":2}',
        '{} {"c":1,"a":1} {"c":1,"e":1} {"c":1,"c":1} {"a":1,} {,"c":1}',
    ),
    ({"additionalProperties": {"type": "null"}}, '{} {"a":null,"b":null}', '{"a":1} null'),
    (
        {"properties": {"a": {}}, "required": ["c"], "additionalProperties": {"type": "boolean"}},
        '{"a":null,"c":true} {"c":false}',
        '{"c":null} {"a":1} {"c":true,"b":true}',
    ),
    (
        {"prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False, "minItems": 1},
        "[null] [null,true]",
        "[] [true] [null,true,1] [null,null]",
    ),
    # A length is in code points.
    ({"minLength": 2, "maxLength": 2}, r'"ab" "😀\n"', r'"a" "abc" "😀" "\ud83d\ude00" "a\ud83d" "a\ude00"'),
    (
        {"enum": ["a", "ab", 'a"b', 1, 12, 1.5, True, None, {"a": [1, "\\"]}]},
        r'"a" "ab" "a\"b" 1 12 1.5 true null {"a":[1,"\\"]}',
        r'" "b" "abb" 11 2 false {"a":[1,"\"]} 1.0',
    ),
    (
        {"enum": [2**53, -(2**53), 123456789.123456, 1.23456789012345e-7]},
        "9007199254740992 -9007199254740992 123456789.123456 0.000000123456789012345",
        "9007199254740993 123456789.12345601",
    ),
    ({"type": "integer", "minimum": 98}, "98 100 12345", "97 -98 098 98.0 9"),
    ({"minimum": -2, "maximum": 1, "type": "integer"}, "-2 0 1", "-3 2 -"),
    ({"type": "number", "minimum": -1, "maximum": 10}, "-1 -1.0 -0.5 0 9.99 10.0", "-1.1 10.1 11 1e1 01 -2"),
    (
        {"type": "string", "format": "date"},
        '"2024-02-29" "2000-02-29" "1999-12-31" "2023-04-30"',
        '"2023-02-29" "1900-02-29" "2023-04-31" "2023-13-01" "2023-00-10" "0999-01-01"',
    ),
    ({"format": "time"}, '"23:59:59.5+01:30"', '"24:00:00Z" "23:60:00Z" "12:00:00"'),
    ({"pattern": r'^[^"]\[?$'}, r'"a" "\n[" "\\"', r'"\""'),
    ({"allOf": [{"type": "null"}], "description": "d"}, "null", "1"),
    # The exclusive bound itself was allowed.
    ({"type": "number", "exclusiveMinimum": 0.0, "maximum": 0.5}, "0.1 0.5 0.00001", "0 0.0 0.6"),
    ({"type": "number", "exclusiveMaximum": -5, "minimum": -5.5}, "-5.1 -5.5", "-5 -5.0 -5.6"),
    ({"type": "number", "minimum": 0.00011874404507367229}, "0.00012 3", "0.00011874404507367 -1"),
    ({"type": "number", "maximum": 1.7976931348623157e308}, "1e99 -5", ""),
    (
        {"type": "integer", "minimum": -(2**63), "exclusiveMaximum": 2**63},
        "-9223372036854774784 0 9223372036854775807",
        "9223372036854775808 -9223372036854775809",
    ),
    ({"type": "integer", "exclusiveMinimum": 1.5, "minimum": 1}, "2", "1"),
    ({"type": "integer", "minimum": 10**16}, "10000000000000000 99999999999999999", "9999999999999999"),
    # A number has 16 digits, where it can end.
    (
        {"type": ["number", "string"]},
        f'{"1" * 16} 0.{"3" * 16} {"1" * 16}.{"0" * 16}e-99 "{"1" * 30}"',
        f"{'1' * 17} 0.{'3' * 17} 1e100",
    ),
    ({"enum": [1, "a", 7], "minimum": 2}, "7", '1 "a"'),
    ({"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^[0-9]$"}]}, '"abc" "1"', '"a" 1'),
    (
        {"type": "string", "format": "email", "pattern": "^a", "maxLength": 6},
        '"a@b.c"',
        '"b@b.c" "a@bbb.c" "ab"',
    ),
    ({"type": "string", "pattern": "^(?=.*[A-Z])(?=.{3}).*1$"}, '"aB1" "A11"', '"ab1" "B1" "aBc"'),
    ({"type": "string", "format": "uri"}, '"https://a.b/c?d=e#f" "mailto:a@b"', '"https://a b" "a" "://"'),
    ({"type": "string", "format": "cuid", "pattern": "^c"}, '"cd"', '"d"'),
    (
        {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "null"}},
        '{"b":null} {}',
        '{"c":null}',
    ),
    ({"propertyNames": {"format": "date"}}, '{"2024-02-29":1}', '{"a":1}'),
    ({"patternProperties": {"^x": {"type": "null"}}}, '{"x1":null}', '{"x1":1} {"a":null}'),
    ({"type": "object", "minProperties": 1, "maxProperties": 1}, '{"a":1}', '{} {"a":1,"b":2}'),
    (
        {"items": [{"type": "null"}, {"type": "boolean"}], "additionalItems": {"type": "null"}},
        "[null,true] [null,true,null]",
        "[null] [null,true,1]",
    ),
    (
        {
            "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in "ab"],
            "$defs": dict(zip("ab", KINDS, strict=False)),
        },
        '{"kind":"a"} {"kind":"b"}',
        '{"kind":"c"}',
    ),
    ({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^(?!a)1"}]}, "1.5", '"1"'),
    ({"$ref": "#/$defs/a~1b%25/anyOf/0", "$defs": {"a/b%": {"anyOf": [{"type": "null"}]}}}, "null", "1"),
]


@pytest.mark.parametrize(("schema", "accepted", "rejected"), SCHEMA_TEXTS)
def test_accepted_and_rejected_texts_of_schemas(texts, schema, accepted, rejected):
    accepted, rejected = (one.split() if isinstance(one, str) else one for one in (accepted, rejected))
    for grammar in (from_schema(schema), from_schema(json.dumps(schema))):
        assert [text for text in accepted if not texts.accepts(grammar, text)] == []
        assert [text for text in rejected if texts.accepts(grammar, text)] == []


UNKNOWN_KEYWORDS = """
not if then else contains dependentSchemas dependentRequired minContains unevaluatedProperties
unevaluatedItems contentMediaType $anchor $dynamicRef nullable dependencies $vocabulary x-anything x-guidance
Type
"""
BAD_PATTERNS = (
    *(
        "^[]$",
        "^[^]$",
        "^[b-a]$",
        r"^\b$",
        "^a(?=b)",
        "^(?!a)",
        "^(?=a)b|c",
        r"^\1$",
        "^a{2,1}$",
        "^a{,2}$",
        "^a{$",
        "^[a$",
    ),
    *("^[a[b]]$", "^[[:digit:]]$", "^[a&&z]$", "^[^a~~b]$", r"^\a$", r"^\Aa$", r"^a\z"),  # Rust's own
    *(5, r"^[\uD800]$", "^a^$", "^a$b$", "a" * 1001, "(" * 300 + ")" * 300),
)
REFUSED = [
    (
        {"properties": {"a": {"multipleOf": 10001}}},
        'schema at #/properties/a: "multipleOf" cannot be enforced',
    ),
    *(
        ({"items": {keyword: {}}}, f'schema at #/items: "{keyword}" cannot be enforced')
        for keyword in UNKNOWN_KEYWORDS.split()
    ),
    ({"items": {"$id": "other", "type": "null"}}, '#/items: "$id" cannot'),
    ({"type": "string", "minimum": 1}, '"minimum" cannot be enforced for string'),
    ({"type": "number", "multipleOf": 0}, '"multipleOf" cannot be enforced for 0'),
    ({"type": "integer", "minimum": True}, '"minimum" must be a number, not true'),
    ({"type": "integer", "minimum": 3, "exclusiveMaximum": 3}, "minimum (3) is greater than maximum (2)"),
    ({"type": "integer", "minimum": 2**63}, '"minimum" cannot be enforced'),
    ({"type": "number", "exclusiveMinimum": 1e30}, '"exclusiveMinimum" cannot be enforced'),
    ({"type": "number", "format": "date"}, '"format" cannot be enforced for number'),
    ({"format": {}}, '"format" must be a string'),
    ({"type": "string", "maxLength": -1}, '"maxLength" must be an integer from 0, not -1'),
    ({"type": "string", "minLength": 10001}, '"minLength" cannot be enforced above 10000'),
    ({"type": "array", "uniqueItems": True}, '"uniqueItems" cannot be enforced'),
    ({"type": "object", "minProperties": 2}, '"minProperties" cannot be enforced above 1'),
    ({"propertyNames": {"format": "duration"}}, '"propertyNames" cannot be enforced for these names'),
    ({"patternProperties": {"a": True, "b": True}}, '"patternProperties" cannot be enforced for these names'),
    ({"type": "string", "minLength": 3, "maxLength": 2}, '"minLength" is 3, but "maxLength" is 2'),
    ({"type": "array", "minItems": "1"}, '"minItems" must be'),
    ({"type": "array", "prefixItems": [True], "items": False, "minItems": 2}, "from 2 to 1 items"),
    ({"type": "string", "format": "iri", "pattern": "a"}, '"format" cannot be enforced unless it is one of'),
    ({"format": "date", "minLength": 11}, '"format" cannot be enforced with the others'),
    *(({"pattern": pattern}, 'schema at #: "pattern" cannot be enforced') for pattern in BAD_PATTERNS),
    ({"properties": {"a": {}}, "required": ["b"]}, '"required" cannot be enforced for "b"'),
    ({"properties": {}, "additionalProperties": 0}, "#/additionalProperties: must be an object or true"),
    ({"properties": {"a/b": 0}}, "schema at #/properties/a~1b: must be an object or true"),
    ({"properties": {"a\n\u2028": 1}}, r"#/properties/a\n\u2028: "),
    (False, "schema at #: must be an object or true, not false"),
    ({"anyOf": []}, '"anyOf" cannot be enforced unless'),
    ({"allOf": [{"$ref": "#"}, {"minLength": 1}]}, "circular references"),
    (
        {"allOf": [{"properties": {}}, {"required": ["a"]}]},
        '"allOf" cannot be enforced for several schemas of',
    ),
    ({"pattern": "^[\x1b[31m"}, '"pattern" cannot be enforced: regex parse error'),
    ({"enum": []}, "no listed value"),
    ({"enum": ["a", True], "type": "integer"}, "no listed value is integer"),
    # llguidance would allow 9007199254740992, 0.30000000000000006 and the like instead.
    ({"const": 2**53 + 1}, '"const" cannot be enforced for 9007199254740993: a number has at most 15 digits'),
    ({"enum": [1, {"a": [-(2**64)]}]}, '"enum" cannot be enforced for -18446744073709551616'),
    ({"const": 1e-23}, "cannot be enforced for 1e-23: a number has at most 15 digits and 22 decimal places"),
    ({"type": "any"}, '"type" must be one of object'),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "cannot be enforced: its schemas may overlap"),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [2.0]}]}, '"oneOf" cannot be enforced'),
    (
        {"oneOf": [{"type": "object", "properties": {name: {}}, "required": [name]} for name in "ab"]},
        '"oneOf" cannot be enforced',  # another may have both
    ),
    ({"$ref": "https://example.com/schema"}, '"$ref" must be # or begin with #/, not'),
    ({"$ref": "#/$defs/none"}, '"$ref" does not resolve'),
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


@pytest.mark.parametrize("key", ["enum", "minimum"])
def test_values_that_just_fit_the_limit_of_recursion_are_refused(key):
    """They were parsed, and exceeded the limit where an error quoted them."""
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit()):
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
