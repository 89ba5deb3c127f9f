"""Grammars that constrain an answer: JSON schemas and Lark grammars, for llguidance."""

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from llguidance import LLMatcher, LLParserLimits

from ..errors import RequestError, as_line

SCHEMA_MAX = 1 << 16  # bytes
GRAMMAR_MAX = 1 << 14  # bytes of a Lark grammar
_DIGITS = 16  # of a number, as in llama.cpp

# The library's units of work ("fuel") pass at about 50 per microsecond in a compile and 14 in a step.
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,
    max_lexer_states=20_000,  # of 1 to 2 kB each
    max_grammar_size=200_000,
    verbose_errors=False,
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that llguidance accepts; made by the functions of this module."""

    source: str  # the grammar in llguidance's own format
    digits: int = 0  # limit on the digits of a JSON number before and after the point; 0 is no limit
    warning: str | None = None  # what of a JSON schema llguidance does not enforce


def from_lark(text: str, values: Mapping[str, Grammar] = MappingProxyType({})) -> Grammar:
    """Make a grammar from llguidance's variant of Lark, with `start` as its start rule.

    `values` are grammars by from_schema(), by the names of rules that stand for them in the text.
    Not enforced here: tokens (`<|name|>`, `<[1]>`), `temperature`, `max_tokens`. RequestError: the grammar is
    malformed, or exceeds a limit.
    """
    _check_size(text, "grammar", GRAMMAR_MAX)
    parts = {name: json.loads(value.source)["grammars"][0]["json_schema"] for name, value in values.items()}
    rules = [f"{name}: %json {json.dumps(part)}" for name, part in parts.items()]
    digits = max((value.digits for value in values.values()), default=0)
    return _checked(Grammar(LLMatcher.grammar_from_lark("\n".join([text, *rules])), digits), "grammar")


def from_schema(schema: Mapping[str, object] | str) -> Grammar:
    """Make a grammar of the JSON texts that are valid for a JSON Schema, as far as llguidance enforces it.

    {} allows any value. RequestError: the schema is not JSON, is too large, or llguidance rejects it.
    """
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        _check_size(text, "schema", SCHEMA_MAX)
        enforceable, left_out = _enforceable(text)
        source = LLMatcher.grammar_from_json_schema(json.dumps(enforceable), overrides=_JSON_OPTIONS)
    except (AttributeError, RecursionError, TypeError, ValueError) as error:  # also of malformed keywords
        raise RequestError(f"schema: {as_line(str(error))[:200]}") from None
    longest = max(map(len, re.findall("[0-9]+", text)), default=0)
    return _checked(Grammar(source, max(longest, _DIGITS)), "schema", left_out)


def _checked(grammar: Grammar, notation: str, left_out: Collection[str] = ()) -> Grammar:
    failed, messages = with_deep_stack(
        lambda: LLMatcher.validate_grammar_with_warnings(grammar.source, limits=LIMITS)
    )
    raise_error(notation, messages[0] if failed else "")
    if left_out:
        messages = [*messages, f"Unimplemented keys: {json.dumps(sorted(left_out))}"]
    return replace(grammar, warning=as_line("; ".join(messages))[:200] or None)


def raise_error(notation: str, message: str) -> None:
    """Raise RequestError with one of llguidance's messages, on one line, unless it is empty."""
    if message:
        line = as_line(message.removeprefix("ERROR: ").replace("<non-verbose/>", ""))
        raise RequestError(f"{notation}: {line[:200]}")


def _check_size(text: str, notation: str, maximum: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(f"{notation}: lone surrogate at character {error.start}") from None
    if size > maximum:
        raise RequestError(f"{notation}: {size} bytes are more than {maximum}")


# At most one space, or a newline with indentation: small models write white space without end.
_JSON_OPTIONS: Any = {"lenient": True, "whitespace_pattern": r"(?: |\n[ \t]{0,20})?"}
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_COMBINING = {"$ref", "anyOf", "oneOf"}
_ASKING = {"minProperties", "patternProperties"}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def _enforceable(text: str) -> tuple[Any, set[str]]:
    """Parse a schema, and return one that llguidance accepts, and with which small models come to an end.

    Also the keywords that it lacks.
    """
    left_out = set[str]()
    combined = list[bool]()  # of objects that are closed, each would exclude the other's properties

    def noted(schema: dict[str, Any]) -> dict[str, Any]:
        combined.append("allOf" in schema or ("properties" in schema and bool(schema.keys() & _COMBINING)))
        return schema

    root = json.loads(text, object_hook=noted)
    closes = not any(combined)

    def adapted(schema: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in schema.items() if not _is_rejected(key, value)}
        left_out.update(schema.keys() - kept.keys())
        if kept.get("type") != "object":  # properties may have the names of keywords
            return kept
        named = _with_names(kept, root)
        return _closed(named) if closes else named

    return json.loads(text, object_hook=adapted), left_out


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


T = TypeVar("T")
# llguidance recurses along chains of references, and the process ends where a stack does. What the longest
# schema needs is less than a quarter of this.
STACK_BYTES = 1 << 26
_LOCK = threading.Lock()  # the size for new threads is the process's


def with_deep_stack(function: Callable[[], T]) -> T:
    """Run a function in a thread with a large stack, and return its result; a panic is a RequestError."""

    def guarded() -> T:
        try:
            return function()
        except BaseException as error:  # a panic is no Exception
            raise error if isinstance(error, Exception) else RequestError(f"native code: {error}") from None

    with ThreadPoolExecutor(1, "thirteen-deep-stack") as executor:
        with _LOCK:
            usual = threading.stack_size(STACK_BYTES)
            try:
                future = executor.submit(guarded)
            finally:
                threading.stack_size(usual)
        return future.result()
