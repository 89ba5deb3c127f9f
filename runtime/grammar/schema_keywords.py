"""Keywords of a JSON schema for single types: their bounds, patterns and formats, checked and made exact."""

import json
import math
import re
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import lru_cache
from typing import Any, Never

from llguidance import LLMatcher

from ...errors import RequestError
from .compiler import LIMITS, summary

PATTERN_MAX = 1000  # characters
# A larger maximum is taken for this one, which is stricter; a larger minimum is refused.
_COUNTS_MAX = {"Length": 10_000, "Items": 1000, "Properties": 1000}

# llguidance parses decimals with an error in the last bit of a double, except those of few digits.
DIGITS_MAX = 15
PLACES_MAX = 22
INEXACT = f"a number has at most {DIGITS_MAX} digits and {PLACES_MAX} decimal places"
# It has integers of 64 bits, whose bounds it reads as doubles: the last double above -2**63, and 2**63.
_LEAST, _GREATEST = -(1 << 63) + 1024, (1 << 63) - 1
_DECIMAL_MAX = 1 << 62
_UNBOUNDED = 1e116  # above all numbers of 16 digits with an exponent of two

_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
KEYWORDS = {
    "object": (
        *("properties", "required", "additionalProperties", "propertyNames", "patternProperties"),
        *("minProperties", "maxProperties"),
    ),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format", "contentEncoding"),
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
_CHAR = r"([\w.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"  # of a part of an address
_SCHEME = r"(https?|wss?|ftps?|ssh|git|s3|gs|postgres(ql)?|mysql|mongodb([+]srv)?|rediss?|amqps?)"
_ATOM, _LABEL = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}", "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
_BASE64 = "[A-Za-z0-9+/]"
# Formats that llguidance does not know exactly, as patterns, those that it does, and those of any text.
_FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    # A name or a host without an end would hold a greedy model.
    "uri": rf"^({_SCHEME}://(\w{{1,16}}(:\w{{1,16}})?@)?[A-Za-z0-9][A-Za-z0-9.-]{{0,63}}(:[0-9]{{1,4}})?(/{_CHAR}*)*"
    rf"|(mailto|urn|tel|data):{_CHAR}+)"
    rf"([?]({_CHAR}|[/?])*)?(#({_CHAR}|[/?])*)?$",
    "email": rf"^{_ATOM}([.]{_ATOM}){{0,2}}@{_LABEL}([.]{_LABEL}){{0,3}}$",
    "uuid": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "uuid4": "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    "base64": f"^({_BASE64}{{4}})*({_BASE64}{{2}}==|{_BASE64}{{3}}=)?$",
    "base64url": r"^([\w-]{4})*$",  # some want padding, and zod wants none
    "jwt": r"^eyJ[\w-]+[.]eyJ[\w-]+[.][\w-]+$",
}
_KNOWN = ("ipv4", "ipv6", "hostname", "duration")
_ANY_TEXT = ("binary", "password", "path", "file-path", "directory-path")
FORMATS = (*_FORMAT_PATTERNS, *_KNOWN, *_ANY_TEXT)
# Formats of JSON Schema that cannot be enforced; others say nothing beside a pattern, such as zod's "cuid".
_REFUSED_FORMATS = {
    *("idn-email", "idn-hostname", "iri", "iri-reference", "json-pointer", "regex"),
    *("relative-json-pointer", "uri-reference", "uri-template"),
}
_PERIOD = r"\d+H(\d+M)?(\d+([.,]\d+)?S)?|\d+M(\d+([.,]\d+)?S)?|\d+([.,]\d+)?S"
# Patterns with look-around, zod's of durations and pydantic's of decimals, and others that match the same.
_SAME = {
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": (
        rf"^P(\d+W|(\d+Y(\d+M)?(\d+D)?|\d+M(\d+D)?|\d+D)(T({_PERIOD}))?|T({_PERIOD}))$"
    ),
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$": r"^[+-]?(\d+\.?\d*|\.\d+)$",
}


