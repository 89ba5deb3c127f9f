"""JSON schemas as llguidance takes them, with what it would reject left out, and open objects closed.

In its lenient mode it ignores unknown keywords and formats; violation() reports what does not hold then.
"""

import json
import re
from typing import Any

# At most one space, or a newline with indentation: small models write white space without end.
JSON_OPTIONS: Any = {"lenient": True, "whitespace_pattern": r"(?: |\n[ \t]{0,20})?"}
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_COMBINING = {"$ref", "anyOf", "oneOf"}
_ASKING = {"minProperties", "patternProperties"}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def enforceable(text: str) -> Any:
    """Parse a schema, and return one that llguidance accepts, and with which small models come to an end.

    Raises:
        ValueError: the text is not JSON.
    """
    combined = list[bool]()  # of objects that are closed, each would exclude the other's properties

    def noted(schema: dict[str, Any]) -> dict[str, Any]:
        combined.append("allOf" in schema or ("properties" in schema and bool(schema.keys() & _COMBINING)))
        return schema

    root = json.loads(text, object_hook=noted)
    closes = not any(combined)

    def adapted(schema: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in schema.items() if not _is_rejected(key, value)}
        if kept.get("type") != "object":  # properties may have the names of keywords
            return kept
        named = _with_names(kept, root)
        return _closed(named) if closes else named

    return json.loads(text, object_hook=adapted)


def _is_rejected(key: str, value: object) -> bool:
    """Whether it is a pattern with look-around, as zod's of durations, or a bound such as a float32's."""
    if key == "pattern":
        return isinstance(value, str) and _LOOK_AROUND.search(value) is not None
    return key in _BOUNDS and isinstance(value, int | float) and abs(value) > 1 << 53


def _with_names(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Say in other keywords what names a map has, as a dict of enums: llguidance ignores propertyNames."""
    names, value = schema.get("propertyNames", {}), schema.get("additionalProperties", True)
    if "$ref" in names:
        names = root.get("$defs", {}).get(names["$ref"].removeprefix("#/$defs/"), {})
    if "enum" in names and "properties" not in schema:
        return {**schema, "properties": dict.fromkeys(names["enum"], value), "additionalProperties": False}
    if "pattern" in names and "properties" not in schema:
        return {**schema, "patternProperties": {names["pattern"]: value}, "additionalProperties": False}
    return schema


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow only the listed properties, unless others are asked for: small models add more and more."""
    required = {*schema.get("required", ())}
    if "properties" not in schema or required - schema["properties"].keys() or schema.keys() & _ASKING:
        return schema
    return {"additionalProperties": False, **schema}
