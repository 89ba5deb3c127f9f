"""A schema is enforced or refused, never by half, and no grammar ends the process or keeps it for ever."""

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
from thirteen.runtime.grammar.grammar import Grammar, from_gbnf, from_schema
from thirteen.runtime.grammar.gbnf_writer import integers
from thirteen.runtime.llama.model import Model

from .grammar_walk import Native
from .json_schemas import SCHEMAS, VALUES, is_valid, valid_values


@pytest.fixture(scope="module")
def native(tiny):
    with Model(tiny) as model:
        yield Native(model)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def refusal(make, *arguments):
    with pytest.raises(RequestError) as caught:
        make(*arguments)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 300
    return said


@settings(max_examples=150, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_the_library_can_be_led_to_write_is_valid(native, schema, seed):
    text = native.walk(from_schema(schema), random.Random(seed))
    assume(text is not None)
    assert is_valid(json.loads(text), schema), text


@settings(max_examples=150, deadline=None)
@given(schema=SCHEMAS, data=st.data())
def test_valid_values_can_be_written(native, schema, data):
    value = data.draw(valid_values(schema))
    assert native.accepts(from_schema(schema), dumps(value))


@settings(max_examples=200, deadline=None)
@given(schema=SCHEMAS, value=VALUES)
def test_what_can_be_written_is_valid(native, schema, value):
    assert not native.accepts(from_schema(schema), dumps(value)) or is_valid(value, schema)


PIECES = [
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
SPACES = r"\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # those of ECMA-262
SIGNS = ["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}"]


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(SIGNS)), max_size=5),
    seed=st.integers(0, 2**32),
)
def test_whatever_is_written_matches_the_pattern(native, parts, seed):
    pattern = "".join(map("".join, parts))
    try:
        grammar = from_schema({"type": "string", "pattern": f"^{pattern}$"})
    except RequestError as error:
        assert "either of two parts" in str(error)
        return
    text = native.walk(grammar, random.Random(seed))
    assume(text is not None)
    as_in_python = pattern.replace(r"\S", f"[^{SPACES}]").replace(r"\s", SPACES)
    assert re.fullmatch(as_in_python, json.loads(text), re.ASCII), text


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(-1100, 1100), st.integers(-1100, 1100)).map(sorted))
def test_a_range_has_its_integers_and_no_others(bounds):
    expression = re.compile(integers(*bounds).replace('"', "").replace(" ", ""))
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
WRITTEN = {
    # schema, texts of the grammar, other texts
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
    "a tree": (
        TREE,
        ['{"name":"","inner":[{"name":"x","inner":[]}]}'],
        ['{"name":""}', '{"inner":[],"name":""}'],
    ),
    "kinds": ({"oneOf": KINDS}, ['{"kind":"a","of":{"kind":"c"}}'], ['{"kind":"d"}', '{"of":{"kind":"a"}}']),
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
    "nothing else": ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
    "a map": ({"additionalProperties": {"type": "null"}}, ["{}", '{"a":null,"b":null}'], ['{"a":1}', "null"]),
    "first items": (
        {"prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False, "minItems": 1},
        ["[null]", "[null,true]"],
        ["[]", "[true]", "[null,true,1]", "[null,null]"],
    ),
    "first and other items": (
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
    "given values": (
        {"enum": ["a", "ab", 'a"b', 1, 12, 1.5, True, None, {"a": [1, "\\"]}]},
        ['"a"', '"ab"', r'"a\"b"', "1", "12", "1.5", "true", "null", r'{"a":[1,"\\"]}'],
        ['"', '"b"', '"abb"', "11", "2", "false", r'{"a":[1,"\"]}', "1.0"],
    ),
    "given values of a type": (
        {"enum": ["a", 1, True, None], "type": ["integer", "null"]},
        ["1", "null"],
        ['"a"', "true"],
    ),
    "whole numbers": ({"enum": [1.0, -2e2]}, ["1", "-200"], ["1.0"]),
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
    "one of all": ({"allOf": [{"type": "null"}], "description": "d"}, ["null"], ["1"]),
    "types by bounds": ({"maxLength": 1, "minItems": 1}, ['"a"', "[1]"], ['"ab"', "[]", "1"]),
    "a pointer with escapes": (
        {"$ref": "#/$defs/a~1b%25/anyOf/0", "$defs": {"a/b%": {"anyOf": [{"type": "null"}]}}},
        ["null"],
        ["1"],
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_for_a_schema(native, name):
    schema, written, others = WRITTEN[name]
    for grammar in (from_schema(schema), from_schema(json.dumps(schema))):
        assert [text for text in written if not native.accepts(grammar, text)] == []
        assert [text for text in others if native.accepts(grammar, text)] == []


def test_a_mapping_need_not_be_a_dictionary(native):
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
    ({"type": "integer", "minimum": 0.5}, '"minimum" must be a whole number'),
    ({"type": "integer", "minimum": True}, '"minimum" must be a whole number'),
    ({"type": "integer", "maximum": 10**30}, '"maximum" must be a whole number up to'),
    ({"type": "integer", "minimum": 3, "exclusiveMaximum": 3}, "no integer from 3 to 2"),
    ({"type": "number", "minimum": 3, "maximum": 2}, "no number from 3 to 2"),
    ({"type": "string", "minLength": -1}, '"minLength" must be'),
    ({"type": "string", "maxLength": 1001}, "from 0 to 1000, not 1001"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, '"minLength" is 3, but "maxLength" is 2'),
    ({"type": "array", "minItems": "1"}, '"minItems" must be'),
    ({"type": "array", "prefixItems": [True], "items": False, "minItems": 2}, "from 2 to 1 items"),
    ({"type": "array", "items": [{}]}, "#/items: a schema that something fits"),
    ({"type": "array", "prefixItems": {}}, '"prefixItems" must be a list'),
    ({"type": "string", "format": "email"}, '"format" cannot be enforced but for date'),
    ({"type": "string", "format": "date", "minLength": 10}, '"format" cannot be enforced beside "minLength"'),
    ({"type": "string", "pattern": "^a$", "maxLength": 1}, '"pattern" cannot be enforced beside "maxLength"'),
    ({"type": "string", "pattern": "^a$", "format": "date"}, '"pattern" cannot be enforced beside "format"'),
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
        '"additionalProperties" cannot be enforced beside "properties"',
    ),
    (
        {"properties": {}, "additionalProperties": 0},
        '"additionalProperties" cannot be enforced beside "properties"',
    ),
    ({"additionalProperties": None}, "#/additionalProperties: a schema"),
    ({"properties": {"a/b": False}}, "schema at #/properties/a~1b: a schema that something fits is expected"),
    ({"properties": {"a\n\u2028": 1}}, r"#/properties/a\n\u2028: "),
    (False, "schema at #: a schema that something fits is expected, not false"),
    ({"anyOf": []}, '"anyOf" cannot be enforced unless'),
    ({"anyOf": [{}] * 200}, '"anyOf" cannot be enforced unless'),
    ({"anyOf": [{"not": {}}]}, '#/anyOf/0: "not"'),
    ({"anyOf": [True], "type": "null"}, '"type" cannot be enforced beside "anyOf"'),
    ({"allOf": [True, True]}, '"allOf" cannot be enforced'),
    ({"const": 1, "enum": [1]}, '"enum" cannot be enforced beside "const"'),
    ({"enum": [1], "minimum": 0}, '"minimum" cannot be enforced beside "enum"'),
    ({"enum": []}, "no value given"),
    ({"enum": 1}, '"enum" must be a list'),
    ({"enum": ["a", True], "type": "integer"}, "no value given is integer"),
    ({"type": "any"}, '"type" must be of object'),
    ({"type": []}, '"type" must name types'),
    ({"type": ["null", "null"]}, '"type" must name types'),
    ({"type": [["null"]]}, '"type" must be of'),
    ({"type": None}, '"type" must be of'),
    (
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        '"oneOf" cannot be enforced: something may be valid by both branch 0 and 1',
    ),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [2.0]}]}, '"oneOf" cannot be enforced'),
    ({"oneOf": [{"properties": {"a": {}}}, {"type": "string"}]}, '"oneOf" cannot be enforced'),
    ({"oneOf": [{"$ref": "#"}, {"type": "string"}]}, '"oneOf" cannot be enforced'),
    (
        {"oneOf": [{"type": "object", "properties": {name: {}}, "required": [name]} for name in "ab"]},
        '"oneOf" cannot be enforced',  # another may have both
    ),
    ({"$ref": "https://example.com/schema"}, '"$ref" is followed to # and #/'),
    ({"$ref": "other#/a"}, '"$ref" is followed'),
    ({"$ref": "#anchor"}, '"$ref" is followed'),
    ({"$ref": 5}, '"$ref" is followed'),
    ({"$ref": "#/$defs/none"}, '"$ref" leads nowhere'),
    ({"$ref": "#/anyOf/9", "$defs": {}}, '"$ref" leads nowhere'),
    ({"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": True}}, '"minimum" cannot be enforced beside "$ref"'),
    ({"$ref": "#"}, "can never end"),
    ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "branches of unions"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "can never end"),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "can never end"),
    (5, "not 5"),
    ({"const": float("nan")}, "not JSON"),
    ({"const": object()}, "not JSON"),
    ("5", "not 5"),
    ('{"type": "null"', "not JSON at line 1 column 16"),
    ('{"type":\n null,}', "not JSON at line 2 column"),
    ('{"const": NaN}', "NaN is no number"),
    ('{"const": 1e400}', "1e400 is no number"),
    (f'{{"const": {"1" * 5000}}}', "not JSON"),
    ('{"type": "null", "type": "string"}', "a key twice"),
    ('{"const": "\\ud800"}', "half of a surrogate pair"),
    ('{"\\ud800": 1}', r'"\ud800" cannot be enforced'),
    ("[" * 30000 + "]" * 30000, "not JSON"),
    (f'{{"const": "{"a" * 70000}"}}', "bytes are more than 65536"),
    ("", "not JSON at line 1 column 1"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_what_cannot_be_enforced_is_refused_by_its_name(schema, reason):
    assert reason in refusal(from_schema, schema)


def test_a_schema_that_holds_itself_is_refused():
    schema = {"type": "array"}
    schema["items"] = schema
    assert "not JSON" in refusal(from_schema, schema)


def nested(levels, inner, wrap):
    for _ in range(levels):
        inner = wrap(inner)
    return inner


def overlapping(levels):
    """Objects that only differ at their ends, in objects of that kind."""

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
    "doubling readings": (overlapping(30), "more than 64 branches"),
    "doubling readings in a circle": (
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
        "leads nowhere",
    ),
    "a long array of arrays": (
        nested(8, {}, lambda inner: {"type": "array", "items": inner, "minItems": 1000, "maxItems": 1000}),
        None,
    ),
    "many properties": ({"properties": {f"p{n}": {"maxLength": 9} for n in range(300)}}, None),
    "many values": ({"enum": [f"{n:x}" * 3 for n in range(3000)]}, None),
    "many branches": ({"anyOf": [{"const": n} for n in range(128)]}, None),
    "some readings": (overlapping(6), None),
    "lengths": ({"properties": {f"p{n}": {"type": "string", "maxLength": 1000} for n in range(50)}}, None),
    "values in one another": ({"enum": ["a" * n for n in range(300)]}, None),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_schema_is_read_or_refused_in_good_time(native, name):
    schema, reason = LARGE[name]
    began = time.perf_counter()
    if reason:
        assert reason in refusal(from_schema, schema)
    else:
        native.walk(from_schema(schema), random.Random(13), most=60)
    assert time.perf_counter() - began < 5


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
    "empty": ("", "there is no rule 'root'"),
    "comment only": ("# root", "there is no rule"),
    "no root": ('other ::= "a"', "there is no rule 'root'"),
    "undefined rule": ("root ::= nothing", "rule root holds nothing, which is no rule"),
    "rule twice": ('root ::= "a"\nroot ::= "b"', "line 2: rule root is there twice"),
    "NUL ends a C string": ('root ::= "a" | \0 "b"', "NUL"),
    "half a pair": ('root ::= "\ud800"', "half of a surrogate pair"),
    "escaped half a pair": (r'root ::= "\uD800"', "half of a surrogate pair"),
    "escaped NUL": (r'root ::= "\x00"', "NUL"),
    "no code point": (r'root ::= "\UFFFFFFFF"', "no code point"),
    "short escape": (r'root ::= "\x1"', "unknown escape"),
    "unknown escape": (r'root ::= "\d"', "unknown escape"),
    "empty set": ("root ::= []", "no character fits"),
    "set of all but none": ("root ::= [^]", "no character fits"),
    "set of all": (r"root ::= [^\x00-\uD7FF\uE000-\U0010FFFF]", "no character fits"),
    "set of NUL": (r"root ::= [\x00]", "no character fits"),
    "set of half pairs": (r"root ::= [\uD800-\uDFFF]", "no character fits"),
    "set backwards": ("root ::= [z-a]", "ends before it begins"),
    "unfinished literal": ('root ::= "a', "is expected"),
    "unfinished set": ("root ::= [a", "is expected"),
    "unfinished bracket": ('root ::= ("a"', "is expected"),
    "bracket too many": ('root ::= "a")', "is expected"),
    "underscore": ('root ::= a_b\na_b ::= "c"', "is expected"),
    "alternative on a line of its own": ('root ::= "a"\n | "b"', "name is expected"),
    "token": ("root ::= <[1]>", "is expected"),
    "token by name": ("root ::= <|im_end|>", "is expected"),
    "all but a token": ("root ::= !<[1]>", "is expected"),
    "sign alone": ("root ::= *", "repeats nothing"),
    "sign after nothing": ('root ::= ""*', "repeats nothing"),
    "repeated repetition": ('root ::= "a"**', "may be empty"),
    "repeated empty rule": ('root ::= b*\nb ::= "a"?', "repeats what may be empty"),
    "repeated empty bracket": ('root ::= ("a"? "b"*)+', "repeats what may be empty"),
    "times backwards": ('root ::= "a"{5,2}', "m <= n"),
    "no times": ('root ::= "a"{0}', "m <= n"),
    "a million times": ('root ::= "a"{1,1000000}', "m <= n"),
    "a huge number of times": (f'root ::= "a"{{{"9" * 5000}}}', "m <= n"),
    "times of times": ('root ::= "a"{40}{40}{40}', "multiplies"),
    "times of brackets": ('root ::= (("a"{0,60}){0,30}){0,60}', "multiplies"),
    "times of a long literal": (f'root ::= "{"a" * 5000}"{{1000}}', "elements"),
    "times of many rules": (
        "\n".join(f'r{n} ::= "aaaa"{{1000}}' for n in range(100)) + "\nroot ::= r1",
        "elements",
    ),
    "huge set many times": (f"root ::= [{'ab' * 1000}]{{1000}}", "elements"),
    "too long": ("root ::= " + '"a" ' * 20000, "80009 bytes"),
    "too many rules": ("\n".join(f'r{n}::=""' for n in range(5000)) + '\nroot::=""', "more than 4096 rules"),
    "deep brackets": ("root ::= " + "(" * 30000 + '"a"' + ")" * 30000, "64 deep"),
    "endless": ("root ::= root", "can never end"),
    "endless behind a text": ('root ::= "a" root', "can never end"),
    "endless aside": ('root ::= "a" | "b" other\nother ::= "c" other', "rule other can never end"),
    "left recursion": ('root ::= root "a" | "b"', "begins with itself"),
    "left recursion by another": ('root ::= a "x"\na ::= b\nb ::= "y" | a "z"', "begins with itself"),
    "left recursion behind an empty rule": ('root ::= b root "z" | "y"\nb ::= "x"?', "begins with itself"),
    "left recursion behind empty rules": (
        'root ::= b c root "z" | "y"\nb ::= c c\nc ::= "x" | ',
        "begins with itself",
    ),
    "left recursion in brackets": ('root ::= ("x"* (root "z")) | "y"', "begins with itself"),
    "left recursion repeated": ('root ::= (root "z")* "y"', "begins with itself"),
    "deep beginnings": (chain(3000, "{next}"), "rules deep"),
    "doubling beginnings": (chain(60, '{next} "x" | {next} "y"'), "ways"),
    "doubling beginnings alike": (chain(60, "{next} | {next}"), "ways"),
    "doubling empty rules": (chain(60, "{next} {next}", '"z"?'), "ways"),
    "many ways on": ('root ::= "x" ' + "a " * 200 + '\na ::= "x"' + ' | "x"' * 80 + " | ", "go on"),
    "many parts left out": ("root ::= " + "[a-z]? " * 900, "go on"),
    "long search": (
        "\n".join(["root ::= a" + " | a" * 50, "a ::= b" + ' "x" | b' * 20, f'b ::= "{"x" * 50000}"']),
        "steps",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_library_cannot_take_or_honour_is_refused_at_once(name):
    text, reason = HOSTILE[name]
    began = time.perf_counter()
    assert reason in refusal(from_gbnf, text)
    assert time.perf_counter() - began < 5


def test_a_root_of_another_name(native):
    assert native.accepts(Grammar('answer ::= "yes" | "no"', "answer"), "no")
    assert "'root'" in refusal(Grammar, 'answer ::= "yes"')


def test_only_texts_are_grammars():
    assert "not bytes" in refusal(from_gbnf, b'root ::= "a"')


EXAMPLES = {
    # After the grammars that come with llama.cpp.
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
    "over lines": (
        'root ::= ("a" |\n  "b"\n  | [\\]\\-"^] )\r\n\r\n# end',
        ["a", "b", "]", "-", '"', "^"],
        ["c", "ab", ""],
    ),
    "times": ('root ::= "ab"{2} "c"{0,2} "d"{1,} .?', ["ababd", "ababccddé"], ["abd", "ababcccd"]),
    "times of times": ('root ::= "a"{2}{3}+', ["a" * 6, "a" * 12], ["a" * 5, "a" * 8]),
    "empty": ('root ::= ""', [""], ["a"]),
    "nested": ('root ::= "(" root ")" | ', ["", "(())"], ["(()", ")"]),
    "as a range": ("root ::= [a-c-e] [-x] [x-]", ["b-x", "-x-", "exx"], ["d-x"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_grammar_says_here_what_it_says_to_the_library(native, name):
    text, accepted, refused = EXAMPLES[name]
    grammar = from_gbnf(text)
    assert [text for text in accepted if not native.accepts(grammar, text)] == []
    assert [text for text in refused if native.accepts(grammar, text)] == []


def random_grammar(random):
    """A text that is nearly a grammar: most names are those of later rules, and most characters are right."""
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


def test_the_library_takes_every_grammar_that_is_let_through(tiny, tmp_path):
    """It would loop on some, overflow its stack, or run out of memory."""
    generator = random.Random(13)
    texts = [text for text, _ in HOSTILE.values() if "\ud800" not in text]
    texts += [text for text, _, _ in EXAMPLES.values()] + [random_grammar(generator) for _ in range(3000)]
    texts += ["root ::= " + '"a"{999} ' * 60, "root ::= " + "[a-z]? " * 500, chain(900, '{next} | "x"')]
    texts += [f'root ::= {"(" * 60}"a"{")?" * 60}', "root ::= " + " | ".join(f'"{n}"' for n in range(3000))]
    texts += [chain(300, '("x" {next})* "y"'), f'root ::= ("{"a" * 100}" | "b"){{500}}{{2}} "c"{{0,1000}}']
    path = tmp_path / "grammars.json"
    path.write_text(json.dumps(texts))
    script = Path(__file__).with_name("compile_each.py")
    done = subprocess.run([sys.executable, script, tiny, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(zip(texts, json.loads(done.stdout), strict=True))
    assert [text for text, how in said.items() if how == "not taken"] == []
    assert sum(how == "taken" for how in said.values()) > 300
    assert [how for how in list(said.values())[-7:] if how != "taken"] == []