class UnenforceableError(RequestError):
    """A keyword that cannot be enforced; without it, its schema may be.

    Attributes:
        schema: the subschema that has it.
        key: the keyword.
        pointer: JSON pointer of the keyword.
    """

    def __init__(self, schema: dict[str, Any], key: str, path: str, reason: str) -> None:
        """Refuse a keyword; `reason` goes on behind "cannot be enforced"."""
        super().__init__(
            f"schema at {json.dumps(path)[1:-1][:160]}: {excerpt(key)} cannot be enforced{reason}"
        )
        self.schema, self.key, self.pointer = schema, key, f"{path}/{key}"


def refuse(schema: dict[str, Any], key: str, path: str, reason: str = "") -> Never:
    """Raise UnenforceableError."""
    raise UnenforceableError(schema, key, path, reason)


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


def count_bounds(schema: dict[str, Any], of: str, path: str) -> tuple[int, int | None]:
    """Return the bounds of a count of Length, Items or Properties; None is no upper bound."""
    low_key, high_key, most = f"min{of}", f"max{of}", _COUNTS_MAX[of]
    for key in (low_key, high_key):
        if key in schema and not (type(schema[key]) is int and schema[key] >= 0):
            fail(path, f'"{key}" must be an integer from 0, not {excerpt(schema[key])}')
    low, high = schema.get(low_key, 0), schema.get(high_key)
    if low > most:
        refuse(schema, low_key, path, f" above {most}")
    if high is not None and low > high:
        fail(path, f'"{low_key}" is {low}, but "{high_key}" is {high}')
    return low, None if high is None else min(high, most)


