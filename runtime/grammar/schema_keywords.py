"""Keywords of a JSON schema for single types: their bounds, patterns and formats, checked and made exact."""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Never

from llguidance import LLMatcher

from ...errors import RequestError
from .compiler import LIMITS, summary

COUNT_MAX = 1000  # of items and characters
PATTERN_MAX = 1000  # characters
BOUND_MAX = 10**15  # of a number; a double is exact up to there

# llguidance parses decimals with an error in the last bit of a double, except those of few digits.
DIGITS_MAX = 15
PLACES_MAX = 22
INEXACT = f"a number has at most {DIGITS_MAX} digits and {PLACES_MAX} decimal places"

_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": (),
    "null": (),
}

_DAY = (
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_YEAR = "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
_DATE = f"([1-9][0-9]{{3}}-{_DAY}|{_LEAP_YEAR}-02-29)"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])"
# Formats that llguidance does not know exactly, as patterns, and those that it does.
_FORMAT_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
FORMATS = (*_FORMAT_PATTERNS, "uuid", "email", "ipv4", "ipv6")


def fail(path: str, message: str) -> Never:
    """Raise RequestError with the JSON pointer of a subschema."""
    raise RequestError(f"schema at {json.dumps(path)[1:-1][:160]}: {message}")


def excerpt(value: object) -> str:
    """Return the beginning of a value as JSON."""
    return json.dumps(value)[:40]


def is_exact(number: int | float) -> bool:
    """Whether llguidance reads and writes a number as it is."""
    if isinstance(number, int):
        return abs(number) <= 1 << 53
    _, digits, exponent = Decimal(repr(number)).as_tuple()
    return len(digits) <= DIGITS_MAX and int(exponent) >= -PLACES_MAX


def has_type(value: object, type_: str) -> bool:
    """Whether a value of json.loads() has a type of JSON Schema."""
    names: dict[type, tuple[str, ...]] = {
        **{dict: ("object",), list: ("array",), str: ("string",), bool: ("boolean",)},
        **{int: ("integer", "number"), float: ("number",)},
    }
    return type_ in names.get(type(value), ("null",))


def types_of(schema: dict[str, Any], path: str) -> list[str]:
    """The types that the schema names, else those that its keywords apply to, else all."""
    implied = [type_ for type_, keys in KEYWORDS.items() if not schema.keys().isdisjoint(keys)]
    given = schema.get("type", implied)
    types = [given] if isinstance(given, str) else given
    if not isinstance(types, list) or not all(isinstance(name, str) and name in KEYWORDS for name in types):
        fail(path, f'"type" must be one of {", ".join(KEYWORDS)}, not {excerpt(given)}')
    if "type" in schema and (not types or len({*types}) < len(types)):
        fail(path, '"type" must list distinct types')
    types = types or [*KEYWORDS]
    return [type_ for type_ in types if type_ != "integer" or "number" not in types]


def length_bounds(schema: dict[str, Any], low_key: str, high_key: str, path: str) -> tuple[int, int | None]:
    """Return the bounds of a length; None is no upper bound."""
    for key in (low_key, high_key):
        if key in schema and not (type(schema[key]) is int and 0 <= schema[key] <= COUNT_MAX):
            fail(path, f'"{key}" must be an integer from 0 to {COUNT_MAX}, not {excerpt(schema[key])}')
    low, high = schema.get(low_key, 0), schema.get(high_key)
    if high is not None and low > high:
        fail(path, f'"{low_key}" is {low}, but "{high_key}" is {high}')
    return low, high


def string_keywords(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the keywords of strings, with exact patterns for formats."""
    keys = [key for key in KEYWORDS["string"] if key in schema]
    for key in ("pattern", "format"):
        if key in keys and len(keys) > 1:
            other = next(other for other in keys if other != key)
            fail(path, f'"{key}" cannot be enforced with "{other}"')
    if "format" in schema:
        name = schema["format"]
        if name not in FORMATS:
            fail(path, f'"format" can only be enforced for {", ".join(FORMATS)}')
        return {"pattern": _FORMAT_PATTERNS[name]} if name in _FORMAT_PATTERNS else {"format": name}
    if "pattern" in schema:
        pattern = schema["pattern"]
        if not isinstance(pattern, str) or len(pattern) > PATTERN_MAX:
            fail(path, f'"pattern" cannot be enforced unless it has up to {PATTERN_MAX} characters')
        if message := _pattern_error(pattern):
            fail(path, f'"pattern" cannot be enforced: {message}')
        if _has_syntax_of_rust(pattern):
            fail(path, '"pattern" cannot be enforced: ECMA-262 reads a part of it otherwise')
        return {"pattern": _without_nul(pattern)}
    low, high = length_bounds(schema, "minLength", "maxLength", path)
    return {"minLength": low} if high is None else {"minLength": low, "maxLength": high}


@lru_cache(1000)  # a subschema is visited again for each $ref to it or to what contains it
def _pattern_error(pattern: str) -> str:
    return compile_error({"type": "string", "pattern": pattern})


def _has_syntax_of_rust(pattern: str) -> bool:
    """Whether llguidance reads set operations or escapes in it, which ECMA-262 reads otherwise."""
    escapes = set(re.findall(r"\\.", pattern, flags=re.DOTALL))
    sets = re.findall(r"\[\^?\]?([^\]]*)", re.sub(r"\\.", ".", pattern, flags=re.DOTALL))
    return not escapes.isdisjoint((r"\a", r"\A", r"\z")) or any(
        re.search(r"\[|&&|--|~~", one) for one in sets
    )


def _without_nul(pattern: str) -> str:
    """Add NUL to each negated set: from a set of all control characters, llguidance 1.9 excludes no quote."""
    return re.sub(
        r"\\.|\[\^(?!\])", lambda match: match[0] + r"\x00" * (match[0] == "[^"), pattern, flags=re.DOTALL
    )


def number_keywords(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the keywords of numbers; those of multipleOf are not checked here."""
    bounds = {key: schema[key] for key in _NUMBER if key in schema}
    for key, value in bounds.items():
        if type(value) not in {int, float} or abs(value) > BOUND_MAX:
            fail(path, f'"{key}" must be a number up to {BOUND_MAX}, not {excerpt(value)}')
        if not is_exact(value):
            fail(path, f'"{key}" cannot be enforced for {excerpt(value)}: {INEXACT}')
    _check_exclusive("exclusiveMinimum", ("maximum", "exclusiveMaximum"), bounds, path)
    _check_exclusive("exclusiveMaximum", ("minimum", "exclusiveMinimum"), bounds, path)
    return bounds


def _check_exclusive(key: str, others: Sequence[str], bounds: dict[str, float], path: str) -> None:
    """Refuse bounds between which llguidance 1.9 also allows the exclusive one, such as 0 < x <= 0.5."""
    for other in others:
        if key in bounds and bounds[key] % 1 == 0 and 0 < abs(bounds[key] - bounds.get(other, math.inf)) < 1:
            fail(path, f'"{key}" cannot be enforced less than 1 from "{other}"')


def compile_error(schema: dict[str, Any]) -> str:
    """Return llguidance's one-line error for a small schema; empty if there is none."""
    try:
        source = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    except ValueError as error:  # lone surrogates
        return summary(str(error))
    return summary(LLMatcher.validate_grammar(source, limits=LIMITS))
