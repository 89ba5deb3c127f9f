"""Hypothesis strategies for JSON schemas, and for values with schemas that describe them."""

import re
from datetime import date, datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Json = None | bool | float | str | list["Json"] | dict[str, "Json"]
Schema = bool | dict[str, Any]

# A grammar's strings have DEL only escaped, though JSON would allow it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=6)
# Without exponents: llguidance writes a listed 6.1e-05 as 6.1e-5, and takes no other spelling.
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 4)).map(lambda x: int(x) if x.is_integer() else x)
SCALARS: SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**15), 10**15), NUMBERS, TEXTS
)
VALUES: SearchStrategy[Json] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ANY: list[Schema] = [{}, True]
TYPES = ["null", "boolean", "string", "integer", "number", "object", "array"]
PATTERNS = [
    *("^$", "^a$", r"^[A-Z]{2}-\d+$", r'^[^a-z"]*x?$', r"^\+?[1-9]\d{1,4}$", r"^.{2,3}$"),
    *(r'^["\\/é😀]+$', r"^\S\w$"),
]
FORMATS: dict[str, SearchStrategy[str]] = {
    "date": st.dates(date(1000, 1, 1)).map(str),
    "time": st.times().map(lambda t: t.isoformat() + "Z"),
    "date-time": st.datetimes(datetime(1000, 1, 1)).map(lambda t: t.isoformat() + "+01:30"),
    "uuid": st.uuids().map(str),
}


def any_keywords() -> SearchStrategy[Schema]:
    """Schemas whose keywords may contradict each other, or be unknown to us."""
    leaves: SearchStrategy[Schema] = st.sampled_from(ANY) | st.sampled_from(TYPES).map(
        lambda name: {"type": name}
    )
    return st.recursive(leaves, _any_keywords, max_leaves=6)


def _any_keywords(inner: SearchStrategy[Schema]) -> SearchStrategy[Schema]:
    names, counts = st.sampled_from("abc"), st.integers(0, 5)
    numbers = st.integers(-100, 100).map(lambda x: x / 2)
    keywords: dict[str, SearchStrategy[Any]] = {
        "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, unique=True),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), numbers),
        "multipleOf": st.sampled_from([0.5, 1, 2, 3, 7.5, 20]),
        **dict.fromkeys(
            ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), counts
        ),
        "uniqueItems": st.booleans(),
        "pattern": st.sampled_from(["a", "^[b-d]+$", "^(x|yz)?$", "e{2,3}$", "^.$"]),
        "format": st.sampled_from(["date", "time", "ipv4", "ipv6", "email", "uri", "uuid"]),
        "propertyNames": st.sampled_from([{"enum": ["a", "b"]}, {"pattern": "^b"}]),
        **dict.fromkeys(("properties", "patternProperties"), st.dictionaries(names, inner, max_size=3)),
        "required": st.lists(names, unique=True),
        **dict.fromkeys(("items", "additionalProperties", "not", "contains", "if", "then"), inner),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), st.lists(inner, min_size=1, max_size=3)),
        "enum": st.lists(VALUES, min_size=1, max_size=4),
        "const": VALUES,
    }
    chosen = st.sets(st.sampled_from([*keywords]), min_size=1, max_size=4)
    return chosen.flatmap(lambda keys: st.fixed_dictionaries({key: keywords[key] for key in sorted(keys)}))


@st.composite
def described_values(draw: DrawFn) -> tuple[Json, Schema]:
    """A value that the grammar can produce, and a schema for which it is valid."""
    if draw(st.integers(0, 3)):
        value = draw(VALUES)
        return value, _schema_of(draw, value)
    if draw(st.booleans()):
        name = draw(st.sampled_from([*FORMATS]))
        return draw(FORMATS[name]), {"type": "string", "format": name}
    pattern, printable = draw(st.sampled_from(PATTERNS)), st.characters(exclude_categories=["Cc", "Cs"])
    text = draw(st.from_regex(re.compile(pattern[:-1] + r"\Z", re.ASCII), alphabet=printable))
    return text, {"type": "string", "pattern": pattern}


def _schema_of(draw: DrawFn, value: Json) -> Schema:
    match draw(st.sampled_from(["any", "const", "enum", "anyOf", *["type"] * 6])):
        case "any":
            return draw(st.sampled_from(ANY))
        case "const":
            return {"const": value}
        case "enum":
            return {"enum": draw(st.permutations([value, *draw(st.lists(VALUES, max_size=3))]))}
        case "anyOf":
            other = _schema_of(draw, draw(VALUES))
            return {"anyOf": draw(st.permutations([_schema_of(draw, value), other]))}
    return _typed_schema(draw, value)


def _typed_schema(draw: DrawFn, value: Json) -> Schema:
    below, above = draw(st.integers(0, 1200)), draw(st.integers(0, 1200))
    schema: dict[str, Any] = {"type": ["string", "null"], "maxLength": 2, "title": "t"}
    if isinstance(value, bool):
        schema = {"type": "boolean"}
    elif isinstance(value, int):
        schema = {"type": "integer", "minimum": value - below, "exclusiveMaximum": value + above + 1}
    elif isinstance(value, float):
        whole = round(value)
        schema = {"type": "number", "minimum": whole - 1 - below, "maximum": whole + 1 + above}
    elif isinstance(value, str):
        lengths = {"minLength": max(len(value) - below, 0), "maxLength": len(value) + above % 5}
        schema = {"type": "string", **lengths}
    elif isinstance(value, list):
        schemas, fixed = [_schema_of(draw, item) for item in value], draw(st.integers(0, len(value)))
        items = {"items": {"anyOf": schemas[fixed:]}} if schemas[fixed:] else {}
        lengths = {"minItems": max(len(value) - below, 0), "maxItems": len(value) + above % 5}
        schema = {"type": "array", "prefixItems": schemas[:fixed], **items, **lengths}
    elif isinstance(value, dict):
        properties = {name: _schema_of(draw, inner) for name, inner in value.items()}
        required = [name for name in properties if draw(st.booleans())]
        schema = {"type": "object", "properties": properties | {"other": True}, "required": required}
    return schema