def string_keywords(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the keywords of strings, with exact patterns for formats."""
    low, high = count_bounds(schema, "Length", path)
    normal: dict[str, Any] = {"minLength": low} if low else {}
    if high is not None:
        normal["maxLength"] = high
    patterns = pattern_parts(schema, "pattern", schema["pattern"], path) if "pattern" in schema else []
    for key in ("format", "contentEncoding"):
        name = schema.get(key, "")
        if not isinstance(name, str):
            fail(path, f'"{key}" must be a string, not {excerpt(name)}')
        if name in _FORMAT_PATTERNS:
            patterns.append(_FORMAT_PATTERNS[name])
        elif name in _KNOWN:
            normal["format"] = name
        elif key in schema and name not in _ANY_TEXT and (name in _REFUSED_FORMATS or not patterns):
            refuse(schema, key, path, f" unless it is one of {', '.join(FORMATS)}")
    if len(patterns) > 1:
        normal["allOf"] = [{"pattern": pattern} for pattern in patterns]
    elif patterns:
        normal["pattern"] = patterns[0]
    if len(normal) > 1 and (message := compile_error({"type": "string", **normal})):
        key = next(key for key in ("format", "pattern", "maxLength", "minLength") if key in schema)
        refuse(schema, key, path, f" with the others: {message}")
    return normal


def pattern_parts(schema: dict[str, Any], key: str, pattern: object, path: str) -> list[str]:
    """Return patterns that match, all of them together, what a pattern matches."""
    if not isinstance(pattern, str) or len(pattern) > PATTERN_MAX:
        refuse(schema, key, path, f" unless it has up to {PATTERN_MAX} characters")
    parts = _without_look_ahead(_SAME.get(pattern, pattern))
    for part in parts:
        if message := compile_error({"type": "string", "pattern": part}):
            refuse(schema, key, path, f": {message}")
        if _has_syntax_of_rust(part):
            refuse(schema, key, path, ": ECMA-262 reads a part of it otherwise")
    return [_without_nul(part) for part in parts]


def _without_look_ahead(pattern: str) -> list[str]:
    """Split a pattern: ^(?=a)b matches what both ^a and ^b match."""
    if not pattern.startswith("^(?="):
        return [pattern]
    depth, end, alternatives = 0, 0, False
    for match in re.finditer(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|]", pattern, flags=re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        end = end or (match.end() if not depth else 0)
        alternatives |= match[0] == "|" and not depth
    if alternatives:
        return [pattern]
    return [f"^(?:{pattern[4 : end - 1]})", *_without_look_ahead(f"^{pattern[end:]}")]


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


def number_keywords(schema: dict[str, Any], types: Sequence[str], path: str) -> dict[str, Any]:
    """Return the keywords of numbers, with exact bounds: those that llguidance cannot have are made stricter.

    `path` is the JSON pointer of the subschema, whose multipleOf is not checked here.
    """
    whole = "number" not in types
    bounds = {key: schema[key] for key in _NUMBER if key in schema}
    for key, value in bounds.items():
        if type(value) not in {int, float}:
            fail(path, f'"{key}" must be a number, not {excerpt(value)}')
    normal = {"multipleOf": bounds.pop("multipleOf")} if "multipleOf" in bounds else {}
    if normal and not is_exact(normal["multipleOf"]):
        refuse(schema, "multipleOf", path, f" for {excerpt(normal['multipleOf'])}: {INEXACT}")
    low = _inner_bound(bounds, "minimum", 1, whole=whole)
    high = _inner_bound(bounds, "maximum", -1, whole=whole)
    for bound, name in ((low, "inimum"), (high, "aximum")):
        if bound and bound[0] > (_GREATEST if whole else _DECIMAL_MAX // 100):
            refuse(schema, next(key for key in bounds if key.endswith(name)), path, f" for {excerpt(bounds)}")
    if low and high and not whole and 0 < (gap := -high[0] - low[0]) < 1:
        low, high = _within(low, gap), _within(high, gap)
    if whole and low and not high and low[0] > 10**DIGITS_MAX:  # llguidance overflows beyond 64 bits
        high = Decimal(-_GREATEST), False
    if whole and high and not low and high[0] > 10**DIGITS_MAX:
        low = Decimal(_LEAST), False
    for bound, name, sign in ((low, "minimum", 1), (high, "maximum", -1)):
        if bound:
            value = bound[0] * sign
            key = f"exclusive{name.title()}" if bound[1] else name
            normal[key] = int(value) if value % 1 == 0 else float(value)
    return normal


def _inner_bound(
    bounds: dict[str, int | float], name: str, sign: int, *, whole: bool
) -> tuple[Decimal, bool] | None:
    """Return an exact lower bound of the numbers times `sign`, and whether it is exclusive.

    The bound is as given or inside of it. None is no bound that a number of 16 digits could exceed.
    """
    given = [(Decimal(repr(bounds[key])) * sign, key != name) for key in bounds if key.endswith(name[1:])]
    if not given:
        return None
    value, exclusive = max(given)
    if whole:
        value = value.to_integral_value(ROUND_FLOOR if exclusive else ROUND_CEILING) + exclusive
        value = max(value, Decimal(_LEAST if sign == 1 else -_GREATEST))
        if abs(value) > 1 << 53 and value != -_GREATEST:
            double = float(value)
            value = Decimal(double if Decimal(double) >= value else math.nextafter(double, math.inf))
        return value, False
    if value < -_UNBOUNDED:
        return None
    rounded = _rounded(max(value, Decimal(-_DECIMAL_MAX)))
    return rounded, exclusive and rounded == value


def _rounded(value: Decimal) -> Decimal:
    """Round a number up to one that is_exact()."""
    if abs(value) <= 1 << 53 and value % 1 == 0:
        return value
    rounded = Context(prec=DIGITS_MAX, rounding=ROUND_CEILING).create_decimal(value)
    return rounded.quantize(Decimal(f"1e-{PLACES_MAX}"), ROUND_CEILING) if abs(value) < 1 else rounded


def _within(bound: tuple[Decimal, bool], gap: Decimal) -> tuple[Decimal, bool]:
    """Move an exclusive whole bound inside: llguidance 1.9 allows itself, less than 1 from the other."""
    value, exclusive = bound
    return (_rounded(value + gap / 10**6), False) if exclusive and value % 1 == 0 else bound


def compile_error(schema: dict[str, Any]) -> str:
    """Return llguidance's one-line error for a small schema; empty if there is none."""
    return _compile_error(json.dumps(schema))


@lru_cache(1000)  # a subschema is visited again for each $ref to it or to what contains it
def _compile_error(schema: str) -> str:
    try:
        source = LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:  # lone surrogates
        return summary(str(error))
    return summary(LLMatcher.validate_grammar(source, limits=LIMITS))
