"""Grammars are compiled or refused within limits; what a grammar of a schema allows is valid."""

import json
import random
import re
from contextlib import suppress
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.grammar import from_lark, from_schema

MAKERS = {"schema": from_schema, "grammar": from_lark}
# texts: kind and source of a grammar, accepted and rejected texts.
CASES = json.loads((Path(__file__).parents[2] / "data/schema_cases.json").read_text("utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.just(0.5) | st.text('ab"\\\n\x7f😀', max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=4,
)
TYPES = st.sampled_from(["null", "boolean", "string", "integer", "number", "object", "array"])


def schemas_of(inner):
    """Schemas whose keywords may contradict each other, or be unknown to llguidance."""
    names, numbers = st.sampled_from("abc"), st.integers(-9, 9).map(lambda number: number / 2)
    counts = "minLength maxLength minItems maxItems minProperties maxProperties"
    values = {
        "type": TYPES | st.lists(TYPES, min_size=1, unique=True),
        "minimum maximum exclusiveMinimum exclusiveMaximum": numbers,
        "multipleOf": st.sampled_from([0.1, 0.5, 1, 3, 7.5]),
        counts: st.integers(0, 4),
        "uniqueItems": st.booleans(),
        "pattern": st.sampled_from(["a", "^[b-d]+$", "^(x|yz)?$", "e{2,3}$", r"^[^\x00-\x1f]$", "^(?=a)"]),
        "format": st.sampled_from(["date", "time", "ipv4", "email", "uri", "uuid", "other"]),
        "propertyNames": st.sampled_from([{"enum": ["a", "b"]}, {"pattern": "^b"}, {"maxLength": 1}]),
        "properties patternProperties": st.dictionaries(names, inner, max_size=3),
        "required": st.lists(names, unique=True),
        "items additionalProperties not contains if then unevaluatedItems": inner,
        "anyOf oneOf allOf prefixItems": st.lists(inner, min_size=1, max_size=3),
        "enum": st.lists(VALUES, min_size=1, max_size=4),
        "const": VALUES,
    }
    keywords = {key: value for keys, value in values.items() for key in keys.split()}
    chosen = st.sets(st.sampled_from([*keywords]), min_size=1, max_size=4)
    return chosen.flatmap(lambda keys: st.fixed_dictionaries({key: keywords[key] for key in sorted(keys)}))


SCHEMAS = st.recursive(TYPES.map(lambda name: {"type": name}) | st.just({}), schemas_of, max_leaves=6)


def unrepeated(pairs):
    """Pass over texts that repeat a key: llguidance counts it twice for minProperties."""
    assume(len(dict(pairs)) == len(pairs))
    return dict(pairs)


@settings(max_examples=10 * settings.default.max_examples, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_what_a_grammar_allows_is_json_and_valid_or_reported(texts, schema, seed):
    try:
        grammar = from_schema(schema)
        text = texts.sample(grammar, random.Random(seed))
    except RequestError:
        assume(False)
    # Doubles round numbers of 16 digits, and between -1 and an excluded 0 llguidance allows -0.
    keywords = json.dumps(schema)
    inexact = r"[0-9]{16}|-0(?![.0-9])" if "exclusiveMaximum" in keywords else "[0-9]{16}"
    if text is not None and not re.search(inexact, text):
        value = json.loads(text, object_pairs_hook=unrepeated if "minProperties" in keywords else None)
        draft = jsonschema_rs.Draft202012Validator
        valid = [draft(schema, validate_formats=checked).is_valid(value) for checked in (True, False)]
        assert grammar.warning or any(valid), text


@pytest.mark.parametrize(("kind", "source", "accepted", "rejected"), CASES["texts"])
def test_accepted_and_rejected_texts(texts, kind, source, accepted, rejected):
    grammar = MAKERS[kind](source)
    assert [text for text in accepted if not texts.accepts(grammar, text)] == []
    assert [text for text in rejected if texts.accepts(grammar, text)] == []


@pytest.mark.parametrize(
    ("schema", "warning"),
    [
        ({"type": "integer", "multipleOf": 5}, None),
        ({"type": "array", "uniqueItems": True}, 'Unimplemented keys: ["uniqueItems"]'),
        ({"properties": {"a": {"not": {}, "contains": {}}}}, 'Unimplemented keys: ["contains", "not"]'),
        ({"type": "string", "format": "x"}, "Unknown format: x"),
        ({"items": {"pattern": "^(?=a)"}}, 'Unimplemented keys: ["pattern"]'),
    ],
)
def test_keywords_that_are_not_enforced_are_named(schema, warning):
    assert from_schema(schema).warning == warning


TOO_MUCH = {
    "schema": [{"a": {1}}, {"const": "a" * 70000}, "[" * 30000, '{"enum":' + "[" * 900 + "]" * 900 + "}"],
    "grammar": ['start: "a"' * 5000, "start: " + "(" * 8000 + '"a"' + ")" * 8000],
}
REFUSED = [(kind, one) for kind in MAKERS for one in CASES["refused"][kind] + TOO_MUCH[kind]]


@pytest.mark.parametrize(("kind", "source"), REFUSED)
def test_what_cannot_be_compiled_is_refused_on_one_line(kind, source):
    with pytest.raises(RequestError) as caught:
        MAKERS[kind](source)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 300 and message.startswith(kind)


def schema_chain(length, rule):
    """Definitions that refer to each other."""
    definitions = {str(number): rule({"$ref": f"#/d/{number + 1}"}) for number in range(length)}
    return json.dumps({"$ref": "#/d/0", "d": {**definitions, str(length): {}}}, separators=(",", ":"))


def rule_chain(length, rule, last):
    """Lark rules that refer to each other."""
    lines = (rule.format(this=f"a{number}", next=f"a{number + 1}") for number in range(length))
    return "\n".join(["start: a0", *lines, f"a{length}: {last}"])


HOSTILE = {
    "schema": [
        schema_chain(1700, lambda next_: {"items": next_}),
        '{"$ref": "#"}',
        '{"type": "array", "items": {"$ref": "#"}, "minItems": 1}',
        json.dumps({"properties": {f"p{number}": {"multipleOf": 997 - number} for number in range(200)}}),
        json.dumps({"anyOf": [{"pattern": f"(a|b)*{number:07b}(a|b){{9}}$"} for number in range(64)]}),
    ],
    "grammar": [
        rule_chain(900, "{this}: {next}", '"x"'),
        rule_chain(600, '{this}: {next} "x" | {next} "y"', '"z"'),
        rule_chain(300, "{this}: {next} & /.*A.*/", "/.*/").upper().replace("START", "start"),
        'start: a\na: "x" a "y" | "x" a "z" | "w"',
        'start: ((("a" b){1000}){1000}){1000}\nb: "c"',
        "start: /" + "a?" * 5000 + "/",
    ],
}


@pytest.mark.exhaustive
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", MAKERS)
def test_hostile_grammars_end_no_process(texts, kind):
    """Without a deep stack and limits the library ends the process, or computes for minutes."""
    for source in HOSTILE[kind]:
        with suppress(RequestError, AssertionError):  # llguidance's masks are inexact with negation
            texts.sample(MAKERS[kind](source), random.Random(13), max_bytes=100)
