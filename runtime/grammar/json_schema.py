"""Check of a JSON schema before it is compiled: what would not be enforced completely is refused by name.

llguidance ignores keywords that it does not know. Every text that it allows for a schema from here is valid,
but it does not allow every valid text:

- Properties come in the schema's order. An object with `properties` has no others but required ones, an array
  with `prefixItems` has all of them, and no others but those of `items`.
- A keyword of one type implies that type. A maximum of lengths is at most 10,000, of items 1,000.
- Bounds that a double or 64 bits cannot have are made stricter. A number that may be a text is a number.
- White space is at most one space, or a newline and up to 20 spaces or tabs.
- Years start at 1000. The schemes of a `uri` are common ones, for small models to write addresses.
"""

import re
from typing import Any
from urllib.parse import unquote

from .schema_keywords import (
    INEXACT,
    KEYWORDS,
    UnenforceableError,
    compile_error,
    count_bounds,
    excerpt,
    fail,
    has_type,
    is_exact,
    number_keywords,
    pattern_parts,
    refuse,
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
    *("deprecated", "readOnly", "writeOnly", "discriminator", "id"),
}
# Keywords that stand alone, but for annotations, and `type` with enum and const; others are as in an allOf.
_UNIONS = ("anyOf", "oneOf", "allOf")
_VALUES = ("const", "enum")
_OBJECT = {*KEYWORDS["object"]}
_ENFORCED = {"type", "$ref", *_UNIONS, *_VALUES, *(key for keys in KEYWORDS.values() for key in keys)}


def enforceable(schema: object, ignored: list[str] | None = None) -> dict[str, Any]:
    """Return a schema for llguidance that allows only what is valid for this one.

    Args:
        schema: the result of json.loads(), with whole numbers as int.
        ignored: gets the JSON pointers of the keywords that cannot be enforced, which the schema then lacks;
            None refuses them.

    Raises:
        RequestError: the schema is malformed or cannot be enforced, UnenforceableError if a keyword is why.
            The message has the JSON pointer of the subschema.
    """
    normalizer = _Normalizer(schema, ignored, narrow=True)
    root, definitions = normalizer.run()
    if normalizer.one_ofs:
        _check_disjoint(_Normalizer(schema, ignored, narrow=False), ignored)
    return {**root, "$defs": definitions} if definitions else root


def _check_disjoint(normalizer: "_Normalizer", ignored: list[str] | None) -> None:
    """Check that no value is valid for two branches of a oneOf, by the schema as it is written."""
    _, definitions = normalizer.run()
    for schema, path, branches in normalizer.one_ofs:
        resolved = [definitions.get(branch.get("$ref", "").rpartition("/")[2], branch) for branch in branches]
        if not (message := compile_error({"oneOf": resolved, "$defs": definitions})):
            continue
        if ignored is None:
            message = "its schemas may overlap" if "oneOf" in message else message
            refuse(schema, "oneOf", path, f": {message}")
        ignored += [pointer for pointer in [f"{path}/oneOf"] if pointer not in ignored]  # it is an anyOf


