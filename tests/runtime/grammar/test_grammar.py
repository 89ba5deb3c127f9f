"""Schemas are enforced completely or refused, and no accepted grammar crashes or hangs llama.cpp."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.grammar.gbnf_writer import integer_range
from thirteen.runtime.grammar.grammar import Grammar, from_gbnf, from_schema
from thirteen.runtime.llama.model import Model

from .json_schemas import SCHEMAS, VALUES, is_valid, valid_values
from .native_grammar import NativeGrammar


@pytest.fixture(scope="module")
def native(tiny):
    with Model(tiny) as model:
        yield NativeGrammar(model)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def error_message(make, *arguments):
    with pytest.raises(RequestError) as caught:
        make(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    return message


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_sampled_texts_are_valid(native, schema, seed):
    text = native.sample_text(from_schema(schema), random.Random(seed))
    assume(text is not None)
    assert is_valid(json.loads(text), schema), text


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(schema=SCHEMAS, data=st.data())
def test_valid_values_are_accepted(native, schema, data):
    value = data.draw(valid_values(schema))
    assert native.accepts(from_schema(schema), dumps(value))


@settings(max_examples=200, deadline=None)
@given(schema=SCHEMAS, value=VALUES)
def test_accepted_values_are_valid(native, schema, value):
    assert not native.accepts(from_schema(schema), dumps(value)) or is_valid(value, schema)


PATTERN_ATOMS = [
    "a",
    "b",
    "[a-c]",
    "[^a]",
    "[^\\]-]",
    r"\d",
    r"\w",
    r"\W",
    r"\S",
    ".",
    "é",
    r"\.",
    r"\"",
    r"\\",
    r"[\s\d_-]",
]
SPACES = r"\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # white space of ECMA-262
QUANTIFIERS = ["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}"]


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from(PATTERN_ATOMS), st.sampled_from(QUANTIFIERS)), max_size=5),
    seed=st.integers(0, 2**32),
)
def test_sampled_strings_match_the_pattern(native, parts, seed):
    pattern = "".join(map("".join, parts))
    try:
        grammar = from_schema({"type": "string", "pattern": f"^{pattern}$"})
    except RequestError as error:
        assert "two parts match the same character" in str(error)
        return
    text = native.sample_text(grammar, random.Random(seed))
    assume(text is not None)
    as_in_python = pattern.replace(r"\S", f"[^{SPACES}]").replace(r"\s", SPACES)
    assert re.fullmatch(as_in_python, json.loads(text), re.ASCII), text


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(-1100, 1100), st.integers(-1100, 1100)).map(sorted))
def test_integer_range_matches_exactly_its_integers(bounds):
    expression = re.compile(integer_range(*bounds).replace('"', "").replace(" ", ""))
    found = [number for number in range(-1111, 1112) if expression.fullmatch(str(number))]
    assert found == list(range(bounds[0], bounds[1] + 1))


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
SCHEMA_TEXTS = {
    # schema, accepted texts, rejected texts
    "any value": (
        True,
        ["{}", "[]", '"é😀"', "-0.5e-7", "null", '{"a": [1, {}]}', '{\n\t"a":1 }'],
        ["", "nul", "01"],
    ),
    "white space": (
        {"type": "array", "items": {"type": "integer"}},
        ["[]", "[ ]", "[1, 2]", "[\n  1,\n  2\n]", f"[\n{' ' * 20}]"],
        ["[  ]", "[\n\n]", "[1 ,2]", " []", "[] ", f"[\n{' ' * 21}]", "[1,]"],
    ),
    "a recursive tree": (
        TREE,
        ['{"name":"","inner":[{"name":"x","inner":[]}]}'],
        ['{"name":""}', '{"inner":[],"name":""}'],
    ),
    "oneOf": (
        {"oneOf": KINDS},
        ['{"kind":"a","of":{"kind":"c"}}'],
        ['{"kind":"d"}', '{"of":{"kind":"a"}}'],
    ),
    "properties": (
        {"properties": {"a": {}, 'b"\\\n': {"type": "null"}, "c": {}, "d": {}}, "required": ["c"]},
        [
            '{"c":1}',
            '{"a":1,"c":1}',
            '{"b\\"\\\\\\n":null,"c":1,"d":2}',
            '{"a":1,"b\\"\\\\\\n":null,"c":1,"d":2}',
        ],
        [
            "{}",
            '{"a":1}',
            '{"c":1,"a":1}',
            '{"c":1,"e":1}',
            '{"c":1,"c":1}',
            '{"a":1,}',
            '{,"c":1}',
            '{"b":null,"c":1}',
        ],
    ),
    "no properties": ({"type": "object", "properties": {}}, ["{}", "{ }"], ['{"a":1}']),
    "no additional properties": ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
    "a map": ({"additionalProperties": {"type": "null"}}, ["{}", '{"a":null,"b":null}'], ['{"a":1}', "null"]),
    "prefix items": (
        {"prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False, "minItems": 1},
        ["[null]", "[null,true]"],
        ["[]", "[true]", "[null,true,1]", "[null,null]"],
    ),
    "prefix and other items": (
        {"prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
        ["[null,true]", "[null,true,false]"],
        ["[null]", "[null,null]", "[null,true,true,true]"],
    ),
    "no items": ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    "no text": ({"type": "string", "maxLength": 0}, ['""'], ['"a"']),
    "length in code points": (
        {"type": "string", "minLength": 2, "maxLength": 2},
        ['"ab"', '"😀\\n"', r'"\ud83d\ude00\u00e9"'],
        ['"a"', '"abc"', '"😀"', r'"\ud83d\ude00"', r'"a\ud83d"', r'"a\ude00"'],
    ),
    "no control characters": (
        {"type": "string"},
        [r'"\u0000\b"', '"\x7f"'],
        ['"\n"', '"\x00"', '"\x1f"', '"\\x"', '"\\"'],
    ),
    "enum": (
        {"enum": ["a", "ab", 'a"b', 1, 12, 1.5, True, None, {"a": [1, "\\"]}]},
        ['"a"', '"ab"', r'"a\"b"', "1", "12", "1.5", "true", "null", r'{"a":[1,"\\"]}'],
        ['"', '"b"', '"abb"', "11", "2", "false", r'{"a":[1,"\"]}', "1.0"],
    ),
    "enum with a type": (
        {"enum": ["a", 1, True, None], "type": ["integer", "null"]},
        ["1", "null"],
        ['"a"', "true"],
    ),
    "whole numbers in an enum": ({"enum": [1.0, -2e2]}, ["1", "-200"], ["1.0"]),
    "integers from": (
        {"type": "integer", "minimum": 98},
        ["98", "100", "12345"],
        ["97", "-98", "098", "98.0", "9"],
    ),
    "integers below": (
        {"type": "integer", "exclusiveMaximum": -9},
        ["-10", "-123"],
        ["-9", "10", "-09", "0"],
    ),
    "integers about 0": (
        {"minimum": -2, "maximum": 1, "type": "integer"},
        ["-2", "0", "1"],
        ["-3", "2", "-0", "-"],
    ),
    "numbers between": (
        {"type": "number", "minimum": -1, "maximum": 10},
        ["-1", "-1.0", "-0.5", "0", "9.99", "10.0"],
        ["-1.1", "10.1", "11", "1e1", "01", "-2"],
    ),
    "numbers from": ({"minimum": 0.0}, ["0", "1e9", "0.5"], ["-1", "-0.5"]),
    "dates": (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"2000-02-29"', '"1999-12-31"', '"2023-04-30"'],
        [
            '"2023-02-29"',
            '"1900-02-29"',
            '"2023-04-31"',
            '"2023-01-32"',
            '"2023-13-01"',
            '"2023-00-10"',
            '"0999-01-01"',
            '"2023-1-1"',
        ],
    ),
    "a comment": (
        {"$comment": "x", "title": "t", "$id": "i", "$schema": "s", "default": 1, "type": "null"},
        ["null"],
        ["1"],
    ),
    "allOf with one schema": ({"allOf": [{"type": "null"}], "description": "d"}, ["null"], ["1"]),
    "types implied by keywords": ({"maxLength": 1, "minItems": 1}, ['"a"', "[1]"], ['"ab"', "[]", "1"]),
    "a pointer with escapes": (
        {"$ref": "#/$defs/a~1b%25/anyOf/0", "$defs": {"a/b%": {"anyOf": [{"type": "null"}]}}},
        ["null"],
        ["1"],
    ),
}


@pytest.mark.parametrize("name", SCHEMA_TEXTS)
def test_accepted_and_rejected_texts_of_schemas(native, name):
    schema, accepted, rejected = SCHEMA_TEXTS[name]
    for grammar in (from_schema(schema), from_schema(json.dumps(schema))):
        assert [text for text in accepted if not native.accepts(grammar, text)] == []
        assert [text for text in rejected if native.accepts(grammar, text)] == []


def test_schema_can_be_any_mapping(native):
    assert native.accepts(from_schema(MappingProxyType({"type": "null"})), "null")


REFUSED = [
    (
        {"properties": {"a": {"type": "number", "multipleOf": 2}}},
        'schema at #/properties/a: "multipleOf" cannot be enforced',
    ),
    *(
        ({"items": {keyword: {}}}, f'schema at #/items: "{keyword}" cannot be enforced')
        for keyword in (
            *("not", "if", "then", "else", "uniqueItems", "patternProperties", "propertyNames", "contains"),
            *("dependentSchemas", "dependentRequired", "minProperties", "maxProperties", "minContains"),
            *(
                "unevaluatedProperties",
                "unevaluatedItems",
                "contentMediaType",
                "$anchor",
                "$dynamicRef",
                "nullable",
            ),
            *("additionalItems", "dependencies", "$vocabulary", "x-anything", "Type"),
        )
    ),
    ({"items": {"$id": "other", "type": "null"}}, '#/items: "$id" cannot'),
    ({"type": "string", "minimum": 1}, '"minimum" cannot be enforced for string'),
    ({"type": "number", "exclusiveMinimum": 0}, '"exclusiveMinimum" cannot be enforced for number'),
    ({"type": "integer", "minLength": 1}, '"minLength" cannot be enforced for integer'),
    ({"type": "object", "items": {}}, '"items" cannot be enforced for object'),
    (
        {"type": "integer", "minimum": 0.5},
        '"minimum" must be an integer up to 100000000000000000000, not',
    ),
    (
        {"type": "integer", "minimum": True},
        '"minimum" must be an integer up to 100000000000000000000, not',
    ),
    (
        {"type": "integer", "maximum": 10**30},
        '"maximum" must be an integer up to 100000000000000000000, not',
    ),
    ({"type": "integer", "minimum": 3, "exclusiveMaximum": 3}, "no integer from 3 to 2"),
    ({"type": "number", "minimum": 3, "maximum": 2}, "no number from 3 to 2"),
    ({"type": "string", "minLength": -1}, '"minLength" must be'),
    ({"type": "string", "maxLength": 1001}, "from 0 to 1000, not 1001"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, '"minLength" is 3, but "maxLength" is 2'),
    ({"type": "array", "minItems": "1"}, '"minItems" must be'),
    ({"type": "array", "prefixItems": [True], "items": False, "minItems": 2}, "from 2 to 1 items"),
    ({"type": "array", "items": [{}]}, "#/items: must be an object or true, not [{}]"),
    ({"type": "array", "prefixItems": {}}, '"prefixItems" must be a list'),
    ({"type": "string", "format": "email"}, '"format" can only be enforced for date'),
    (
        {"type": "string", "format": "date", "minLength": 10},
        '"format" cannot be enforced with "minLength"',
    ),
    (
        {"type": "string", "pattern": "^a$", "maxLength": 1},
        '"pattern" cannot be enforced with "maxLength"',
    ),
    (
        {"type": "string", "pattern": "^a$", "format": "date"},
        '"pattern" cannot be enforced with "format"',
    ),
    *(
        ({"pattern": pattern}, '"pattern" cannot be enforced')
        for pattern in (
            *(
                "a",
                "^a",
                "a$",
                "",
                "^",
                5,
                "^a|b$",
                "^(a)$",
                "^a*?$",
                "^a**$",
                "^[]$",
                "^[^]$",
                "^[b-a]$",
                r"^\b$",
            ),
            *(
                r"^\p{L}$",
                "^a{2,1}$",
                "^a{0}$",
                "^a{1001}$",
                "^a{,2}$",
                "^a{$",
                "^[a$",
                r"^[\d-a]$",
                r"^\1$",
                "^a^$",
            ),
            *(
                "^a*a$",
                "^a?b?a$",
                r"^.*\d$",
                r"^[\uD800]$",
                r"^\u0001$",
                "^" + "a" * 1000 + "$",
                "^a$b$",
                r"^a\$",
            ),
        )
    ),
    ({"type": "object", "required": ["a"]}, '"required" cannot be enforced for "a"'),
    ({"properties": {"a": {}}, "required": ["b"]}, '"required" cannot be enforced for "b"'),
    ({"properties": {"a": {}}, "required": "a"}, '"required" must be a list'),
    ({"properties": {"a": {}}, "required": [["a"]]}, '"required" must be a list'),
    ({"properties": [1]}, '"properties" must be an object'),
    ({"properties": None}, '"properties" must be an object'),
    (
        {"properties": {}, "additionalProperties": True},
        '"additionalProperties" cannot be enforced with "properties"',
    ),
    (
        {"properties": {}, "additionalProperties": 0},
        '"additionalProperties" cannot be enforced with "properties"',
    ),
    ({"additionalProperties": None}, "#/additionalProperties: must be an object or true"),
    ({"properties": {"a/b": False}}, "schema at #/properties/a~1b: must be an object or true"),
    ({"properties": {"a\n\u2028": 1}}, r"#/properties/a\n\u2028: "),
    (False, "schema at #: must be an object or true, not false"),
    ({"anyOf": []}, '"anyOf" cannot be enforced unless'),
    ({"anyOf": [{}] * 200}, '"anyOf" cannot be enforced unless'),
    ({"anyOf": [{"not": {}}]}, '#/anyOf/0: "not"'),
    ({"anyOf": [True], "type": "null"}, '"type" cannot be enforced with "anyOf"'),
    ({"allOf": [True, True]}, '"allOf" cannot be enforced'),
    ({"const": 1, "enum": [1]}, '"enum" cannot be enforced with "const"'),
    ({"enum": [1], "minimum": 0}, '"minimum" cannot be enforced with "enum"'),
    ({"enum": []}, "no listed value"),
    ({"enum": 1}, '"enum" must be a list'),
    ({"enum": ["a", True], "type": "integer"}, "no listed value is integer"),
    ({"type": "any"}, '"type" must be one of object'),
    ({"type": []}, '"type" must list distinct types'),
    ({"type": ["null", "null"]}, '"type" must list distinct types'),
    ({"type": [["null"]]}, '"type" must be one of'),
    ({"type": None}, '"type" must be one of'),
    (
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        '"oneOf" cannot be enforced: a value may match both branch 0 and 1',
    ),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [2.0]}]}, '"oneOf" cannot be enforced'),
    ({"oneOf": [{"properties": {"a": {}}}, {"type": "string"}]}, '"oneOf" cannot be enforced'),
    ({"oneOf": [{"$ref": "#"}, {"type": "string"}]}, '"oneOf" cannot be enforced'),
    (
        {"oneOf": [{"type": "object", "properties": {name: {}}, "required": [name]} for name in "ab"]},
        '"oneOf" cannot be enforced',  # another may have both
    ),
    ({"$ref": "https://example.com/schema"}, '"$ref" must be # or begin with #/, not'),
    ({"$ref": "other#/a"}, '"$ref" must be # or begin with #/'),
    ({"$ref": "#anchor"}, '"$ref" must be # or begin with #/'),
    ({"$ref": 5}, '"$ref" must be # or begin with #/'),
    ({"$ref": "#/$defs/none"}, '"$ref" does not resolve'),
    ({"$ref": "#/anyOf/9", "$defs": {}}, '"$ref" does not resolve'),
    (
        {"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": True}},
        '"minimum" cannot be enforced with "$ref"',
    ),
    ({"$ref": "#"}, "can never end"),
    ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "branches of nested unions"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "can never end"),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "can never end"),
    (5, "not 5"),
    ({"const": float("nan")}, "not JSON"),
    ({"const": object()}, "not JSON"),
    ("5", "not 5"),
    ('{"type": "null"', "not JSON at line 1 column 16"),
    ('{"type":\n null,}', "not JSON at line 2 column"),
    ('{"const": NaN}', "NaN is not a finite number"),
    ('{"const": 1e400}', "1e400 is not a finite number"),
    (f'{{"const": {"1" * 5000}}}', "not JSON"),
    ('{"type": "null", "type": "string"}', "duplicate key"),
    ('{"const": "\\ud800"}', "lone surrogate"),
    ('{"\\ud800": 1}', r'"\ud800" cannot be enforced'),
    ("[" * 30000 + "]" * 30000, "not JSON"),
    (f'{{"const": "{"a" * 70000}"}}', "bytes are more than 65536"),
    ("", "not JSON at line 1 column 1"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_unenforceable_schemas_are_refused(schema, reason):
    assert reason in error_message(from_schema, schema)


def test_cyclic_schema_object_is_refused():
    schema = {"type": "array"}
    schema["items"] = schema
    assert "not JSON" in error_message(from_schema, schema)


def nested(levels, inner, wrap):
    for _ in range(levels):
        inner = wrap(inner)
    return inner


def overlapping(levels):
    """Nested objects that differ only in their last property."""

    def branch(level, last):
        return {
            "type": "object",
            "properties": {"x": {"$ref": f"#/$defs/{level}"}, last: {}},
            "required": ["x", last],
        }

    defs = {
        str(level): {"anyOf": [branch(level - 1, last) for last in "yz"]} for level in range(1, levels + 1)
    }
    return {"$ref": f"#/$defs/{levels}", "$defs": defs | {"0": {"type": "null"}}}


LARGE = {
    "deep": (nested(200, {}, lambda inner: {"items": inner}), "more than 64 keywords and names deep"),
    "doubling parses": (overlapping(30), "more than 64 branches"),
    "doubling parses in a cycle": (
        {
            "anyOf": [
                {"properties": {"x": {"$ref": "#"}, last: {}}, "required": ["x", last]} for last in "yz"
            ]
            + [{"type": "null"}]
        },
        "more than 64 branches",
    ),
    "a chain of references": (
        {"$ref": "#/$defs/0", "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(900)}},
        "does not resolve",
    ),
    "a long array of arrays": (
        nested(8, {}, lambda inner: {"type": "array", "items": inner, "minItems": 1000, "maxItems": 1000}),
        None,
    ),
    "many properties": ({"properties": {f"p{n}": {"maxLength": 9} for n in range(300)}}, None),
    "many values": ({"enum": [f"{n:x}" * 3 for n in range(3000)]}, None),
    "many branches": ({"anyOf": [{"const": n} for n in range(128)]}, None),
    "some parses": (overlapping(6), None),
    "lengths": ({"properties": {f"p{n}": {"type": "string", "maxLength": 1000} for n in range(50)}}, None),
    "values that are prefixes": ({"enum": ["a" * n for n in range(300)]}, None),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_schemas_are_compiled_or_refused_within_seconds(native, name):
    schema, reason = LARGE[name]
    start_s = time.perf_counter()
    if reason:
        assert reason in error_message(from_schema, schema)
    else:
        native.sample_text(from_schema(schema), random.Random(13), max_bytes=60)
    assert time.perf_counter() - start_s < 5


def chain(length, rule, last='"z"'):
    rules = [rule.format(next=f"a{index + 1}", this=f"a{index}") for index in range(length)]
    return "\n".join(
        [
            "root ::= a0",
            *(f"a{index} ::= {text}" for index, text in enumerate(rules)),
            f"a{length} ::= {last}",
        ]
    )


HOSTILE = {
    "empty": ("", "rule 'root' is not defined"),
    "comment only": ("# root", "is not defined"),
    "no root": ('other ::= "a"', "rule 'root' is not defined"),
    "undefined rule": ("root ::= nothing", "rule root uses 'nothing', which is not defined"),
    "rule twice": ('root ::= "a"\nroot ::= "b"', "line 2: rule root is defined twice"),
    "NUL ends a C string": ('root ::= "a" | \0 "b"', "NUL"),
    "lone surrogate in a literal": ('root ::= "\ud800"', "lone surrogate"),
    "escaped lone surrogate": (r'root ::= "\uD800"', "lone surrogate"),
    "escaped NUL": (r'root ::= "\x00"', "NUL"),
    "beyond Unicode": (r'root ::= "\UFFFFFFFF"', "is not a code point"),
    "short escape": (r'root ::= "\x1"', "unknown escape"),
    "unknown escape": (r'root ::= "\d"', "unknown escape"),
    "empty set": ("root ::= []", "matches no character"),
    "set of everything": ("root ::= [^]", "matches no character"),
    "set of all": (r"root ::= [^\x00-\uD7FF\uE000-\U0010FFFF]", "matches no character"),
    "set of NUL": (r"root ::= [\x00]", "matches no character"),
    "set of surrogates": (r"root ::= [\uD800-\uDFFF]", "matches no character"),
    "reversed range": ("root ::= [z-a]", "ends before it begins"),
    "unfinished literal": ('root ::= "a', "expected"),
    "unfinished set": ("root ::= [a", "expected"),
    "unfinished group": ('root ::= ("a"', "expected"),
    "unopened group": ('root ::= "a")', "expected"),
    "underscore": ('root ::= a_b\na_b ::= "c"', "expected"),
    "alternative on a line of its own": ('root ::= "a"\n | "b"', "expected name"),
    "token": ("root ::= <[1]>", "expected"),
    "token by name": ("root ::= <|im_end|>", "expected"),
    "all but a token": ("root ::= !<[1]>", "expected"),
    "quantifier alone": ("root ::= *", "repeats nothing"),
    "quantifier after an empty literal": ('root ::= ""*', "repeats nothing"),
    "repeated repetition": ('root ::= "a"**', "may be empty"),
    "repeated empty rule": ('root ::= b*\nb ::= "a"?', "repeats an item that may be empty"),
    "repeated empty group": ('root ::= ("a"? "b"*)+', "repeats an item that may be empty"),
    "reversed bounds": ('root ::= "a"{5,2}', "m <= n"),
    "zero repetitions": ('root ::= "a"{0}', "m <= n"),
    "a million repetitions": ('root ::= "a"{1,1000000}', "m <= n"),
    "a huge number of repetitions": (f'root ::= "a"{{{"9" * 5000}}}', "m <= n"),
    "repeated repetitions": ('root ::= "a"{40}{40}{40}', "expands"),
    "repeated groups": ('root ::= (("a"{0,60}){0,30}){0,60}', "expands"),
    "repeated long literal": (f'root ::= "{"a" * 5000}"{{1000}}', "elements"),
    "repetitions in many rules": (
        "\n".join(f'r{n} ::= "aaaa"{{1000}}' for n in range(100)) + "\nroot ::= r1",
        "elements",
    ),
    "repeated huge set": (f"root ::= [{'ab' * 1000}]{{1000}}", "elements"),
    "too long": ("root ::= " + '"a" ' * 20000, "80009 bytes"),
    "too many rules": (
        "\n".join(f'r{n}::=""' for n in range(5000)) + '\nroot::=""',
        "more than 4096 rules",
    ),
    "deep groups": ("root ::= " + "(" * 30000 + '"a"' + ")" * 30000, "64 deep"),
    "endless": ("root ::= root", "can never end"),
    "endless after a literal": ('root ::= "a" root', "can never end"),
    "endless alternative": (
        'root ::= "a" | "b" other\nother ::= "c" other',
        "rule other can never end",
    ),
    "left recursion": ('root ::= root "a" | "b"', "is left-recursive"),
    "indirect left recursion": ('root ::= a "x"\na ::= b\nb ::= "y" | a "z"', "is left-recursive"),
    "left recursion behind a nullable rule": ('root ::= b root "z" | "y"\nb ::= "x"?', "is left-recursive"),
    "left recursion behind nullable rules": (
        'root ::= b c root "z" | "y"\nb ::= c c\nc ::= "x" | ',
        "is left-recursive",
    ),
    "left recursion in a group": ('root ::= ("x"* (root "z")) | "y"', "is left-recursive"),
    "repeated left recursion": ('root ::= (root "z")* "y"', "is left-recursive"),
    "deep left corners": (chain(3000, "{next}"), "rules deep"),
    "doubling parse stacks": (chain(60, '{next} "x" | {next} "y"'), "parse stacks"),
    "doubling equal parse stacks": (chain(60, "{next} | {next}"), "parse stacks"),
    "doubling nullable rules": (chain(60, "{next} {next}", '"z"?'), "parse stacks"),
    "many continuations": (
        'root ::= "x" ' + "a " * 200 + '\na ::= "x"' + ' | "x"' * 80 + " | ",
        "continuations",
    ),
    "many optional items": ("root ::= " + "[a-z]? " * 900, "continuations"),
    "long search for left recursion": (
        "\n".join(["root ::= a" + " | a" * 50, "a ::= b" + ' "x" | b' * 20, f'b ::= "{"x" * 50000}"']),
        "steps",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_within_seconds(name):
    text, reason = HOSTILE[name]
    start_s = time.perf_counter()
    assert reason in error_message(from_gbnf, text)
    assert time.perf_counter() - start_s < 5


def test_root_can_have_another_name(native):
    assert native.accepts(Grammar('answer ::= "yes" | "no"', "answer"), "no")
    assert "'root'" in error_message(Grammar, 'answer ::= "yes"')


def test_gbnf_must_be_a_string():
    assert "not bytes" in error_message(from_gbnf, b'root ::= "a"')


EXAMPLES = {
    # Based on the grammars that come with llama.cpp.
    "arithmetic": (
        'root ::= (expr "=" ws term "\\n")+\nexpr ::= term ([-+*/] term)*\n'
        'term ::= ident | num | "(" ws expr ")" ws\nident ::= [a-z] [a-z0-9_]* ws # a name\n'
        "num ::= [0-9]+ ws\nws ::= [ \\t\\n]*\n",
        ["a+1=2\n", "(x-y)*3 = z\n\n"],
        ["a+=2\n", "a=2"],
    ),
    "list": (
        'root ::= item+\n\nitem ::= "- " [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ "\\n"',
        ["- é\n- b\n"],
        ["- \n", "a"],
    ),
    "multiple lines": (
        'root ::= ("a" |\n  "b"\n  | [\\]\\-"^] )\r\n\r\n# end',
        ["a", "b", "]", "-", '"', "^"],
        ["c", "ab", ""],
    ),
    "repetitions": ('root ::= "ab"{2} "c"{0,2} "d"{1,} .?', ["ababd", "ababccddé"], ["abd", "ababcccd"]),
    "repeated repetitions": ('root ::= "a"{2}{3}+', ["a" * 6, "a" * 12], ["a" * 5, "a" * 8]),
    "empty": ('root ::= ""', [""], ["a"]),
    "nested": ('root ::= "(" root ")" | ', ["", "(())"], ["(()", ")"]),
    "dashes in sets": ("root ::= [a-c-e] [-x] [x-]", ["b-x", "-x-", "exx"], ["d-x"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_accepted_grammars_behave_in_llama_cpp_as_expected(native, name):
    text, accepted, rejected = EXAMPLES[name]
    grammar = from_gbnf(text)
    assert [text for text in accepted if not native.accepts(grammar, text)] == []
    assert [text for text in rejected if native.accepts(grammar, text)] == []


def random_grammar(random):
    """A text that is almost a grammar: most names refer to later rules, and most characters are valid."""
    names = ["root", "a", "b-1", "c"]

    def part(rule, depth):
        known = names if random.random() < 0.03 else names[rule + 1 :]
        text = random.choice(
            ['"x"', '"yz"', "[a-z]", "[^x]", ".", *known, *known, *(["("] * 3 if depth else ())]
        )
        text = f"({alternatives(rule, depth - 1)})" if text == "(" else text
        signs = ["*", "+", "?", "?", "{2}", "{0,3}", "{1,}", "{50}", "{2}{3}"]
        return text + (random.choice(signs) if random.random() < 0.2 else "")

    def alternatives(rule, depth):
        sequences = (range(random.randrange(4)) for _ in range(random.randint(1, 3)))
        return " | ".join(" ".join(part(rule, depth) for _ in sequence) or '""' for sequence in sequences)

    text = "\n".join(f"{name} ::= {alternatives(rule, 2)}" for rule, name in enumerate(names))
    if random.random() < 0.1:
        place = random.randrange(len(text))
        text = (
            text[:place]
            + random.choice(["", "(", ")", '"', "\n", "|", "[", "{", "\\", "é"])
            + text[place + 1 :]
        )
    return text


@pytest.mark.slow
def test_llama_cpp_compiles_every_accepted_grammar(tiny, tmp_path):
    """Without our checks llama.cpp loops on some grammars, overflows its stack or runs out of memory."""
    generator = random.Random(13)
    texts = [text for text, _ in HOSTILE.values() if "\ud800" not in text]
    texts += [text for text, _, _ in EXAMPLES.values()] + [random_grammar(generator) for _ in range(3000)]
    texts += ["root ::= " + '"a"{999} ' * 60, "root ::= " + "[a-z]? " * 500, chain(900, '{next} | "x"')]
    texts += [f'root ::= {"(" * 60}"a"{")?" * 60}', "root ::= " + " | ".join(f'"{n}"' for n in range(3000))]
    texts += [chain(300, '("x" {next})* "y"'), f'root ::= ("{"a" * 100}" | "b"){{500}}{{2}} "c"{{0,1000}}']
    path = tmp_path / "grammars.json"
    path.write_text(json.dumps(texts))
    script = Path(__file__).with_name("compile_grammars.py")
    done = subprocess.run([sys.executable, script, tiny, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = dict(zip(texts, json.loads(done.stdout), strict=True))
    assert [text for text, outcome in outcomes.items() if outcome == "not compiled"] == []
    assert sum(outcome == "compiled" for outcome in outcomes.values()) > 300
    assert [outcome for outcome in list(outcomes.values())[-7:] if outcome != "compiled"] == []
