"""The schemas of clients are enforced: zod's, by openai-node and Vercel's AI SDK, and pydantic's."""

import json
import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import annotated_types
import jsonschema_rs
import pydantic as p
import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, ConfigDict, Field, conint, constr, create_model
from thirteen.runtime.grammar import from_schema
from typing_extensions import TypedDict

Color = Enum("Color", {"RED": "red", "BLUE": "blue"})
Level = IntEnum("Level", ["LOW", "HIGH"])
Point = NamedTuple("Point", [("x", int), ("y", int)])  # noqa: UP014
Movie = TypedDict("Movie", {"title": str, "year": int}, total=False)  # noqa: UP013


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


Cat = create_model("Cat", kind=(Literal["cat"], ...), lives=(int, ...))
Dog = create_model("Dog", kind=(Literal["dog"], ...), name=(str, ...))


class Node(BaseModel):
    name: str
    children: list["Node"] = []


SPREAD = 3.4028234663852886e38
TYPES: list[Any] = [
    *(None, bytes, Any, int | None, Color, Level, Literal["a", 1, True, None]),
    *(constr(pattern="^[a-z]+$", max_length=8), constr(min_length=2, max_length=5000), conint(ge=1, le=100)),
    *(conint(ge=-(2**63), le=2**63 - 1), conint(ge=0, lt=2**64), Annotated[int, Field(multiple_of=5)]),
    *(Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(ge=-SPREAD, le=SPREAD)]),
    *(Annotated[float, Field(ge=0.00011874404507367229)], Annotated[Decimal, Field(max_digits=5)]),
    *(p.Json[list[int]], p.Base64Bytes, date, datetime, timedelta, UUID, p.HttpUrl, IPv4Network, Path),
    *(p.SecretStr, p.conlist(str, min_length=1, max_length=3), frozenset[Color], Point, Movie, Open, Node),
    *(dict[UUID, int], dict[Color, int], dict[Annotated[str, Field(pattern="^x-")], str]),
    *(
        Annotated[dict[str, int], annotated_types.Len(1, 3)],
        Annotated[Cat | Dog, Field(discriminator="kind")],
    ),
]

ZOD = json.loads((Path(__file__).parents[2] / "data/zod_schemas.json").read_text())  # by zod_schemas.mjs
ENDLESS = {"ends_with", "includes"}  # random texts of these hardly ever end


def check(texts, schema):
    """Sample texts: valid for the schema as the client sent it, or it has a keyword that is not enforced."""
    draft_7 = "additionalItems" in json.dumps(schema)
    draft = jsonschema_rs.Draft7Validator if draft_7 else jsonschema_rs.Draft202012Validator
    validator, grammar = draft(schema), from_schema(schema)
    sampled = [texts.sample(grammar, random.Random(seed)) for seed in range(5)]
    for text in filter(None, sampled):
        assert validator.is_valid(json.loads(text)) or grammar.warning
    return any(sampled)


@pytest.mark.parametrize("name", ZOD)
def test_types_of_zod_are_enforced(texts, name):
    for schema in ZOD[name]:
        assert check(texts, schema) or name in ENDLESS


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_types_of_pydantic_are_enforced(texts, type_):
    model = create_model("Answer", value=(type_, ...))
    for schema in (model.model_json_schema(), model.model_json_schema(mode="serialization")):
        assert check(texts, schema)
    assert check(texts, to_strict_json_schema(model))
