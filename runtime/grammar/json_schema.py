"""Check of a JSON schema before it is compiled: what would not be enforced completely is refused by name.

llguidance ignores keywords that it does not know. Every text that it allows for a schema from here is valid,
but it does not allow every valid text:

- Properties come in the schema's order. An object with `properties` has no others but required ones.
- A keyword of one type implies that type.
- White space is at most one space, or a newline and up to 20 spaces or tabs.
- Years start at 1000.
"""

import re
from typing import Any
from urllib.parse import unquote

from .schema_keywords import (
    INEXACT,
    KEYWORDS,
    compile_error,
    excerpt,
    fail,
    has_type,
    is_exact,
    length_bounds,
    number_keywords,
    string_keywords,
    types_of,
)

NESTING_MAX = 64  # keywords and names in the path of a subschema
BRANCHES_MAX = 128
DEFINITIONS_MAX = 500  # subschemas that a $ref names; llguidance recurses along them
VISITS_MAX = 20_000  # of subschemas: definitions may overlap
DIVISORS_MAX = 10_000  # sum of the significant digits of all multipleOf, as integers: a compile takes time

ANNOTATIONS = {
    *("title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"),
    *("deprecated", "readOnly", "writeOnly", "discriminator"),
}
# Keywords that stand alone: next to one of them only annotations are allowed, and `type` with enum and const.
_UNIONS = ("anyOf", "oneOf", "allOf")
_VALUES = ("const", "enum")
_ENFORCED = {"type", "$ref", *_UNIONS, *_VALUES, *(key for keys in KEYWORDS.values() for key in keys)}


def enforceable(schema: object) -> dict[str, Any]:
    """Return a schema for llguidance that allows only what is valid for this one.

    Args:
        schema: the result of json.loads(), with whole numbers as int.

    Raises:
        RequestError: the schema is malformed or cannot be enforced. The message has the JSON pointer of the
            subschema.
    """
    normalizer = _Normalizer(schema, narrow=True)
    root, definitions = normalizer.run()
    if normalizer.one_ofs:
        _check_disjoint(_Normalizer(schema, narrow=False))
    return {**root, "$defs": definitions} if definitions else root


def _check_disjoint(normalizer: "_Normalizer") -> None:
    """Check that no value is valid for two branches of a oneOf, by the schema as it is written."""
    _, definitions = normalizer.run()
    for path, branches in normalizer.one_ofs:
        if message := compile_error({"oneOf": branches, "$defs": definitions}):
            overlap = "its schemas may overlap" if "oneOf" in message else message
            fail(path, f'"oneOf" cannot be enforced: {overlap}')


