"""A JSON schema as GBNF. A schema with something that cannot be enforced is refused, never followed in part.

Every text of the grammar is valid by the schema, but not every valid text is of the grammar:

- Properties stand in the schema's order; an object that has `properties` has no others.
- Where JSON may have white space there is a space at most, or a newline and up to 20 spaces or tabs.
- Numbers without bounds have up to 18 digits, 20 after the point and two in the exponent.
- Keywords of one type imply it. What `enum` and `const` give has no white space.
- Years are from 1000 on.
"""

import json
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Never
from urllib.parse import unquote

from ...errors import RequestError
from .branches import exclude, most_readings, part, written
from .gbnf import REPEATS_MAX
from .pattern import pattern_gbnf
from .terms import BOUND_MAX, choice, integers, literal, numbers, times

NESTING_MAX = 64  # keywords and names on the way to a part of the schema
BRANCHES_MAX = 128
READINGS_MAX = 64  # ways to understand the same text, which the library follows all at once
INTEGER_MAX = 10**18 - 1  # where no bound is given

ANNOTATIONS = {
    *("title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"),
    *("deprecated", "readOnly", "writeOnly", "discriminator"),
}
KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "null": (),
}
_COMMON = r"""
space ::= (" " | "\n" [ \t]{0,20})?
value ::= object | array | string | number | boolean | null
object ::= "{" space (member ("," space member)* space)? "}"
member ::= string ":" space value
array ::= "[" space (value ("," space value)* space)? "]"
string ::= "\"" char* "\""
char ::= [ !#-\[\]-\uD7FF\uE000-\U0010FFFF] | "\\" (["\\/bfnrt] | "u" unit)
unit ::= ([0-9a-cA-CefEF] hex | [dD] [0-7]) hex hex | [dD] [89abAB] hex hex "\\u" [dD] [c-fC-F] hex hex
hex ::= [0-9a-fA-F]
number ::= "-"? unsigned
unsigned ::= ("0" | [1-9] [0-9]{0,17}) fraction? ([eE] [-+]? [0-9]{1,2})?
fraction ::= "." [0-9]{1,20}
integer ::= "0" | "-"? [1-9] [0-9]{0,17}
boolean ::= "true" | "false"
null ::= "null"
date ::= [1-9] [0-9]{3} "-" day | leap "-02-29"
day ::= ("0" [13578] | "1" [02]) "-" (to-29 | "3" [01]) | ("0" [469] | "11") "-" (to-29 | "30") | "02-" to-28
to-28 ::= "0" [1-9] | "1" [0-9] | "2" [0-8]
to-29 ::= "0" [1-9] | [12] [0-9]
leap ::= [1-9] [0-9] ("0" [48] | [2468] [048] | [13579] [26]) | ([2468] [048] | [13579] [26]) "00"
time ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? zone
zone ::= "Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]
date-time ::= date "T" time
uuid ::= hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}
"""
_FORMATS = ("date", "time", "date-time", "uuid")


def to_gbnf(schema: object) -> str:
    """The grammar of a schema.

    Args:
        schema: what json.loads() gives, with whole numbers as int.

    Raises:
        RequestError: the schema is wrong, or says what cannot be enforced; with a JSON pointer to the place.
    """
    return _Writer(schema).text()


def _fail(at: str, message: str) -> Never:
    raise RequestError(f"schema at {json.dumps(at)[1:-1][:160]}: {message}")


def _shown(value: object) -> str:
    return json.dumps(value)[:40]


