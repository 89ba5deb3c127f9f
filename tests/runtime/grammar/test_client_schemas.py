"""The schemas of clients are enforced: zod's, by openai-node and Vercel's AI SDK, and pydantic's."""

import json
import random
from pathlib import Path

import jsonschema_rs
import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import create_model
from thirteen.runtime.grammar import from_schema
from thirteen.runtime.violation import find_violation

from .pydantic_models import TYPES

ZOD = json.loads((Path(__file__).parents[2] / "data/zod_schemas.json").read_text())  # by zod_schemas.mjs
ENDLESS = {"ends_with", "includes"}  # random texts of these hardly ever end
# What is not enforced while sampling, and what is left out beside a format that llguidance does not know.
REPORTED, UNREPORTED = {"not", "uniqueItems"}, {"emoji"}


def check(texts, schema, name=""):
    """Sample texts: valid for the schema as the client sent it, or find_violation() reports them."""
    draft_7 = "additionalItems" in json.dumps(schema)
    draft = jsonschema_rs.Draft7Validator if draft_7 else jsonschema_rs.Draft202012Validator
    validator, grammar = draft(schema), from_schema(schema)
    sampled = [texts.sample(grammar, random.Random(seed)) for seed in range(5)]
    for text in filter(None, sampled):
        reported = find_violation(grammar, text)
        assert validator.is_valid(json.loads(text)) == (reported is None) or name in UNREPORTED
        assert reported is None or reported.split(": ")[1] in REPORTED
    return any(sampled)


@pytest.mark.parametrize("name", ZOD)
def test_types_of_zod_are_enforced(texts, name):
    for schema in ZOD[name]:
        assert check(texts, schema, name) or name in ENDLESS


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_types_of_pydantic_are_enforced(texts, type_):
    model = create_model("Answer", value=(type_, ...))
    for schema in (model.model_json_schema(), model.model_json_schema(mode="serialization")):
        assert check(texts, schema, str(type_))
    assert check(texts, to_strict_json_schema(model), str(type_))