class _Normalizer:
    """Visits a schema and what it refers to. A `path` is the JSON pointer of a subschema.

    Attributes:
        one_ofs: path and branches of each oneOf, the inner ones first.
    """

    def __init__(self, schema: object, *, narrow: bool) -> None:
        """Start with nothing visited; `narrow` implies types and the absence of other properties."""
        self._schema, self._narrow = schema, narrow
        self.one_ofs: list[tuple[str, list[dict[str, Any]]]] = []
        self._names: dict[tuple[str, ...], str] = {}  # of the definitions, by the steps of a $ref's pointer
        self._pending: list[str] = []
        self._divisors = self._visits = 0

    def run(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the normal schema, and the definitions that it refers to."""
        root = self._visit(self._schema, "#")
        definitions: dict[str, dict[str, Any]] = {}
        while self._pending:
            pointer = self._pending.pop()
            definitions[self._names[_steps(pointer)]] = self._visit(self._lookup(pointer, pointer), pointer)
        return root, definitions

    def _visit(self, schema: object, path: str) -> dict[str, Any]:
        if path.count("/") > NESTING_MAX:
            fail(path[:80], f"nested more than {NESTING_MAX} keywords and names deep")
        self._visits += 1
        if self._visits > VISITS_MAX:
            fail(path, f"more than {VISITS_MAX} subschemas, those that a $ref names counted again")
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            fail(path, f"must be an object or true, not {excerpt(schema)}")
        keys = schema.keys() - ANNOTATIONS
        if unknown := sorted(keys - _ENFORCED) or ["$id"] * ("$id" in schema and path != "#"):
            fail(path, f"{excerpt(unknown[0])} cannot be enforced")
        for key in ("$ref", *_UNIONS, *_VALUES):
            if key in keys:
                if others := sorted(keys - {key} - ({"type"} if key in _VALUES else set())):
                    fail(path, f'"{others[0]}" cannot be enforced with "{key}"')
                return self._alone(key, schema, path)
        return self._typed(schema, keys, path) if keys else {}

    def _alone(self, key: str, schema: dict[str, Any], path: str) -> dict[str, Any]:
        if key == "$ref":
            return self._reference(schema[key], path)
        if key in _UNIONS:
            return self._union(key, schema[key], path)
        values = [schema["const"]] if key == "const" else schema["enum"]
        if not isinstance(values, list):
            fail(path, '"enum" must be a list')
        types = types_of(schema, path)
        listed = [value for value in values if any(has_type(value, type_) for type_ in types)]
        if not listed:
            fail(path, f"no listed value is {' or '.join(types)}")
        if (number := _inexact_number(listed)) is not None:
            fail(path, f'"{key}" cannot be enforced for {excerpt(number)}: {INEXACT}')
        return {"enum": listed}

    def _reference(self, pointer: object, path: str) -> dict[str, Any]:
        self._lookup(pointer, path)
        assert isinstance(pointer, str), "it was looked up"
        steps = _steps(pointer)  # one pointer has many spellings
        if steps not in self._names:
            if len(self._names) == DEFINITIONS_MAX:
                fail(path, f'"$ref" names more than {DEFINITIONS_MAX} subschemas')
            self._names[steps] = f"d{len(self._names)}"
            self._pending.append(pointer)
        return {"$ref": f"#/$defs/{self._names[steps]}"}

    def _lookup(self, pointer: object, path: str) -> Any:
        """Return the subschema at a JSON pointer."""
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            fail(path, f'"$ref" must be # or begin with #/, not {excerpt(pointer)}')
        target: Any = self._schema
        for key in _steps(pointer):
            if isinstance(target, list) and re.fullmatch("[0-9]{1,4}", key) and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                fail(path, f'"$ref" does not resolve: {excerpt(pointer)}')
        return target

    def _union(self, key: str, branches: object, path: str) -> dict[str, Any]:
        maximum = 1 if key == "allOf" else BRANCHES_MAX
        if not isinstance(branches, list) or not 1 <= len(branches) <= maximum:
            fail(path, f'"{key}" cannot be enforced unless it is a list of 1 to {maximum} schemas')
        visited = [self._visit(branch, f"{path}/{key}/{index}") for index, branch in enumerate(branches)]
        if key == "oneOf":
            self.one_ofs.append((path, visited))
        return visited[0] if key == "allOf" else {"anyOf": visited}  # of oneOf: see _check_disjoint()

    def _typed(self, schema: dict[str, Any], keys: set[str], path: str) -> dict[str, Any]:
        types = types_of(schema, path)
        for key in sorted(keys - {"type"}):
            if not any(key in KEYWORDS[type_] for type_ in types):
                fail(path, f'"{key}" cannot be enforced for {" or ".join(types)}')
        normal: dict[str, Any] = {"type": types} if self._narrow or "type" in schema else {}
        if "object" in types:
            normal |= self._object(schema, path)
        if "array" in types:
            normal |= self._array(schema, path)
        if "string" in types:
            normal |= string_keywords(schema, path)
        if "number" in types or "integer" in types:
            normal |= number_keywords(schema, path)
        if "multipleOf" in normal:
            self._check_divisor(normal["multipleOf"], path)
        return normal

    def _check_divisor(self, divisor: int | float, path: str) -> None:
        if divisor > 0:
            self._divisors += int("".join(re.findall("[0-9]", f"{divisor:.15f}".strip("0"))) or 0)
        message = "" if divisor > 0 else "it must be above 0"
        if self._divisors > DIVISORS_MAX:
            message = f"divisors of more than {DIVISORS_MAX} in all"
        if message := message or compile_error({"type": "number", "multipleOf": divisor}):
            fail(path, f'"multipleOf" cannot be enforced for {excerpt(divisor)}: {message}')

    def _object(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        additional = schema.get("additionalProperties", not self._narrow or "properties" not in schema)
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            fail(path, '"required" must be a list of names')
        if not isinstance(properties, dict):
            fail(path, '"properties" must be an object')
        if additional is False and (unknown := [name for name in required if name not in properties]):
            fail(path, f'"required" cannot be enforced for {excerpt(unknown[0])}, which "properties" lacks')
        if additional is not False:
            additional = self._visit(additional, f"{path}/additionalProperties")
        visited = {
            name: self._visit(value, f"{path}/properties/{name.replace('~', '~0').replace('/', '~1')}")
            for name, value in properties.items()
        }
        if self._narrow and visited:  # what is required beside the properties comes after them
            visited |= {name: additional for name in required if name not in visited}
            additional = False
        return {"properties": visited, "required": required, "additionalProperties": additional}

    def _array(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        low, high = length_bounds(schema, "minItems", "maxItems", path)
        items, prefix = schema.get("items", True), schema.get("prefixItems", [])
        if not isinstance(prefix, list):
            fail(path, '"prefixItems" must be a list')
        visited = [self._visit(item, f"{path}/prefixItems/{index}") for index, item in enumerate(prefix)]
        if items is False:
            high = len(prefix) if high is None else min(high, len(prefix))
        if high is not None and low > high:
            fail(path, f"no array has from {low} to {high} items")
        normal: dict[str, Any] = {"prefixItems": visited} if visited else {}
        normal |= {"items": False if items is False else self._visit(items, f"{path}/items"), "minItems": low}
        return normal if high is None else {**normal, "maxItems": high}


def _steps(pointer: str) -> tuple[str, ...]:
    """The names and indices in a JSON pointer."""
    return tuple(unquote(step).replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def _inexact_number(value: object) -> int | float | None:
    """Return a number within a value that is_exact() rejects; None if there is none."""
    if isinstance(value, int | float):
        return None if is_exact(value) else value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((number for part in parts if (number := _inexact_number(part)) is not None), None)