class _Writer:
    """Writes the rules of a schema and of those that it refers to."""

    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}  # of rules, by text and keyword
        self._parts: dict[str, Sequence[str]] = {}  # the rules of the schemas in one, by its rule
        self._referred: dict[str, str] = {}  # names of rules by pointer
        self._pending: list[str] = []  # pointers
        self._unions: list[tuple[str, str, str, list[Any]]] = []

    def text(self) -> str:
        """The whole grammar."""
        root = self._value(self._schema, "#")
        while self._pending:
            pointer = self._pending.pop()
            name, target = self._referred[pointer], self._value(self._target(pointer, pointer), pointer)
            self._rules[name], self._parts[name] = target, [target]
        self._check_unions()
        rules = "".join(f"{name} ::= {text}\n" for name, text in self._rules.items())
        return f"root ::= {root}\n{rules}{_COMMON}"

    def _name(self, at: str) -> str:
        """A new name, after the place in the schema."""
        slug = re.sub("[^A-Za-z0-9]+", "-", at.rsplit("/", 1)[-1])[:24].strip("-")
        return f"{slug or 'whole'}-{len(self._rules)}"

    def _rule(self, text: str, at: str, parts: Sequence[str] = (), keyword: str = "") -> str:
        """The name of the rule with this text."""
        name = self._names.setdefault((text, keyword), self._name(at))
        self._rules[name], self._parts[name] = text, parts
        return name

    def _value(self, schema: object, at: str) -> str:
        """The name of the rule of a schema."""
        if at.count("/") > NESTING_MAX:
            _fail(at[:80], f"it is more than {NESTING_MAX} keywords and names deep")
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            _fail(at, f"a schema that something fits is expected, not {_shown(schema)}")
        keys = schema.keys() - ANNOTATIONS
        if unknown := sorted(keys - _ENFORCED) or ["$id"] * ("$id" in schema and at != "#"):
            _fail(at, f"{_shown(unknown[0])} cannot be enforced")
        for key, write in _WHOLE.items():
            if key in keys:
                if others := sorted(keys - {key} - ({"type"} if key in ("enum", "const") else set())):
                    _fail(at, f'"{others[0]}" cannot be enforced beside "{key}"')
                return write(self, schema, at)
        return self._typed(schema, keys, at) if keys else "value"

    def _typed(self, schema: dict[str, Any], keys: set[str], at: str) -> str:
        types = _types(schema, at)
        for key in sorted(keys - {"type"}):
            if not any(key in KEYWORDS[type_] for type_ in types):
                _fail(at, f'"{key}" cannot be enforced for {" or ".join(types)}')
        names = [_TYPED[type_](self, schema, at) for type_ in types]
        return names[0] if len(names) == 1 else self._rule(" | ".join(names), at, names)

    def _reference(self, schema: dict[str, Any], at: str) -> str:
        pointer = schema["$ref"]
        if pointer == "#" and isinstance(self._schema, bool):
            return "value"
        self._target(pointer, at)
        if pointer not in self._referred:
            self._referred[pointer] = name = self._name(pointer)
            self._rules[name] = ""  # its text comes when the schema has been read
            self._pending.append(pointer)
        return self._referred[pointer]

    def _target(self, pointer: object, at: str) -> Any:
        """What a JSON pointer within the schema leads to."""
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            _fail(at, f'"$ref" is followed to # and #/… only, not to {_shown(pointer)}')
        found: Any = self._schema
        for step in pointer.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and re.fullmatch("[0-9]{1,4}", key) and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                _fail(at, f'"$ref" leads nowhere: {_shown(pointer)}')
        return found

    def _follow(self, schema: object) -> object:
        """The schema itself, or what it refers to; if that does not end, one that stands for any value."""
        for _ in range(NESTING_MAX):
            if not (isinstance(schema, dict) and "$ref" in schema):
                return schema
            schema = self._target(schema["$ref"], "#")
        return True

    def _union(self, schema: dict[str, Any], at: str) -> str:
        key = next(key for key in ("anyOf", "oneOf", "allOf") if key in schema)
        branches = schema[key]
        most = 1 if key == "allOf" else BRANCHES_MAX
        if not isinstance(branches, list) or not 1 <= len(branches) <= most:
            _fail(at, f'"{key}" cannot be enforced unless it is a list of 1 to {most} schemas')
        places = [f"{at}/{key}/{index}" for index in range(len(branches))]
        names = [self._value(branch, place) for branch, place in zip(branches, places, strict=True)]
        name = self._rule(" | ".join(names), at, names, key)
        self._unions.append((name, at, key, branches))
        return name

    def _check_unions(self) -> None:
        """See that branches of oneOf exclude each other, and bound how many of any are followed at once."""
        together = set()
        for name, at, key, branches in self._unions:
            for (i, one), (j, other) in combinations(enumerate(branches), 2):
                if key == "oneOf" and not exclude(one, other, self._follow):
                    _fail(
                        at, f'"oneOf" cannot be enforced: something may be valid by both branch {i} and {j}'
                    )
                if not part(one, other, self._follow):
                    together.add(name)
        if most_readings(self._parts, together, READINGS_MAX) > READINGS_MAX:
            _fail("#", f"the same text could be of more than {READINGS_MAX} branches of unions in unions")

    def _enum(self, schema: dict[str, Any], at: str) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list):
            _fail(at, '"enum" must be a list')
        types = _types(schema, at)
        texts = dict.fromkeys(written(value) for value in values if any(_is(value, type_) for type_ in types))
        if not texts:
            _fail(at, f"no value given is {' or '.join(types)}")
        return self._rule(choice([*texts]), at)

    def _object(self, schema: dict[str, Any], at: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", "properties" not in schema)
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            _fail(at, '"required" must be a list of names')
        if not isinstance(properties, dict):
            _fail(at, '"properties" must be an object')
        if unknown := [name for name in required if name not in properties]:
            _fail(at, f'"required" cannot be enforced for {_shown(unknown[0])}, which is not in "properties"')
        if "properties" not in schema:
            return self._map(others, at)
        if others is not False:
            _fail(at, '"additionalProperties" cannot be enforced beside "properties" unless it is false')
        places = [f"{at}/properties/{name.replace('~', '~0').replace('/', '~1')}" for name in properties]
        values = [self._value(value, place) for value, place in zip(properties.values(), places, strict=True)]
        members = [
            (self._rule(f'{literal(written(name))} ":" space {value}', place), name in required)
            for name, value, place in zip(properties, values, places, strict=True)
        ]
        return self._rule(self._members(members, at), at, values)

    def _members(self, members: list[tuple[str, bool]], at: str) -> str:
        """An object of members in this order, each with whether it must be there."""
        first = next((index for index, (_, needed) in enumerate(members) if needed), len(members) - 1)
        following = [f'"," space {name}' if needed else f'("," space {name})?' for name, needed in members]
        rest = " ".join(following[first + 1 :])
        begins = [f"{name} {rest}" for name, _ in members[first : first + 1]]
        for index in reversed(range(first)):
            rest = self._rule(f"{following[index + 1]} {rest}", f"{at}-rest")
            begins.append(f"{members[index][0]} {rest}")
        optional = "" if any(needed for _, needed in members) else "?"
        inside = f"(({' | '.join(begins[::-1])}) space){optional}" if begins else ""
        return f'"{{" space {inside} "}}"'

    def _map(self, others: object, at: str) -> str:
        """An object with any names."""
        if others is False:
            return self._rule('"{" space "}"', at)
        value = self._value(others, f"{at}/additionalProperties")
        member = self._rule(f'string ":" space {value}', at)
        return self._rule(f'"{{" space ({member} ("," space {member})* space)? "}}"', at, [value])

    def _array(self, schema: dict[str, Any], at: str) -> str:
        least, most = _range(schema, "minItems", "maxItems", at)
        items, prefix = schema.get("items", True), schema.get("prefixItems", [])
        if not isinstance(prefix, list):
            _fail(at, '"prefixItems" must be a list')
        names = [self._value(item, f"{at}/prefixItems/{index}") for index, item in enumerate(prefix)]
        if items is False:
            most = len(names) if most is None else min(most, len(names))
        if most is not None and least > most:
            _fail(at, f"there are from {least} to {most} items")
        item = None if items is False else self._value(items, f"{at}/items")
        return self._rule(self._items(names, item, least, most), at, [*names, *([item] if item else [])])

    def _items(self, names: list[str], item: str | None, least: int, most: int | None) -> str:
        """An array of some first items, and of others that are alike if there are any."""
        names = names[:most] if names or item is None else [item][:most]
        inside = ""
        if item is not None and most != len(names):
            more = self._rule(f'"," space {item}', "#/more")
            left = None if most is None else most - len(names)
            inside = times(more, max(least - len(names), 0), left)
        for index in reversed(range(len(names))):
            inside = f'"," space {names[index]} {inside}' if index else f"{names[index]} {inside} space"
            inside = f"({inside})?" if index >= least else inside
        return f'"[" space {inside} "]"'

    def _string(self, schema: dict[str, Any], at: str) -> str:
        keys = [key for key in KEYWORDS["string"] if key in schema]
        if alone := [key for key in ("pattern", "format") if key in keys and len(keys) > 1]:
            _fail(
                at, f'"{alone[0]}" cannot be enforced beside "{next(key for key in keys if key != alone[0])}"'
            )
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                _fail(at, f'"format" cannot be enforced but for {", ".join(_FORMATS)}')
            return self._rule(rf'"\"" {schema["format"]} "\""', at)
        if "pattern" in schema:
            return self._rule(rf'"\"" {_pattern(schema["pattern"], at)} "\""', at)
        least, most = _range(schema, "minLength", "maxLength", at)
        return self._rule(rf'"\"" {times("char", least, most)} "\""', at) if keys else "string"

    def _number(self, schema: dict[str, Any], at: str) -> str:
        low, high = _bound(schema, "minimum", at), _bound(schema, "maximum", at)
        if (low, high) == (None, None):
            return "number"
        if low is not None and high is not None and low > high:
            _fail(at, f"there is no number from {low} to {high}")
        return self._rule(numbers(low, high), at)

    def _integer(self, schema: dict[str, Any], at: str) -> str:
        above, below = _bound(schema, "exclusiveMinimum", at), _bound(schema, "exclusiveMaximum", at)
        lows = [_bound(schema, "minimum", at), None if above is None else above + 1]
        highs = [_bound(schema, "maximum", at), None if below is None else below - 1]
        low = max((bound for bound in lows if bound is not None), default=None)
        high = min((bound for bound in highs if bound is not None), default=None)
        if (low, high) == (None, None):
            return "integer"
        least, most = -INTEGER_MAX if low is None else low, INTEGER_MAX if high is None else high
        if least > most:
            _fail(at, f"there is no integer from {least} to {most}")
        return self._rule(integers(least, most), at)


_WHOLE = {
    "$ref": _Writer._reference,
    "anyOf": _Writer._union,
    "oneOf": _Writer._union,
    "allOf": _Writer._union,
    "const": _Writer._enum,
    "enum": _Writer._enum,
}
_TYPED = {
    "object": _Writer._object,
    "array": _Writer._array,
    "string": _Writer._string,
    "number": _Writer._number,
    "integer": _Writer._integer,
    "boolean": lambda *_: "boolean",
    "null": lambda *_: "null",
}
_ENFORCED = {"type", *_WHOLE, *(key for keys in KEYWORDS.values() for key in keys)}
_CLASSES = {
    "object": dict,
    "array": list,
    "string": str,
    "number": int | float,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def _is(value: object, type_: str) -> bool:
    return isinstance(value, _CLASSES[type_]) and (type_ == "boolean" or not isinstance(value, bool))


def _types(schema: dict[str, Any], at: str) -> list[str]:
    """The types that a schema names, or else those that its keywords are for, or else all."""
    given = schema.get(
        "type", [type_ for type_, keys in KEYWORDS.items() if not schema.keys().isdisjoint(keys)]
    )
    types = [given] if isinstance(given, str) else given
    if not isinstance(types, list) or not all(
        isinstance(type_, str) and type_ in KEYWORDS for type_ in types
    ):
        _fail(at, f'"type" must be of {", ".join(KEYWORDS)}, not {_shown(given)}')
    if "type" in schema and (not types or len({*types}) < len(types)):
        _fail(at, '"type" must name types, each once')
    types = types or [*KEYWORDS]
    return [type_ for type_ in types if type_ != "integer" or "number" not in types]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _range(schema: dict[str, Any], low: str, high: str, at: str) -> tuple[int, int | None]:
    """The bounds of a length."""
    for key in (low, high):
        if key in schema and not (_whole(schema[key]) and 0 <= schema[key] <= REPEATS_MAX):
            _fail(at, f'"{key}" must be a whole number from 0 to {REPEATS_MAX}, not {_shown(schema[key])}')
    least, most = schema.get(low, 0), schema.get(high)
    if most is not None and least > most:
        _fail(at, f'"{low}" is {least}, but "{high}" is {most}')
    return least, most


def _bound(schema: dict[str, Any], key: str, at: str) -> int | None:
    if key not in schema:
        return None
    value: int = schema[key]
    if not (_whole(value) and abs(value) <= BOUND_MAX):
        _fail(at, f'"{key}" must be a whole number up to {BOUND_MAX}, not {_shown(value)}')
    return value


def _pattern(pattern: object, at: str) -> str:
    try:
        return pattern_gbnf(pattern if isinstance(pattern, str) else "")
    except ValueError as error:
        _fail(at, f'"pattern" cannot be enforced: {error}')
