"""The schemas that clients send are enforced: zod's, by openai-node and the Vercel AI SDK, and pydantic's."""

import json
import random
from pathlib import Path

import jsonschema_rs
import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import create_model
from thirteen.errors import RequestError
from thirteen.runtime.grammar.grammar import from_schema
from thirteen.runtime.llama.model import Model

from .pydantic_models import TYPES
from .texts import GrammarTexts

DATA = Path(__file__).parents[2] / "data"
ZOD = json.loads((DATA / "zod_schemas.json").read_text())  # by zod_schemas.mjs
SAMPLES = 5
# What strict requests refuse, and others ignore.
IGNORED = {
    "set": ["uniqueItems"],
    "frozenset": ["uniqueItems"],
    "IPv4Network": ["format"],
    "Json": ["contentMediaType", "contentSchema"],
}
# Random texts of these hardly ever end.
ENDLESS = {"ends_with", "includes"}


@pytest.fixture(scope="module")
def texts(tiny):
    with Model(tiny) as model:
        yield GrammarTexts(model)


def check(texts, schema, grammar):
    """Sample texts, which must be valid for the schema as the client sent it."""
    draft_7 = "additionalItems" in json.dumps(schema)
    draft = jsonschema_rs.Draft7Validator if draft_7 else jsonschema_rs.Draft202012Validator
    validator = draft(schema, validate_formats=True)
    sampled = [texts.sample(grammar, random.Random(seed)) for seed in range(SAMPLES)]
    for text in filter(None, sampled):
        validator.validate(json.loads(text))
    return any(sampled)


@pytest.mark.parametrize("name", ZOD)
def test_types_of_zod_are_enforced(texts, name):
    for schema in ZOD[name]:
        assert check(texts, schema, from_schema(schema)) or name in ENDLESS


@pytest.mark.parametrize("name", TYPES)
def test_types_of_pydantic_are_enforced_or_named(texts, name):
    model = create_model("Answer", value=(TYPES[name], ...))
    for schema in (
        model.model_json_schema(),
        model.model_json_schema(mode="serialization"),
        to_strict_json_schema(model),
    ):
        from_schema(schema, ignored := [])
        keys = [pointer.removeprefix("#/properties/value/") for pointer in ignored]
        if keys:
            assert keys == IGNORED[name]
            with pytest.raises(RequestError, match=f'at #/properties/value: "{keys[0]}" cannot be enforced'):
                from_schema(schema)
        else:
            assert check(texts, schema, from_schema(schema))


def test_what_is_not_strict_is_left_out_in_place():
    schema = {
        "properties": {
            "a": {"oneOf": [{"type": "integer", "not": {}}, {"type": "number"}]},
            "b": {"type": "string", "format": "iri"},
        },
        "if": {},
        "$defs": {"c": {"uniqueItems": True}},
        "additionalProperties": {"$ref": "#/$defs/c"},
    }
    sent = json.dumps(schema)
    grammar = from_schema(schema, ignored := [])
    names = "if properties/a/oneOf properties/a/oneOf/0/not properties/b/format $defs/c/uniqueItems"
    assert {*ignored} == {f"#/{name}" for name in names.split()} and len(ignored) == 5
    assert json.dumps(schema) == sent and grammar == from_schema(
        {
            "properties": {
                "a": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
                "b": {"type": "string"},
            },
            "additionalProperties": {"$ref": "#/$defs/c"},
            "$defs": {"c": {}},
        }
    )
    with pytest.raises(RequestError, match="no listed value"):  # malformed ones are refused all the same
        from_schema({"enum": []}, [])


def test_a_keyword_that_is_left_out_is_named_once():
    beside_a_union = {"anyOf": [{"type": "string"}], "format": "regex"}
    alternatives = {"oneOf": [{"type": "string"}, {"type": "integer"}]}  # the schema is read a second time
    from_schema({"properties": {"a": beside_a_union, "b": alternatives}}, ignored := [])
    assert ignored == ["#/properties/a/format"]