class _Normalizer:
    """Visits a schema and what it refers to. A `path` is the JSON pointer of a subschema.

    Attributes:
        one_ofs: schema, path and branches of each oneOf, the inner ones first.
    """

    def __init__(self, schema: object, ignored: list[str] | None, *, narrow: bool) -> None:
        """Start with nothing visited; `narrow` implies types and the absence of other properties."""
        self._schema, self._ignored, self._narrow = schema, ignored, narrow
        self.one_ofs: list[tuple[dict[str, Any], str, list[dict[str, Any]]]] = []
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
        """Return the normal schema, without what cannot be enforced."""
        while True:
            try:
                return self._strictly(schema, path)
            except UnenforceableError as error:
                if self._ignored is None or error.schema is not schema or error.key not in error.schema:
                    raise
                if error.pointer not in self._ignored:  # as of a part from _siblings(), which is made anew
                    self._ignored.append(error.pointer)
                del error.schema[error.key]

    def _strictly(self, schema: object, path: str) -> dict[str, Any]:
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
            if self._ignored is None:
                refuse(schema, unknown[0], path)
            self._ignored += [f"{path}/{key}" for key in unknown]
            for key in unknown:
                del schema[key]
            keys -= {*unknown}
        for key in ("$ref", *_UNIONS, *_VALUES):
            if key in keys:
                own = {key, "type"} & keys if key in _VALUES else {key}
                if keys == own:
                    return self._alone(key, schema, path)
                return self._siblings(schema, own, keys - own | ({"type"} & keys), path)
        return self._typed(schema, keys, path) if keys else {}

    def _siblings(self, schema: dict[str, Any], own: set[str], others: set[str], path: str) -> dict[str, Any]:
        parts = [{key: schema[key] for key in schema if key in names} for names in (own, others)]
        try:
            return self._all_of(parts, [path, path], schema, path)
        except UnenforceableError as error:
            if any(error.schema is one for one in (schema, *parts)):
                error.schema, error.key = schema, error.key if error.key in schema else min(own)
            raise

    def _alone(self, key: str, schema: dict[str, Any], path: str) -> dict[str, Any]:
        if key == "$ref":
            return self._reference(schema[key], path)
        if key in _UNIONS:
            return self._union(key, schema, path)
        values = [schema["const"]] if key == "const" else schema["enum"]
        if not isinstance(values, list):
            fail(path, '"enum" must be a list')
        types = types_of(schema, path)
        listed = [value for value in values if any(has_type(value, type_) for type_ in types)]
        if not listed:
            fail(path, f"no listed value is {' or '.join(types)}")
        if (number := _inexact_number(listed)) is not None:
            refuse(schema, key, path, f" for {excerpt(number)}: {INEXACT}")
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

    def _target(self, schema: Any, path: str) -> dict[str, Any]:
        """Follow the references that a schema consists of; false is the opposite of any value."""
        for _ in range(NESTING_MAX):
            if not (isinstance(schema, dict) and schema.keys() - ANNOTATIONS == {"$ref"}):
                return schema if isinstance(schema, dict) else {} if schema is True else {"not": {}}
            schema = self._lookup(schema["$ref"], path)
        fail(path, '"$ref" refers to itself')

    def _union(self, key: str, schema: dict[str, Any], path: str) -> dict[str, Any]:
        branches, visited = schema[key], list[dict[str, Any]]()
        if not isinstance(branches, list) or not 1 <= len(branches) <= BRANCHES_MAX:
            refuse(schema, key, path, f" unless it is a list of 1 to {BRANCHES_MAX} schemas")
        paths = [f"{path}/{key}/{index}" for index in range(len(branches))]
        if key == "allOf":
            return self._all_of(branches, paths, schema, path)
        numbers = any(isinstance(one, dict) and one.get("type") in ("number", "integer") for one in branches)
        for branch, place in zip(branches, paths, strict=True):
            is_spelling = numbers and key == "anyOf" and isinstance(branch, dict) and "pattern" in branch
            try:
                visited.append((self._strictly if is_spelling else self._visit)(branch, place))
            except UnenforceableError:  # of pydantic's decimals: a number, or its text by a pattern
                if not is_spelling:
                    raise
                visited += [] if self._narrow else [{"type": "string"}]
        if key == "oneOf":
            self.one_ofs.append((schema, path, visited))
        return {"anyOf": visited}  # of oneOf: see _check_disjoint()

    def _all_of(
        self, branches: list[Any], paths: list[str], schema: dict[str, Any], path: str
    ) -> dict[str, Any]:
        """A schema for values that are valid for each; objects would exclude each other's names."""
        objects = [one for one in branches if not _OBJECT.isdisjoint(self._target(one, path))]
        if len(objects) > 1:
            refuse(schema, "allOf", path, " for several schemas of objects")
        visited = [self._visit(one, place) for one, place in zip(branches, paths, strict=True)]
        return visited[0] if len(visited) == 1 else {"allOf": visited}

    def _typed(self, schema: dict[str, Any], keys: set[str], path: str) -> dict[str, Any]:
        types = types_of(schema, path)
        for key in sorted(keys - {"type"}):
            if not any(key in KEYWORDS[type_] for type_ in types):
                refuse(schema, key, path, f" for {' or '.join(types)}")
        normal: dict[str, Any] = {"type": types} if self._narrow or "type" in schema else {}
        if "object" in types:
            normal |= self._object(schema, path)
        if "array" in types:
            normal |= self._array(schema, path)
        if "string" in types:
            normal |= string_keywords(schema, path)
        if "number" in types or "integer" in types:
            normal |= number_keywords(schema, types, path)
        if "multipleOf" in normal:
            self._check_divisor(schema, path)
        return normal

    def _check_divisor(self, schema: dict[str, Any], path: str) -> None:
        divisor = schema["multipleOf"]
        if divisor > 0:
            self._divisors += int("".join(re.findall("[0-9]", f"{divisor:.15f}".strip("0"))) or 0)
        message = "" if divisor > 0 else "it must be above 0"
        if self._divisors > DIVISORS_MAX:
            message = f"divisors of more than {DIVISORS_MAX} in all"
        if message := message or compile_error({"type": "number", "multipleOf": divisor}):
            refuse(schema, "multipleOf", path, f" for {excerpt(divisor)}: {message}")

    def _object(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        additional = schema.get("additionalProperties", not self._narrow or "properties" not in schema)
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            fail(path, '"required" must be a list of names')
        if not isinstance(properties, dict):
            fail(path, '"properties" must be an object')
        patterns = self._name_patterns(schema, path)
        if isinstance(patterns, list):  # of names
            properties, patterns, additional = dict.fromkeys(patterns, additional), {}, False
        unknown = [name for name in required if name not in properties]
        if additional is False and unknown and not patterns:
            refuse(schema, "required", path, f' for {excerpt(unknown[0])}, which "properties" lacks')
        if patterns and self._narrow:
            additional = False
        if additional is not False:
            additional = self._visit(additional, f"{path}/additionalProperties")
        visited = {
            name: self._visit(value, f"{path}/properties/{name.replace('~', '~0').replace('/', '~1')}")
            for name, value in properties.items()
            if name in required or not (value is False or value == {"not": {}})
        }
        if self._narrow and visited:  # what is required beside the properties comes after them
            visited |= {name: additional for name in required if name not in visited}
            additional = False
        normal = {"properties": visited, "required": required, "additionalProperties": additional}
        low, high = count_bounds(schema, "Properties", path)
        if low > 1 and not (self._narrow and visited):
            refuse(schema, "minProperties", path, " above 1")  # a name that comes twice would count twice
        normal |= {"patternProperties": patterns} if patterns else {}
        if not self._narrow:
            return normal
        counts = ({"minProperties": low} if low else {}) | ({} if high is None else {"maxProperties": high})
        names: dict[str, Any] = {"type": "object", "required": required, "additionalProperties": False}
        names |= {"properties": dict.fromkeys(visited, True)}
        names |= {"patternProperties": dict.fromkeys(patterns, True)}
        for key, count in counts.items():
            if visited and (message := compile_error({**names, key: count})):
                refuse(schema, key, path, f": {message}")
        return normal | counts

    def _name_patterns(self, schema: dict[str, Any], path: str) -> dict[str, Any] | list[str]:
        """Return schemas by the pattern of names, for what names a map has; or the names."""
        key, found = "patternProperties", schema.get("patternProperties", {})
        names = self._target(schema.get("propertyNames", True), path)
        if "type" in names and "string" not in types_of(names, f"{path}/propertyNames"):
            refuse(schema, "propertyNames", path, " for names that are no strings")
        if keywords := names.keys() - ANNOTATIONS - {"type"}:
            key, pattern = "propertyNames", {}
            if found:
                refuse(schema, key, path, " beside patternProperties")
            if keywords == {"enum"} and isinstance(names["enum"], list) and not schema.get("properties"):
                return [value for value in names["enum"] if isinstance(value, str)]
            if keywords <= {*KEYWORDS["string"]}:
                pattern = string_keywords(names, path)
            only = pattern.get("pattern") if len(pattern) == 1 else None
            found = {only: schema.get("additionalProperties", True)}
        if not found and key not in schema:
            return {}
        if not isinstance(found, dict) or len(found) != 1 or None in found or schema.get("properties"):
            refuse(schema, key, path, " for these names")
        ((pattern, value),) = found.items()
        if len(parts := pattern_parts(schema, key, pattern, path)) > 1:
            refuse(schema, key, path, " with look-around")
        return {parts[0]: self._visit(value, f"{path}/{key}")}

    def _array(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        low, high = count_bounds(schema, "Items", path)
        prefix, rest = schema.get("prefixItems", []), "items"
        if isinstance(schema.get("items"), list):  # of draft 7
            prefix, rest = schema["items"], "additionalItems"
        items = schema.get(rest, not (prefix and self._narrow))
        if not isinstance(prefix, list):
            fail(path, '"prefixItems" must be a list')
        visited = [self._visit(item, f"{path}/prefixItems/{index}") for index, item in enumerate(prefix)]
        if items is False:
            high = len(prefix) if high is None else min(high, len(prefix))
        if self._narrow and "minItems" not in schema:
            low = len(prefix) if high is None else min(high, len(prefix))
        if high is not None and low > high:
            fail(path, f"no array has from {low} to {high} items")
        if schema.get("uniqueItems") and high not in {0, 1}:
            refuse(schema, "uniqueItems", path)
        normal: dict[str, Any] = {"prefixItems": visited} if visited else {}
        normal |= {
            "items": False if items is False else self._visit(items, f"{path}/{rest}"),
            "minItems": low,
        }
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
