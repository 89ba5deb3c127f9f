"""Compiler from JSON Schema to GBNF. A schema that cannot be enforced completely is refused.

Every text that the grammar allows is valid for the schema, but the grammar does not allow every valid text:

- Properties come in the schema's order, and an object with `properties` has no others.
- White space is at most one space, or a newline and up to 20 spaces or tabs.
- Numbers without bounds have up to 18 digits, 20 after the point and two in the exponent.
- A keyword of one type implies that type. Values of `enum` and `const` contain no white space.
- Years start at 1000.
"""

import json
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Never
from urllib.parse import unquote

from ...errors import RequestError
from .gbnf_parser import REPEATS_MAX
from .gbnf_writer import BOUND_MAX, integer_range, literal, number_range, repetition, string_choice
from .pattern import pattern_to_gbnf
from .union_overlap import JSON_TYPES, are_disjoint, compact_json, differ_early, max_parses

NESTING_MAX = 64  # keywords and names in the path of a subschema
BRANCHES_MAX = 128
PARSES_MAX = 64  # of one text at once; llama.cpp follows them all
INTEGER_MAX = 10**18 - 1  # for a bound that is not given

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


def schema_to_gbnf(schema: object) -> str:
    """Compile a schema to a grammar with the root rule `root`.

    Args:
        schema: the result of json.loads(), with whole numbers as int.

    Raises:
        RequestError: the schema is malformed or cannot be enforced. The message has the JSON pointer of the
            subschema.
    """
    return _SchemaCompiler(schema).compile()


def _fail(path: str, message: str) -> Never:
    raise RequestError(f"schema at {json.dumps(path)[1:-1][:160]}: {message}")


def _excerpt(value: object) -> str:
    return json.dumps(value)[:40]


class _SchemaCompiler:
    """Writes one rule for each subschema. A `path` is the JSON pointer of a subschema."""

    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}  # rule by text and keyword
        self._children: dict[str, Sequence[str]] = {}  # rules of the subschemas, by rule
        self._ref_rules: dict[str, str] = {}  # rule by the pointer of a $ref
        self._pending_refs: list[str] = []
        self._unions: list[tuple[str, str, str, list[Any]]] = []  # rule, path, keyword, branches

    def compile(self) -> str:
        root = self._visit(self._schema, "#")
        while self._pending_refs:
            pointer = self._pending_refs.pop()
            name, target = self._ref_rules[pointer], self._visit(self._lookup(pointer, pointer), pointer)
            self._rules[name], self._children[name] = target, [target]
        self._check_unions()
        rules = "".join(f"{name} ::= {text}\n" for name, text in self._rules.items())
        return f"root ::= {root}\n{rules}{_COMMON}"

    def _new_name(self, path: str) -> str:
        slug = re.sub("[^A-Za-z0-9]+", "-", path.rsplit("/", 1)[-1])[:24].strip("-")
        return f"{slug or 'whole'}-{len(self._rules)}"

    def _add_rule(self, text: str, path: str, children: Sequence[str] = (), keyword: str = "") -> str:
        """Return the name of the rule with this text, which is added if there is none."""
        name = self._names.setdefault((text, keyword), self._new_name(path))
        self._rules[name], self._children[name] = text, children
        return name

    def _visit(self, schema: object, path: str) -> str:
        """Return the name of the rule of a schema."""
        if path.count("/") > NESTING_MAX:
            _fail(path[:80], f"nested more than {NESTING_MAX} keywords and names deep")
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            _fail(path, f"must be an object or true, not {_excerpt(schema)}")
        keys = schema.keys() - ANNOTATIONS
        if unknown := sorted(keys - _ENFORCED) or ["$id"] * ("$id" in schema and path != "#"):
            _fail(path, f"{_excerpt(unknown[0])} cannot be enforced")
        for key, visit in _EXCLUSIVE_KEYWORDS.items():
            if key in keys:
                if others := sorted(keys - {key} - ({"type"} if key in ("enum", "const") else set())):
                    _fail(path, f'"{others[0]}" cannot be enforced with "{key}"')
                return visit(self, schema, path)
        return self._typed(schema, keys, path) if keys else "value"

    def _typed(self, schema: dict[str, Any], keys: set[str], path: str) -> str:
        types = _types(schema, path)
        for key in sorted(keys - {"type"}):
            if not any(key in KEYWORDS[type_] for type_ in types):
                _fail(path, f'"{key}" cannot be enforced for {" or ".join(types)}')
        names = [_TYPE_VISITORS[type_](self, schema, path) for type_ in types]
        return names[0] if len(names) == 1 else self._add_rule(" | ".join(names), path, names)

    def _reference(self, schema: dict[str, Any], path: str) -> str:
        pointer = schema["$ref"]
        if pointer == "#" and isinstance(self._schema, bool):
            return "value"
        self._lookup(pointer, path)
        if pointer not in self._ref_rules:
            self._ref_rules[pointer] = name = self._new_name(pointer)
            self._rules[name] = ""  # reserves the name until the target is visited
            self._pending_refs.append(pointer)
        return self._ref_rules[pointer]

    def _lookup(self, pointer: object, path: str) -> Any:
        """Return the subschema at a JSON pointer."""
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            _fail(path, f'"$ref" must be # or begin with #/, not {_excerpt(pointer)}')
        target: Any = self._schema
        for step in pointer.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and re.fullmatch("[0-9]{1,4}", key) and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                _fail(path, f'"$ref" does not resolve: {_excerpt(pointer)}')
        return target

    def _resolve(self, schema: object) -> object:
        """Follow the references of a schema; a chain that does not end resolves to True, any value."""
        for _ in range(NESTING_MAX):
            if not (isinstance(schema, dict) and "$ref" in schema):
                return schema
            schema = self._lookup(schema["$ref"], "#")
        return True

    def _union(self, schema: dict[str, Any], path: str) -> str:
        key = next(key for key in ("anyOf", "oneOf", "allOf") if key in schema)
        branches = schema[key]
        maximum = 1 if key == "allOf" else BRANCHES_MAX
        if not isinstance(branches, list) or not 1 <= len(branches) <= maximum:
            _fail(path, f'"{key}" cannot be enforced unless it is a list of 1 to {maximum} schemas')
        names = [self._visit(branch, f"{path}/{key}/{index}") for index, branch in enumerate(branches)]
        name = self._add_rule(" | ".join(names), path, names, key)
        self._unions.append((name, path, key, branches))
        return name

    def _check_unions(self) -> None:
        """Check that branches of oneOf are disjoint, and limit how many branches are followed at once."""
        overlapping = set()
        for name, path, key, branches in self._unions:
            for (i, left), (j, right) in combinations(enumerate(branches), 2):
                if key == "oneOf" and not are_disjoint(left, right, self._resolve):
                    _fail(path, f'"oneOf" cannot be enforced: a value may match both branch {i} and {j}')
                if not differ_early(left, right, self._resolve):
                    overlapping.add(name)
        if max_parses(self._children, overlapping, PARSES_MAX) > PARSES_MAX:
            _fail("#", f"a text may match more than {PARSES_MAX} branches of nested unions at once")

    def _enum(self, schema: dict[str, Any], path: str) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list):
            _fail(path, '"enum" must be a list')
        types = _types(schema, path)
        texts = [compact_json(value) for value in values if any(_has_type(value, type_) for type_ in types)]
        if not texts:
            _fail(path, f"no listed value is {' or '.join(types)}")
        return self._add_rule(string_choice([*dict.fromkeys(texts)]), path)

    def _object(self, schema: dict[str, Any], path: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        additional = schema.get("additionalProperties", "properties" not in schema)
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            _fail(path, '"required" must be a list of names')
        if not isinstance(properties, dict):
            _fail(path, '"properties" must be an object')
        if unknown := [name for name in required if name not in properties]:
            _fail(path, f'"required" cannot be enforced for {_excerpt(unknown[0])}, which "properties" lacks')
        if "properties" not in schema:
            return self._map(additional, path)
        if additional is not False:
            _fail(path, '"additionalProperties" cannot be enforced with "properties" unless it is false')
        paths = [f"{path}/properties/{name.replace('~', '~0').replace('/', '~1')}" for name in properties]
        values = [self._visit(value, path) for value, path in zip(properties.values(), paths, strict=True)]
        members = [
            (self._add_rule(f'{literal(compact_json(name))} ":" space {value}', path), name in required)
            for name, value, path in zip(properties, values, paths, strict=True)
        ]
        return self._add_rule(self._members(members, path), path, values)

    def _members(self, members: list[tuple[str, bool]], path: str) -> str:
        """Write an object with members in this order; each is a rule and whether it is required."""
        first = next((index for index, (_, required) in enumerate(members) if required), len(members) - 1)
        tail = [f'"," space {name}' if required else f'("," space {name})?' for name, required in members]
        rest = " ".join(tail[first + 1 :])
        alternatives = [f"{name} {rest}" for name, _ in members[first : first + 1]]
        for index in reversed(range(first)):
            rest = self._add_rule(f"{tail[index + 1]} {rest}", f"{path}-rest")
            alternatives.append(f"{members[index][0]} {rest}")
        optional = "" if any(required for _, required in members) else "?"
        inside = f"(({' | '.join(alternatives[::-1])}) space){optional}" if alternatives else ""
        return f'"{{" space {inside} "}}"'

    def _map(self, additional: object, path: str) -> str:
        """Write an object with arbitrary names."""
        if additional is False:
            return self._add_rule('"{" space "}"', path)
        value = self._visit(additional, f"{path}/additionalProperties")
        member = self._add_rule(f'string ":" space {value}', path)
        return self._add_rule(f'"{{" space ({member} ("," space {member})* space)? "}}"', path, [value])

    def _array(self, schema: dict[str, Any], path: str) -> str:
        low, high = _length_bounds(schema, "minItems", "maxItems", path)
        items, prefix = schema.get("items", True), schema.get("prefixItems", [])
        if not isinstance(prefix, list):
            _fail(path, '"prefixItems" must be a list')
        names = [self._visit(item, f"{path}/prefixItems/{index}") for index, item in enumerate(prefix)]
        if items is False:
            high = len(names) if high is None else min(high, len(names))
        if high is not None and low > high:
            _fail(path, f"no array has from {low} to {high} items")
        item = None if items is False else self._visit(items, f"{path}/items")
        return self._add_rule(self._items(names, item, low, high), path, [*names, *([item] if item else [])])

    def _items(self, prefix: list[str], item: str | None, low: int, high: int | None) -> str:
        """Write an array: the prefix items, then any number of `item` within the bounds."""
        prefix = prefix[:high] if prefix or item is None else [item][:high]
        inside = ""
        if item is not None and high != len(prefix):
            more = self._add_rule(f'"," space {item}', "#/more")
            maximum = None if high is None else high - len(prefix)
            inside = repetition(more, max(low - len(prefix), 0), maximum)
        for index in reversed(range(len(prefix))):
            inside = f'"," space {prefix[index]} {inside}' if index else f"{prefix[index]} {inside} space"
            inside = f"({inside})?" if index >= low else inside
        return f'"[" space {inside} "]"'

    def _string(self, schema: dict[str, Any], path: str) -> str:
        keys = [key for key in KEYWORDS["string"] if key in schema]
        for key in ("pattern", "format"):
            if key in keys and len(keys) > 1:
                other = next(other for other in keys if other != key)
                _fail(path, f'"{key}" cannot be enforced with "{other}"')
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                _fail(path, f'"format" can only be enforced for {", ".join(_FORMATS)}')
            return self._add_rule(rf'"\"" {schema["format"]} "\""', path)
        if "pattern" in schema:
            return self._add_rule(rf'"\"" {_pattern(schema["pattern"], path)} "\""', path)
        low, high = _length_bounds(schema, "minLength", "maxLength", path)
        return self._add_rule(rf'"\"" {repetition("char", low, high)} "\""', path) if keys else "string"

    def _number(self, schema: dict[str, Any], path: str) -> str:
        low, high = _bound(schema, "minimum", path), _bound(schema, "maximum", path)
        if (low, high) == (None, None):
            return "number"
        if low is not None and high is not None and low > high:
            _fail(path, f"there is no number from {low} to {high}")
        return self._add_rule(number_range(low, high), path)

    def _integer(self, schema: dict[str, Any], path: str) -> str:
        above, below = _bound(schema, "exclusiveMinimum", path), _bound(schema, "exclusiveMaximum", path)
        lows = [_bound(schema, "minimum", path), None if above is None else above + 1]
        highs = [_bound(schema, "maximum", path), None if below is None else below - 1]
        low = max((bound for bound in lows if bound is not None), default=None)
        high = min((bound for bound in highs if bound is not None), default=None)
        if (low, high) == (None, None):
            return "integer"
        low, high = -INTEGER_MAX if low is None else low, INTEGER_MAX if high is None else high
        if low > high:
            _fail(path, f"there is no integer from {low} to {high}")
        return self._add_rule(integer_range(low, high), path)


# Keywords that stand alone: next to one of them only annotations are allowed, and `type` with enum and const.
_EXCLUSIVE_KEYWORDS = {
    "$ref": _SchemaCompiler._reference,
    "anyOf": _SchemaCompiler._union,
    "oneOf": _SchemaCompiler._union,
    "allOf": _SchemaCompiler._union,
    "const": _SchemaCompiler._enum,
    "enum": _SchemaCompiler._enum,
}
_TYPE_VISITORS = {
    "object": _SchemaCompiler._object,
    "array": _SchemaCompiler._array,
    "string": _SchemaCompiler._string,
    "number": _SchemaCompiler._number,
    "integer": _SchemaCompiler._integer,
    "boolean": lambda *_: "boolean",
    "null": lambda *_: "null",
}
_ENFORCED = {"type", *_EXCLUSIVE_KEYWORDS, *(key for keys in KEYWORDS.values() for key in keys)}


def _has_type(value: object, type_: str) -> bool:
    return JSON_TYPES[type(value)] == type_ or (type_ == "integer" and type(value) is int)


def _types(schema: dict[str, Any], path: str) -> list[str]:
    """The types that the schema names, else those that its keywords apply to, else all."""
    implied = [type_ for type_, keys in KEYWORDS.items() if not schema.keys().isdisjoint(keys)]
    given = schema.get("type", implied)
    types = [given] if isinstance(given, str) else given
    if not isinstance(types, list) or not all(isinstance(name, str) and name in KEYWORDS for name in types):
        _fail(path, f'"type" must be one of {", ".join(KEYWORDS)}, not {_excerpt(given)}')
    if "type" in schema and (not types or len({*types}) < len(types)):
        _fail(path, '"type" must list distinct types')
    types = types or [*KEYWORDS]
    return [type_ for type_ in types if type_ != "integer" or "number" not in types]


def _length_bounds(schema: dict[str, Any], low_key: str, high_key: str, path: str) -> tuple[int, int | None]:
    for key in (low_key, high_key):
        if key in schema and not (_has_type(schema[key], "integer") and 0 <= schema[key] <= REPEATS_MAX):
            _fail(path, f'"{key}" must be an integer from 0 to {REPEATS_MAX}, not {_excerpt(schema[key])}')
    low, high = schema.get(low_key, 0), schema.get(high_key)
    if high is not None and low > high:
        _fail(path, f'"{low_key}" is {low}, but "{high_key}" is {high}')
    return low, high


def _bound(schema: dict[str, Any], key: str, path: str) -> int | None:
    if key not in schema:
        return None
    value: int = schema[key]
    if not (_has_type(value, "integer") and abs(value) <= BOUND_MAX):
        _fail(path, f'"{key}" must be an integer up to {BOUND_MAX}, not {_excerpt(value)}')
    return value


def _pattern(pattern: object, path: str) -> str:
    try:
        return pattern_to_gbnf(pattern if isinstance(pattern, str) else "")
    except ValueError as error:
        _fail(path, f'"pattern" cannot be enforced: {error}')
